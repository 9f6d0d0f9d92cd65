"""What is in a run folder, read without disturbing a process that writes it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from keepfit.errors import RunFolderError
from keepfit.history import History
from keepfit.journal import FILE_NAME, Reader
from keepfit.journal.schema import MIGRATIONS

if TYPE_CHECKING:
    from keepfit.journal import CheckpointRecord, SessionRecord

OBJECTS = "objects"
LOCK = "lock"
# A reader that meets a writer at a bad moment finds all well the next time.
TRIES = 3

Result = TypeVar("Result")


@dataclass(frozen=True)
class RunFolder:
    """One reading of a run folder.

    Args:
        directory: The folder, as it was given.
        format: Number of its format.
        meta: Facts about the whole run.
        sessions: The processes that had it open, oldest first.
        history: All its fits, closed branches included.
        checkpoints: The checkpoints that are kept, oldest first, those of closed branches included.
        files: Name -> bytes of the files in `objects` that keepfit made.
        writer: The live process that has it open, in words; None if there is none.
    """

    directory: Path
    format: int
    meta: Mapping[str, Any]
    sessions: tuple[SessionRecord, ...]
    history: History
    checkpoints: tuple[CheckpointRecord, ...]
    files: Mapping[str, int]
    writer: str | None

    @property
    def objects(self) -> Path:
        """Folder of the stored tensors."""
        return self.directory / OBJECTS

    @property
    def created(self) -> float | None:
        """When the first process opened it, in seconds since 1970."""
        return self.sessions[0].started if self.sessions else None

    @property
    def model(self) -> Any:
        """What the journal knows of the model, None before there is one."""
        return next((self.meta[key] for key in ("model", "signature") if self.meta.get(key)), None)

    @property
    def plan(self) -> Mapping[str, Any]:
        """How the newest fit was run: plan, backend, versions, device; not why, and nothing of frozen layers."""
        plans = (fit.plan for fit in reversed(self.history.records) if fit.plan and fit.branch == 0)
        newest = dict(next(plans, {}))
        for name in ("reason", "prefix"):
            newest.pop(name, None)
        first = {name: newest.pop(name) for name in ("plan", "backend") if name in newest}
        return first | newest


def read_folder(directory: Path) -> RunFolder:
    """Read a run folder.

    Raises:
        NotARun: The folder holds something else.
        FormatTooNew: It was written by a newer keepfit.
        RunFolderError: Its journal cannot be read.
    """
    try:
        return again_if(lambda: _read(directory), sqlite3.Error)
    except (sqlite3.Error, ValueError, TypeError, KeyError) as error:
        # Rows that make no sense are damage too, whatever they broke while they were read.
        raise RunFolderError(
            f"The journal {directory / FILE_NAME} is damaged: {error}.\n"
            "Nothing was changed. `keepfit verify` says more; a copy of the folder can replace it.",
            path=directory / FILE_NAME,
        ) from error


def again_if(work: Callable[[], Result], kind: type[Exception]) -> Result:
    """Return what `work` gives, trying again where an error of one kind may be a writer's doing."""
    for _ in range(TRIES - 1):
        try:
            return work()
        except kind:
            continue
    return work()


def _read(directory: Path) -> RunFolder:
    with Reader.open(directory) as reader:
        meta = reader.meta()
        history = History.from_journal(reader, directory)
        checkpoints = tuple(reader.checkpoints(branch=None))
        sessions = tuple(reader.sessions())
        files = reader.files()
    return RunFolder(
        directory=directory,
        format=_format(directory / FILE_NAME),
        meta=meta,
        sessions=sessions,
        history=history,
        checkpoints=checkpoints,
        files=files,
        writer=_writer(directory / LOCK),
    )


def _format(path: Path) -> int:
    """Return the format of a journal that could be opened.

    References:
        https://www.sqlite.org/fileformat.html#the_database_header: the user version, a big-endian number at 60.
    """
    with path.open("rb") as file:
        header = file.read(64)
    # In the first moments it is in the log alone; only the newest format is ever written anew.
    return int.from_bytes(header[60:64], "big") or len(MIGRATIONS)


def _writer(path: Path) -> str | None:
    from keepfit.store.lock import holder_of

    try:
        holder = holder_of(path)
    except OSError:
        return None
    if holder is None or not holder.lives():
        return None
    return f"process {holder.process.pid} on {holder.process.host}"
