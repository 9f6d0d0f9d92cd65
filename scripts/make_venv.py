"""Make the virtual environment; says plainly what is missing."""

import sys
import venv

if sys.version_info < (3, 11):  # noqa: UP036 - it is run by whatever Python is there
    sys.exit(f"keepfit needs Python 3.11 or newer, this is {sys.version.split()[0]}. Try: make PYTHON=python3.12 demo")
venv.EnvBuilder(with_pip=True, symlinks=True).create(sys.argv[1])
