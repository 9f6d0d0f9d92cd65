"""keepfit makes ``fit()`` something you can call again and again.

Public names: `attach`, `partitions`, `Run`, `History`, `errors`, `schedules`. They are loaded on first
use, so that reading a run folder needs neither Keras nor a backend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keepfit import _backend

if TYPE_CHECKING:
    from keepfit import errors, schedules
    from keepfit._attach import attach
    from keepfit.data import partitions
    from keepfit.history import History
    from keepfit.run import Run

__version__ = "0.1.0"
__all__ = ["History", "Run", "__version__", "attach", "errors", "partitions", "schedules"]

_HOMES = {
    "attach": "keepfit._attach",
    "partitions": "keepfit.data",
    "Run": "keepfit.run",
    "History": "keepfit.history",
}

_backend.choose()


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'keepfit' has no attribute {name!r}")
    import importlib

    if name in ("errors", "schedules"):
        return importlib.import_module(f"keepfit.{name}")
    if name in ("attach", "partitions", "Run"):
        _backend.check()
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
