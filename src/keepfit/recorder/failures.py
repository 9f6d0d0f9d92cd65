"""Errors of the system, in the words of keepfit."""

from __future__ import annotations

import errno
import sqlite3
from typing import TYPE_CHECKING

from keepfit.errors import DamagedObject, KeepfitError, RunReadOnly, StoreFailed, StoreFull

if TYPE_CHECKING:
    from pathlib import Path

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
_KEPT = "What could not be written stays in memory and is tried again at the next checkpoint; nothing recorded is lost."


def failure(error: Exception, directory: Path, *, opening: bool = False) -> Exception:
    """Return the error to raise for one that came up while a run was written.

    Args:
        error: What came up.
        directory: The folder of the run.
        opening: Whether it was being opened, so that nothing waits in memory.

    Returns:
        A `RunFolderError` for an error of the file system or of SQLite, with the
        cause attached; any other error as it is.
    """
    if isinstance(error, KeepfitError) or not isinstance(error, OSError | sqlite3.Error):
        return error
    kept = "Nothing was trained or recorded." if opening else _KEPT
    result: Exception
    if _is(error, _FULL, sqlite3.SQLITE_FULL):
        result = StoreFull(
            f"No space is left for the run in {directory}: {error}.\n{kept} "
            "Free some space there, or keep fewer states (keep=).",
            path=directory,
        )
    elif _is(error, _READ_ONLY, sqlite3.SQLITE_READONLY):
        result = RunReadOnly(
            f"The run in {directory} cannot be written: {error}.\n"
            "Nothing was changed. Give this process the right to write there, or use another folder.",
            path=directory,
        )
    elif _is(error, set(), sqlite3.SQLITE_CORRUPT):
        result = DamagedObject(
            f"The journal of the run in {directory} is damaged: {error}.\n"
            "Nothing was changed. Bring run.sqlite back from a copy, or begin a run in another folder.",
            file=str(directory / "run.sqlite"),
            tensors=(),
            reason=str(error),
        )
    else:
        result = StoreFailed(
            f"The run in {directory} could not be {'opened' if opening else 'written'}: {error}.\n{kept} "
            "Check the name of the folder and the disk that holds it.",
            path=directory,
        )
    result.__cause__ = error
    return result


def _is(error: Exception, numbers: set[int], code: int) -> bool:
    if isinstance(error, OSError):
        return error.errno in numbers
    # The low byte is the error, the others say more about it.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == code
