"""Files that callbacks write, so that they go on over fits and processes."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import xxhash

# The last bytes tell whether a file is the one that was recorded.
_TAIL_BYTES = 4096
_SETTINGS = "_keepfit_csv_settings"


def end_of(callback: Any) -> dict[str, Any] | None:
    """Return where a callback's file ends and which columns it has; None for a callback without such a file."""
    if not isinstance(callback, keras.callbacks.CSVLogger):
        return None
    if callback.csv_file is not None and not callback.csv_file.closed:
        callback.csv_file.flush()
    path = Path(callback.filename)
    try:
        length = path.stat().st_size
        tail = _tail(path, length)
    except OSError:  # nothing written yet, or not in this file system
        length, tail = 0, ""
    return {"name": callback.filename, "length": length, "tail": tail, "columns": callback.keys}


def before_begin(callback: Any, end: Mapping[str, Any]) -> str | None:
    """Cut a CSV file back to where it was recorded, and let the callback go on behind that.

    A file that is missing begins anew, with a header. One that was changed
    since is not cut.

    Returns:
        What a user should know, or None.
    """
    _put_settings_back(callback)
    path = Path(callback.filename)
    try:
        size = path.stat().st_size
        recorded = _is_recorded(path, size, end, same_name=end["name"] == callback.filename)
    except OSError:
        return None
    said = None
    if recorded:
        os.truncate(path, end["length"])
    elif end["name"] == callback.filename and size:
        _end_with_whole_row(path, size)
        said = (
            f"{callback.filename} is not what was recorded (it was changed or cut since): nothing was taken from it, "
            "CSVLogger goes on at its end."
        )
    else:
        return None  # another file: it is the callback's own business
    vars(callback)[_SETTINGS] = callback.append, callback.append_header
    callback.append = True
    return said


def after_begin(callback: Any, end: Mapping[str, Any]) -> None:
    """Give a CSV file that goes on the columns it had, and the callback the user's own settings."""
    if _SETTINGS not in vars(callback):
        return
    if end["columns"] and not callback.append_header:
        callback.keys = list(end["columns"])
        dialect = type("Dialect", (csv.excel,), {"delimiter": callback.sep})
        callback.writer = csv.DictWriter(callback.csv_file, fieldnames=["epoch", *callback.keys], dialect=dialect)
        _put_settings_back(callback)
    else:
        # Nothing but perhaps a header yet: Keras finds the columns at the first row, and reads append_header there.
        callback.append = vars(callback).pop(_SETTINGS)[0]


def drop_backup_and_restore(callbacks: Sequence[Any]) -> tuple[list[Any], str | None]:
    """Return the callbacks without Keras's BackupAndRestore, and what to say about that, if anything.

    A ``CallbackList`` is replaced by what it holds.
    """
    flat = [inner for c in callbacks for inner in (c.callbacks if isinstance(c, keras.callbacks.CallbackList) else [c])]
    kept = [c for c in flat if not isinstance(c, keras.callbacks.BackupAndRestore)]
    if len(kept) == len(flat):
        return kept, None
    return kept, (
        "BackupAndRestore does nothing here: the run keeps checkpoints by itself. "
        "Files that it wrote before are left as they are."
    )


def _put_settings_back(callback: Any) -> None:
    """Undo what `before_begin` set; also after a fit that failed before it began."""
    settings = vars(callback).pop(_SETTINGS, None)
    if settings is not None:
        callback.append, callback.append_header = settings


def _is_recorded(path: Path, size: int, end: Mapping[str, Any], *, same_name: bool) -> bool:
    length = int(end["length"])
    if not length:  # nothing tells an empty file from another one but its name
        return same_name
    return size >= length and _tail(path, length) == str(end["tail"])


def _tail(path: Path, length: int) -> str:
    with path.open("rb") as file:
        file.seek(max(0, length - _TAIL_BYTES))
        return xxhash.xxh3_64_hexdigest(file.read(min(length, _TAIL_BYTES)))


def _end_with_whole_row(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.seek(size - 1)
        if file.read(1) != b"\n":
            file.write(b"\n")
