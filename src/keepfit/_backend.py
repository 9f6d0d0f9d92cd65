"""Which backend Keras will use, where nobody has said and its default is not installed."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

_PREFERRED = ("jax", "torch")
_unsaid: list[str] = []
_ADVICE = 'Install one: pip install "keepfit[jax]". Then import keepfit before keras, or set KERAS_BACKEND=jax.'


def choose() -> None:
    """Let Keras use an installed backend where nothing else decides.

    Keras's default, TensorFlow, stays where it is installed. Where it is not,
    and neither ``KERAS_BACKEND`` nor Keras's config file names another backend, an
    installed one is chosen, JAX first, and `check` says so once on stderr: what
    only reads a run has no business with backends.
    """
    if "keras" in sys.modules or os.environ.get("KERAS_BACKEND") or _installed("tensorflow"):
        return
    # Keras writes its default into the config file by itself, so "tensorflow" there is nobody's choice.
    if _configured() not in (None, "tensorflow"):
        return
    found = next((name for name in _PREFERRED if _installed(name)), None)
    if found is None:
        return
    os.environ["KERAS_BACKEND"] = found
    _unsaid.append(f"keepfit: TensorFlow is not installed, so Keras uses {found}. Set KERAS_BACKEND to choose another.")


def check() -> None:
    """Check that Keras can be imported with its backend, and say once which one was chosen for the user.

    Raises:
        ImportError: Says what to install, or in which order to import.
    """
    try:
        import keras  # noqa: F401
    except ImportError as error:
        backend = os.environ.get("KERAS_BACKEND") or _configured() or "tensorflow"
        advice = _ADVICE
        if backend in ("tensorflow", "torch") and not _installed(backend):
            advice = f'Install it: pip install "keepfit[{backend}]". Or {_ADVICE[0].lower()}{_ADVICE[1:]}'
        raise ImportError(f"Keras could not be imported with the backend {backend!r}: {error}. {advice}") from error

    while _unsaid:
        sys.stderr.write(_unsaid.pop() + "\n")


def _configured() -> str | None:
    """Return the backend that Keras's config file names, if there is one."""
    base = os.environ.get("KERAS_HOME")
    path = Path(base) / "keras.json" if base else Path.home() / ".keras" / "keras.json"
    try:
        value = json.loads(path.read_text()).get("backend")
    except (OSError, ValueError, AttributeError):
        return None
    return str(value) if value else None


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None
