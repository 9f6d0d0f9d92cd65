"""One writer per run."""

from __future__ import annotations

import json
import os
import time
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keepfit.errors import RunGone, RunLocked
from keepfit.store.process import Process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None  # type: ignore[assignment]

BEAT_S = 5.0
# A writer that cannot be seen (another machine or container) counts as dead after this long without a beat.
SILENT_S = 60.0


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock.

    Args:
        process: The process.
        token: Names this holding of the lock.
        taken: Wall clock when it was taken, in seconds since 1970.
        beat: Wall clock of its last sign of life.
    """

    process: Process
    token: str
    taken: float
    beat: float

    def lives(self) -> bool:
        """Return whether it has to be taken for alive."""
        seen = self.process.lives()
        return time.time() - self.beat < SILENT_S if seen is None else seen


class RunLock:
    """The file ``lock`` of a run, held by this process.

    The file names its holder. It stays when a process is killed; the next one
    sees that the holder is dead (or another, that has its number now) and takes
    it over. An advisory lock of the system would outlive the writer in workers
    that were forked from it, so one is held only while the file is looked at
    and changed.
    """

    def __init__(self, path: Path, token: str) -> None:
        self._path = path
        self._token = token
        self._pid = os.getpid()
        # Held open, and for nothing else: while it is, no other file can have its number.
        self._descriptor: int | None = os.open(path, os.O_RDONLY)
        self._beaten = time.monotonic()

    @classmethod
    def take(cls, path: Path) -> RunLock:
        """Take the lock at a path.

        Raises:
            RunLocked: A live process holds it; ``pid``, ``host`` and ``path`` say which.
            OSError: The file cannot be written.
        """
        token = uuid.uuid4().hex
        with _exclusive(path) as descriptor:
            holder = _holder(descriptor)
            if holder is not None and holder.lives():
                raise _locked(path, holder)
            me = {"process": Process.current().to_json(), "token": token, "taken": time.time()}
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(me).encode(), 0)
        return cls(path, token)

    def beat(self) -> None:
        """Give a sign of life if the last one is some seconds old."""
        if time.monotonic() - self._beaten >= BEAT_S:
            self._beaten = time.monotonic()
            with suppress(OSError):
                os.utime(self._path)

    def hold(self) -> None:
        """Return if this process still holds the lock.

        Raises:
            RunGone: The folder was deleted or moved meanwhile.
            RunLocked: Another took it over, having seen no sign of life for long.
        """
        holder = holder_of(self._path)
        if holder is None or holder.token != self._token:
            self.stand()
            raise _lost(self._path, holder)

    def stand(self) -> None:
        """Return if the file is the one that was taken, whoever holds it now.

        Raises:
            RunGone: It is not there, or is another: the folder was deleted or moved meanwhile.
        """
        if self._descriptor is None:
            there = self._path.exists()
        else:
            mine = os.fstat(self._descriptor)
            there = _identity(self._path) == (mine.st_dev, mine.st_ino)
        if not there:
            raise _gone(self._path, holder_of(self._path))

    def release(self) -> None:
        """Let it go; nothing happens where another has taken it, or in a forked child."""
        if os.getpid() != self._pid:
            return
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
        if not self._path.exists():
            return
        with suppress(OSError), _exclusive(self._path) as descriptor:
            holder = _holder(descriptor)
            if holder is not None and holder.token == self._token:
                # Emptied, not removed: a file that others may be opening must stay the same file.
                os.ftruncate(descriptor, 0)


def holder_of(path: Path) -> Holder | None:
    """Return who holds the lock at a path, dead or alive; None if nobody does."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return _holder(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _exclusive(path: Path) -> Iterator[int]:
    """Open the file so that no other process is in here; where the system cannot promise it, go on."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if fcntl is not None:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> Holder | None:
    """Return the holder that a lock file names; one cut short was never held."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    try:
        data: dict[str, Any] = json.loads(os.read(descriptor, 65_536))
        return Holder(
            Process.from_json(data["process"]), str(data["token"]), float(data["taken"]), os.fstat(descriptor).st_mtime
        )
    except (ValueError, KeyError, TypeError):
        return None


def _locked(path: Path, holder: Holder) -> RunLocked:
    process = holder.process
    mine = process == Process.current()
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder.taken))
    who = f"this process ({process.pid})" if mine else f"process {process.pid} on {process.host}"
    unseen = "" if process.lives() is not None else f", last sign of life {time.time() - holder.beat:.0f} s ago"
    way = (
        "Close the earlier run first (run.close())."
        if mine
        else "Wait for it to end, or stop it; a lock left by a dead process is taken over by itself."
    )
    return RunLocked(
        f"The run in {path.parent} is open for writing elsewhere: expected no other writer, found {who} "
        f"since {since}{unseen}.\nNothing was changed. {way}",
        path=path,
        pid=process.pid,
        host=process.host,
        this_process=mine,
    )


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another of the same name, None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _gone(path: Path, holder: Holder | None) -> RunGone:
    way = "Keep"
    if holder is not None:
        now = f"process {holder.process.pid} on {holder.process.host} has begun another run there"
    elif path.exists():
        now = "another run has begun there"
    else:
        now, way = "it is not there now", "Put it back as it was, and this run goes on writing; or keep"
    return RunGone(
        f"The folder of the run, {path.parent}, was deleted or moved while the run was open: {now}.\n"
        f"Nothing more is written; the training state and the history are whole in memory. {way} the model with "
        "model.save(), and train on without this run after run.close().",
        path=path.parent,
    )


def _lost(path: Path, holder: Holder | None) -> RunLocked:
    who = "nobody" if holder is None else f"process {holder.process.pid} on {holder.process.host}"
    return RunLocked(
        f"The run in {path.parent} was taken over while this process gave no sign of life: its lock now names {who}.\n"
        "Nothing more is written from here; the training state is whole in memory.",
        path=path,
        pid=None if holder is None else holder.process.pid,
        host=None if holder is None else holder.process.host,
        this_process=False,
    )
