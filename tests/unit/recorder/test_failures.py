"""A disk that is full or fails: said once, nothing lost, nothing half-written counted as done."""

from __future__ import annotations

import errno
import sqlite3

import numpy as np
import pytest

from keepfit.cli.verify import verify_folder
from keepfit.clock import Position
from keepfit.errors import RunReadOnly, StoreFailed, StoreFull
from keepfit.journal import FitRecord, Reader, Writer
from keepfit.store import Disk

CHANGES = ("write", "sync", "rename", "sync_directory", "mkdir")


class Failing(Disk):
    """Refuses one operation, the one whose turn it is, after half of it was done."""

    def __init__(self) -> None:
        self.turn: int | None = None
        self.number = errno.ENOSPC
        self.refused: list[str] = []

    def refuse(self, name: str) -> None:
        if self.turn is not None:
            self.turn -= 1
            if self.turn < 0:
                self.refused.append(name)
                self.turn = None
                raise OSError(self.number, "refused")

    def write(self, path, chunks):
        try:
            self.refuse("write")
        except OSError:
            path.write_bytes(bytes(chunks[0])[:5])
            raise
        super().write(path, chunks)

    def sync(self, descriptor, path):
        self.refuse("sync")

    def rename(self, source, target):
        self.refuse("rename")
        super().rename(source, target)

    def sync_directory(self, path):
        self.refuse("sync_directory")

    def mkdir(self, path):
        self.refuse("mkdir")
        super().mkdir(path)

    def unlink(self, path):
        self.refuse("unlink")
        super().unlink(path)


@pytest.fixture
def disk():
    """Return a disk that works until it is told to fail."""
    return Failing()


def test_full_disk_at_any_operation_loses_nothing(opened, life, disk):
    """Whatever operation of a waited checkpoint finds no space: StoreFull, the old state whole, the next succeeds."""
    recorder = opened(disk=disk, keep=1)
    live = life(recorder)
    live.start()
    live.fit(1)
    number, turn = 2, 0
    while turn == len(disk.refused):  # until there are fewer operations than that
        disk.turn = turn
        try:
            live.fit(number)
        except StoreFull:
            assert [item.fit for item in recorder.checkpoints][-1] == number - 1
            with Reader.open(recorder.directory) as reader:
                assert reader.checkpoints()[-1].fit == number - 1
            disk.turn = None
            live.fit(number)
        disk.turn = None
        recorder.flush()
        try:
            recorder.check()
        except StoreFull:
            assert disk.refused[-1] == "unlink"  # the checkpoint was done; what was not removed is tried again
        assert recorder.newest().fit == number
        assert verify_folder(recorder.directory).damages == ()
        assert list(recorder.fits) == list(range(1, number + 1))
        number, turn = number + 1, turn + 1
    assert {*CHANGES, "unlink"} <= {*disk.refused, "mkdir"}
    recorder.close()
    again = opened(keep=1)
    assert (list(again.fits), len(again.epochs)) == (list(range(1, number)), 2 * (number - 1))
    left = {item.name for item in (again.directory / "objects").iterdir()}
    assert left == {entry[0] for item in again.checkpoints for entry in item.manifest.values()}


def test_full_disk_behind_the_caller_is_said_once(opened, life, disk):
    """check() raises StoreFull once; the state waits in memory and is written when there is space."""
    recorder = opened(disk=disk)
    live = life(recorder)
    live.start()
    disk.turn = 0
    live.fit(1, wait=False, now=True)

    def wait_for_error():
        while True:
            recorder.check()

    with pytest.raises(StoreFull, match=r"(?s)No space is left .* tried again"):
        wait_for_error()
    recorder.check()
    recorder.flush()
    assert recorder.newest().fit == 1
    recorder.check()


def test_start_is_written_before_what_came_later(opened, life, disk):
    """The state before fit 1 is never given up: it is written before the next one."""
    recorder = opened(disk=disk)
    live = life(recorder)
    disk.turn = 0
    with pytest.raises(StoreFull):
        live.start()
    live.fit(1)
    assert [item.kind for item in recorder.checkpoints] == ["start", "end"]


@pytest.mark.parametrize(
    ("number", "error"),
    [(errno.ENOSPC, StoreFull), (errno.EDQUOT, StoreFull), (errno.EROFS, RunReadOnly), (errno.EIO, StoreFailed)],
)
def test_errors_of_the_system_have_names(opened, life, disk, number, error):
    """A full disk, a used-up quota, a disk that became read-only and a failing one are told apart."""
    recorder = opened(disk=disk)
    disk.turn, disk.number = 0, number
    with pytest.raises(error) as caught:
        life(recorder).start()
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.path == recorder.directory


def test_full_disk_under_the_journal_loses_no_row(opened, life):
    """SQLite without space is a StoreFull too; the rows wait and are written later."""
    recorder = opened()
    live = life(recorder)
    live.start()
    recorder.flush()
    connection = recorder._work._writer._connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    for number in range(200):
        recorder.event("notice", f"{number} " + "x" * 500)
    with pytest.raises(StoreFull):
        live.fit(1)
    with pytest.raises(StoreFull):
        recorder.flush()
    assert [item.fit for item in recorder.checkpoints] == [0]
    connection.execute("PRAGMA max_page_count = 1000000")
    live.fit(2)
    recorder.close()
    with Reader.open(recorder.directory) as reader:
        assert [item.fit for item in reader.checkpoints()] == [0, 1, 2]
        assert len(reader.events(kind="notice")) == 200
        assert [item.number for item in reader.fits()] == [1, 2]


@pytest.mark.parametrize("moment", ["begin", "commit"])
@pytest.mark.parametrize("which", [0, 1])
def test_failing_commit_leaves_the_old_state(opened, life, monkeypatch, moment, which):
    """An error at either transaction of a checkpoint, at its begin or commit, changes nothing."""
    from contextlib import contextmanager

    recorder = opened()
    live = life(recorder)
    live.start()
    transaction, turns = Writer.transaction, iter(range(100))

    @contextmanager
    def failing(writer, *, durable):
        error = sqlite3.OperationalError("disk I/O error")
        turn = next(turns)
        if turn == which and moment == "begin":
            raise error
        with transaction(writer, durable=durable):
            yield
            if turn == which:
                raise error

    monkeypatch.setattr(Writer, "transaction", failing)
    with pytest.raises(StoreFailed, match="disk I/O error"):
        live.fit(1)
    assert [item.fit for item in recorder.checkpoints] == [0]
    with Reader.open(recorder.directory) as reader:
        assert [item.fit for item in reader.checkpoints()] == [0]
    live.fit(2)
    assert [item.fit for item in recorder.checkpoints] == [0, 1, 2]
    assert verify_folder(recorder.directory).damages == ()


def test_memory_is_bounded_while_the_disk_is_full(opened, life, disk, monkeypatch):
    """However many states are given to a disk that refuses, two wait at most."""
    recorder = opened(disk=disk, share="each")
    live = life(recorder)
    live.start()

    def full(name):
        raise OSError(errno.ENOSPC, "refused")

    monkeypatch.setattr(disk, "refuse", full)
    for number in range(1, 20):
        live.fit(number, wait=False)
    with pytest.raises(StoreFull):
        recorder.flush()
    queue = recorder._background._requests
    assert len(queue.musts) + (queue.pending is not None) == 1
    monkeypatch.undo()
    recorder.flush()
    assert recorder.newest().fit == 19
    assert list(recorder.fits) == list(range(1, 20))


def test_close_lets_the_folder_go_when_the_disk_is_full(opened, life, disk, monkeypatch):
    """close() says what could not be written, and another process can open the run."""
    recorder = opened(disk=disk)
    live = life(recorder)
    live.start()
    live.fit(1)

    def full(name):
        raise OSError(errno.ENOSPC, "refused")

    monkeypatch.setattr(disk, "refuse", full)
    live.fit(2, wait=False)
    with pytest.raises(StoreFull):
        recorder.close()
    recorder.close()
    assert opened().newest().fit == 1


def test_row_that_can_never_be_written_does_not_hold_up_the_others(opened, life):
    """A fact that is not JSON-able is said by check, once; rows and checkpoints beside it are written."""
    recorder = opened()
    recorder.event("notice", "good")
    recorder.event("notice", "bad", what=object())
    life(recorder).fit(1)
    recorder.flush()
    with pytest.raises(TypeError, match="plain data"):
        recorder.check()
    recorder.check()
    recorder.close()
    with Reader.open(recorder.directory) as reader:
        assert [item.message for item in reader.events(kind="notice")] == ["good"]
        assert [item.number for item in reader.fits()] == [1]


def test_numbers_of_numpy_are_numbers_in_every_column(opened):
    """Counters that NumPy made are stored as numbers."""
    recorder = opened()
    recorder.put_fit(FitRecord(number=1, first_step=np.int64(7), learning_rate=np.float32(0.5)))
    recorder.checkpoint(
        kind="end", fit=1, position=Position(step=np.int64(7)), tensors={}, state={"n": np.float64(1)}, wait=True
    )
    recorder.close()
    again = opened()
    assert (again.fits[1].first_step, again.fits[1].learning_rate, again.newest().position.step) == (7, 0.5, 7)
