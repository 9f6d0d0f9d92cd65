"""Run the continuity suites and Keras's own tests with every Keras that keepfit supports, and print a table.

``python -m tests.compat [--backend torch] [--keras 3.14] [--sample]``: the newest patch of
each minor version gets a virtual environment of its own under ``.compat``, with
keepfit and one backend. Few releases of Keras carry its tests: those of the
Keras that runs this program are run with the others too, and what one of these
does not pass itself does not count. Exit status 1 where anything fails.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path
from xml.etree import ElementTree as ET

from keepfit._keras import SUPPORTED
from tests.conformance.__main__ import BACKENDS, HEADER, SAMPLE, SUITES, compare, installed_tests

ROOT = Path(__file__).resolve().parents[2]
CONTINUITY = (
    "tests/contract",
    "tests/continuity",
    "tests/behaviour/test_meaning_of_keras.py",
    "tests/behaviour/test_optimizer_state.py",
    "tests/behaviour/test_rewriters.py",
)
# What pyproject.toml's extra for tests has for one backend, or for `make check` alone.
# torchdata asks for a torch of any kind, and plain `torch` brings gigabytes.
OF_BACKEND = {
    "jax": ("jax",),
    "tensorflow": ("tensorflow-cpu", "tensorboard"),
    "torch": ("torch", "torchdata"),
}
OF_CHECKS = ("mypy", "ruff", "import-linter")


def requirements(backend: str) -> list[str]:
    """Return what the tests need on one backend."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["test"]
    others = {name for other, names in OF_BACKEND.items() if other != backend for name in names}
    return [each for each in listed if re.split(r"[<>=~!\[; ]", each)[0] not in {*others, *OF_CHECKS}]


def environment(minor: str, backend: str) -> str:
    """Make a virtual environment with the newest patch of a Keras, or bring it up to date; return its Python."""
    place = ROOT / ".compat" / f"keras-{minor}-{backend}"
    python = place / "bin" / "python"
    if not python.exists():
        venv.EnvBuilder(with_pip=True, symlinks=True).create(place)
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade"]
    subprocess.run([*command, "-e", str(ROOT), f"keras=={minor}.*", *requirements(backend)], check=True)
    return str(python)


def version_of(python: str) -> str:
    """Return the Keras version in an environment."""
    code = "import importlib.metadata as m; print(m.version('keras'))"
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def continuity(python: str, backend: str, suites: tuple[str, ...]) -> tuple[str, list[str]]:
    """Return how many tests of ours passed and failed, as a cell of the table, and the names of the failed ones."""
    report = ROOT / ".compat" / "report.xml"
    report.unlink(missing_ok=True)
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *suites]
    command += ["-n", "2", "--dist", "worksteal"]
    settings = {**os.environ, "KERAS_BACKEND": backend}
    done = subprocess.run(command, cwd=ROOT, env=settings, check=False, capture_output=True, text=True)
    if not report.exists():
        return "none", [done.stdout[-2000:] + done.stderr[-2000:]]
    cases = list(ET.parse(report).iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = sum(case.find("skipped") is not None for case in cases)
    names = [f"{case.get('classname')}::{case.get('name')}" for case in failed]
    return f"{len(cases) - len(failed) - skipped} of {len(cases) - skipped}", names


def main() -> int:
    """Print the table, and what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=BACKENDS, action="append", help="by default jax")
    parser.add_argument("--keras", choices=SUPPORTED, action="append", help="by default all")
    parser.add_argument("--sample", action="store_true", help="a few suites only")
    given = parser.parse_args()
    ours = ("tests/continuity/test_cut.py",) if given.sample else CONTINUITY
    theirs = SAMPLE if given.sample else SUITES
    tests = installed_tests()
    print(f"{'Keras':<9} {'continuity':>12}  {HEADER}")
    something_failed = False
    for minor in given.keras or reversed(SUPPORTED):
        for backend in given.backend or ["jax"]:
            python = environment(minor, backend)
            passed, failed = continuity(python, backend, ours)
            print(f"{version_of(python):<9} {passed:>12}  ", end="", flush=True)
            line, lost = compare(backend, theirs, python=python, tests=tests)
            print(line, flush=True)
            for test in failed:
                print(f"  failed: {test}", flush=True)
            for test in lost:
                print(f"  lost: {test}", flush=True)
            something_failed = something_failed or bool(failed or lost)
    return 1 if something_failed else 0


if __name__ == "__main__":
    sys.exit(main())
