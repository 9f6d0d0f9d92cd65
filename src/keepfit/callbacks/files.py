"""Files that callbacks write, so that they go on over fits and processes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

PREFIX = "file:"
_LENGTH = PREFIX + "length"
_KEYS = PREFIX + "keys"
_APPEND = "_keepfit_append"


def state_of(callback: Any) -> dict[str, Any]:
    """Return what a callback's file has, to cut it back to."""
    if not isinstance(callback, keras.callbacks.CSVLogger):
        return {}
    path = Path(callback.filename)
    return {_LENGTH: path.stat().st_size if path.exists() else 0, _KEYS: getattr(callback, "keys", None)}


def before_begin(callback: Any, state: Any) -> None:
    """Cut a CSV file back to where its memory was taken, and let the callback go on behind that."""
    if not isinstance(callback, keras.callbacks.CSVLogger) or not isinstance(state, dict) or _LENGTH not in state:
        return
    path = Path(callback.filename)
    if not path.exists() or not state[_LENGTH] or path.stat().st_size < state[_LENGTH]:
        return
    with path.open("r+b") as file:
        file.truncate(state[_LENGTH])
    vars(callback)[_APPEND] = callback.append
    callback.append = True


def after_begin(callback: Any, state: Any) -> None:
    """Give a CSV file the columns it had; the user's own setting is put back."""
    if not isinstance(callback, keras.callbacks.CSVLogger) or _APPEND not in vars(callback):
        return
    callback.append = vars(callback).pop(_APPEND)
    callback.append_header = False
    if state.get(_KEYS):
        callback.keys = list(state[_KEYS])


def drop_backup_and_restore(callbacks: Sequence[Any]) -> tuple[list[Any], str | None]:
    """Return the callbacks without Keras's BackupAndRestore, and what to say about that."""
    kept = [c for c in callbacks if not isinstance(c, keras.callbacks.BackupAndRestore)]
    if len(kept) == len(callbacks):
        return kept, None
    return kept, "BackupAndRestore does nothing here: the run keeps checkpoints by itself, and its own files are left as they are."
