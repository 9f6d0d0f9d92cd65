"""Libraries that keepfit can use and does not need."""

from __future__ import annotations

import importlib
from types import ModuleType


def load_extra(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Return an optional library, imported now.

    Args:
        module: Name of the module to import.
        extra: The extra of keepfit that installs it.
        purpose: What needs it, as the start of a sentence.

    Raises:
        ImportError: The library is not installed; the message has the line that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        library = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != library:
            raise  # the library is there and broken: its own message says more
        raise ImportError(
            f'{purpose} needs {library}, which is not installed.\nInstall it with: pip install "keepfit[{extra}]"',
            name=library,
        ) from error
