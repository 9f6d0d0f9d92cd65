from __future__ import annotations

import os
import shutil
import threading

import numpy as np
import pytest

from keepfit.clock import Position
from keepfit.errors import InvalidArgument, NotARun, RunClosed, RunGone, RunLocked, RunReadOnly
from keepfit.journal import FILE_NAME, EpochRecord, FitRecord, Reader
from keepfit.store import Disk

NEVER = 1e-9  # a share so small that no checkpoint fits the budget


def test_run_comes_back_in_another_recorder(opened, life, tmp_path):
    """Facts, fits, epochs, events and states outlive the process that recorded them."""
    recorder = opened()
    recorder.set_meta("seed", 42)
    live = life(recorder)
    live.start()
    live.fit(1)
    live.fit(2, name="head")
    recorder.event("notice", "hello", more=1)
    before = (dict(recorder.fits), list(recorder.epochs), recorder.checkpoints, dict(recorder.meta))
    recorder.close()
    again = opened()
    assert (dict(again.fits), list(again.epochs), again.checkpoints, dict(again.meta)) == before
    assert [event.kind for event in again.events] == ["opened", "notice", "closed", "opened"]
    assert not again.fresh
    assert sorted(item.name for item in (tmp_path / "run").iterdir() if not item.name.startswith(FILE_NAME)) == [
        "lock",
        "objects",
    ]


def test_closed_run_is_at_rest(opened, life, tmp_path):
    """After close one journal file, the objects and an empty lock are left."""
    recorder = opened()
    life(recorder).fit(1)
    recorder.close()
    assert sorted(item.name for item in (tmp_path / "run").iterdir()) == ["lock", "objects", FILE_NAME]
    assert (tmp_path / "run" / "lock").read_bytes() == b""
    with Reader.open(tmp_path / "run") as reader:
        assert [session.how for session in reader.sessions()] == ["closed"]


def test_ends_beyond_the_budget_wait_together(opened, life):
    """Beyond the budget the ends of the last few fits wait, and are written together, at the latest by flush."""
    recorder = opened(share=NEVER, keep=3)
    live = life(recorder)
    live.start()
    for number in (1, 2, 3, 4, 5):
        live.fit(number, wait=False)
    assert not recorder.due()
    recorder.flush()
    assert [item.fit for item in recorder.checkpoints] == [0, 3, 4, 5]


def test_waiting_ends_hold_a_bounded_number_of_bytes(opened, life, monkeypatch):
    """States that wait beside the newest one do not fill the memory."""
    monkeypatch.setattr("keepfit.recorder.requests._WAITING_BYTES", 1)
    recorder = opened(share=NEVER)
    live = life(recorder)
    live.start()
    for number in (1, 2, 3):
        live.fit(number, wait=False)
    recorder.flush()
    assert [item.fit for item in recorder.checkpoints] == [0, 3]


def test_pending_checkpoint_is_written_by_close(opened, life):
    """What could wait does not get lost."""
    recorder = opened(share=NEVER)
    life(recorder).fit(1, wait=False)
    recorder.close()
    assert opened().newest().fit == 1


def test_named_ends_are_never_replaced(opened, life):
    """The end of a named fit is written whatever the budget says."""
    recorder = opened(share=NEVER, keep=2)
    live = life(recorder)
    for number in (1, 2, 3, 4):
        live.fit(number, wait=False, name="head" if number == 1 else None)
    recorder.flush()
    assert [item.fit for item in recorder.checkpoints] == [1, 3, 4]


def test_each_writes_the_end_of_every_fit(opened, life):
    """With share="each" no fit shares its checkpoint."""
    recorder = opened(share="each")
    live = life(recorder)
    for number in range(1, 9):
        live.fit(number, wait=False)
    recorder.flush()
    assert [item.fit for item in recorder.checkpoints] == list(range(1, 9))


def test_state_that_must_be_found_is_written_first(opened, life):
    """Asking for the newest state or the end of a fit finds one that was still waiting."""
    recorder = opened(share=NEVER)
    life(recorder).fit(1, wait=False)
    assert recorder.end_of(1) is not None


class Stuck(Disk):
    """Stops at every file until it is let go, and notes which thread came."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.arrived = threading.Event()
        self.threads: set[str] = set()

    def write(self, path, chunks):
        self.threads.add(threading.current_thread().name)
        self.arrived.set()
        assert self.go.wait(60)
        super().write(path, chunks)


def test_recording_does_not_wait_for_the_disk(opened, life):
    """While the disk hangs, everything but wait, flush and close goes on; nothing is lost."""
    disk = Stuck()
    recorder = opened(disk=disk)
    live = life(recorder)
    live.start(wait=False)
    assert disk.arrived.wait(60)
    for number in range(1, 4):
        live.fit(number, wait=False, now=True)
        recorder.event("notice", "x")
        recorder.set_meta("k", number)
        assert not recorder.due()
        recorder.check()
    assert recorder.checkpoints == []
    disk.go.set()
    recorder.flush()
    assert [item.fit for item in recorder.checkpoints] == [0, 1, 2, 3]
    assert threading.current_thread().name not in disk.threads


def test_branch_closed_while_a_checkpoint_is_written_takes_it_along(opened, life):
    """A state on its way to the disk, and one that waits, end in the branch that was closed meanwhile."""
    disk = Stuck()
    recorder = opened(disk=disk, share=NEVER)
    live = life(recorder)
    disk.go.set()
    live.start()
    live.fit(1)
    disk.go.clear()
    disk.arrived.clear()
    live.fit(2, wait=False, now=True)
    assert disk.arrived.wait(60)
    live.fit(3, wait=False)
    recorder.branch(after=1)
    live.fit(2, wait=False)
    disk.go.set()
    recorder.flush()
    assert [item.fit for item in recorder.checkpoints] == [0, 1, 2]
    recorder.close()
    with Reader.open(recorder.directory) as reader:
        # Of the closed branch its newest end is kept.
        assert [(item.branch, item.fit) for item in reader.checkpoints(branch=None)] == [(0, 0), (0, 1), (1, 3), (0, 2)]
        assert [(item.branch, item.number) for item in reader.fits(branch=None)] == [(0, 1), (0, 2), (1, 2), (1, 3)]
    again = opened()
    assert [(item.number, item.branch) for item in again.closed_fits] == [(2, 1), (3, 1)]
    again.branch(after=1)
    assert [item.branch for item in again.closed_fits] == [1, 1, 2]


def test_rows_reach_the_disk_by_themselves(opened):
    """A reader sees new rows without a flush, a moment later."""
    recorder = opened()
    recorder.put_fit(FitRecord(number=1))
    with Reader.open(recorder.directory) as reader:
        while not reader.fits():
            pass


def test_many_threads_record_at_once(opened):
    """Calls from any thread are all recorded, in an order that each thread sees as its own."""
    recorder = opened()

    def record(thread: int) -> None:
        for number in range(50):
            recorder.event("notice", str(number), thread=thread)

    threads = [threading.Thread(target=record, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recorder.close()
    with Reader.open(recorder.directory) as reader:
        events = reader.events(kind="notice")
    for number in range(4):
        own = [int(item.message) for item in events if item.data["thread"] == number]
        assert own == list(range(50))


def test_folder_is_bounded_by_retention(opened, life, tmp_path):
    """Files of states that were let go are removed; those that are left are all needed (P5)."""
    recorder = opened(keep=2)
    live = life(recorder)
    live.start()
    counts = []
    for number in range(1, 21):
        live.fit(number)
        recorder.flush()
        counts.append(len(list((tmp_path / "run" / "objects").iterdir())))
    assert max(counts) == counts[-1] == 1 + 2 * len(recorder.checkpoints)
    with Reader.open(tmp_path / "run") as reader:
        used = {entry[0] for item in reader.checkpoints() for entry in item.manifest.values()}
    assert {item.name for item in (tmp_path / "run" / "objects").iterdir()} == used


def test_only_files_of_the_manifest_are_removed(opened, life, tmp_path):
    """What somebody else puts into the folder stays there."""
    recorder = opened(keep=1)
    live = life(recorder)
    live.fit(1)
    (tmp_path / "run" / "objects" / "notes.safetensors").write_text("mine")
    for number in range(2, 6):
        live.fit(number)
    recorder.close()
    opened().close()
    assert (tmp_path / "run" / "objects" / "notes.safetensors").read_text() == "mine"


def test_arrays_of_a_device_are_converted_behind_the_caller(opened):
    """Anything that NumPy can take is a tensor; it is taken in the background."""
    threads = []

    class Device:
        def __array__(self, dtype=None, copy=None):
            threads.append(threading.current_thread().name)
            return np.arange(3.0)

    recorder = opened()
    recorder.checkpoint(kind="start", fit=0, position=Position(), tensors={"a": Device()}, state={}, wait=True)
    assert threading.current_thread().name not in threads
    assert recorder.load(recorder.newest())[0]["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("bad", [{"tensors": {"a": "text"}, "state": {}}, {"tensors": {}, "state": {"a": {1, 2}}}])
def test_checkpoint_that_can_never_be_written_is_said_and_dropped(opened, life, bad):
    """Text for a tensor or a set in the state is a TypeError, at the call or at check, and later ones work."""
    recorder = opened()
    with pytest.raises(TypeError):
        recorder.checkpoint(kind="inside", fit=1, position=Position(), wait=True, **bad)
    recorder.checkpoint(kind="inside", fit=1, position=Position(), now=True, **bad)
    recorder.flush()
    with pytest.raises(TypeError):
        recorder.check()
    recorder.check()
    life(recorder).fit(1)
    assert recorder.newest().fit == 1


def test_second_writer_is_refused_and_told_who_writes(opened):
    """A run that is open cannot be opened for writing again; after close it can."""
    recorder = opened()
    with pytest.raises(RunLocked, match=f"this process \\({os.getpid()}\\)"):
        opened()
    recorder.close()
    opened()


def test_writer_that_lost_its_lock_stops_writing(opened, life):
    """When another process has taken over, nothing more is written, and that is said."""
    recorder = opened()
    live = life(recorder)
    live.start()
    (recorder.directory / "lock").write_text("")
    with pytest.raises(RunLocked, match="taken over"):
        live.fit(1)
    with pytest.raises(RunLocked):
        recorder.close()
    with Reader.open(recorder.directory) as reader:
        assert [item.fit for item in reader.checkpoints()] == [0]
        assert reader.fits() == []


def test_folder_that_is_deleted_under_a_run_is_said_and_nothing_in_memory_is_lost(opened, life):
    """The error says what happened, every time; the record stays readable, and no new folder appears."""
    recorder = opened()
    live = life(recorder)
    live.fit(1)
    shutil.rmtree(recorder.directory)
    for number in (2, 3):
        with pytest.raises(RunGone, match="was deleted or moved while the run was open: it is not there now"):
            live.fit(number)
    assert sorted(recorder.fits) == [1, 2, 3]
    with pytest.raises(RunGone):
        recorder.newest(fit=1)
    with pytest.raises(RunGone):
        recorder.close()
    assert not recorder.directory.exists()


def test_folder_that_is_moved_and_comes_back_goes_on(opened, life, tmp_path):
    """A disk that is away for a while damages nothing: what was asked meanwhile and what waited is written after it."""
    recorder = opened(share="each")
    live = life(recorder)
    live.fit(1)
    recorder.directory.rename(tmp_path / "elsewhere")
    recorder._verified.clear()
    with pytest.raises(RunGone):
        recorder.end_of(1)
    with pytest.raises(RunGone):
        recorder.load(recorder.checkpoints[-1])
    with pytest.raises(RunGone):
        live.fit(2)
    (tmp_path / "elsewhere").rename(recorder.directory)
    live.fit(3)
    recorder.close()
    with Reader.open(recorder.directory) as reader:
        assert [item.fit for item in reader.checkpoints() if item.kind == "end"] == [1, 2, 3]
        assert reader.events(kind="damage") == []


def test_folder_in_which_another_run_has_begun_is_left_to_it(opened, life):
    """Deleted and begun again, as by the same script in another terminal: nothing of this run is written there."""
    recorder = opened()
    life(recorder).fit(1)
    shutil.rmtree(recorder.directory)
    other = opened()
    with pytest.raises(RunGone, match=f"process {os.getpid()} on .* has begun another run there"):
        life(recorder).fit(2)
    with pytest.raises(RunGone):
        recorder.close()
    life(other).fit(1)
    with Reader.open(other.directory) as reader:
        assert sorted(record.number for record in reader.fits()) == [1]


def test_closed_recorder_records_nothing(opened, life):
    """After close recording raises; reading what was kept still works."""
    recorder = opened()
    live = life(recorder)
    live.fit(1)
    recorder.close()
    with pytest.raises(RunClosed):
        recorder.put_fit(FitRecord(number=2))
    with pytest.raises(RunClosed):
        recorder.event("notice", "x")
    with pytest.raises(RunClosed):
        live.inside(2)
    assert list(recorder.fits) == [1]
    assert recorder.load(recorder.newest())[1] == {"label": 1}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # other tests of this process may have used JAX
def test_forked_child_has_no_part_in_a_run(opened, life):
    """A child that was forked, such as a data worker, neither closes the run nor writes, nor hangs."""
    recorder = opened()
    live = life(recorder)
    live.start()
    child = os.fork()
    if child == 0:
        try:
            recorder.close()
            live.fit(1)  # waits for a thread that the child does not have
        except RunClosed:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    live.fit(1)
    assert recorder.newest().fit == 1


@pytest.mark.parametrize("names", [["photo.jpg"], ["objects/abc"], ["lock", "model.keras"]])
def test_folder_that_holds_something_else_is_refused(tmp_path, opened, names):
    """A folder with other things in it is not a run; nothing is put into it."""
    for name in names:
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).touch()
    before = sorted((tmp_path / "run").rglob("*"))
    with pytest.raises(NotARun, match="is not a run"):
        opened()
    assert sorted((tmp_path / "run").rglob("*")) == before


def test_file_is_refused_as_a_folder(tmp_path, opened):
    """A file is not a run."""
    (tmp_path / "run").touch()
    with pytest.raises(NotARun, match="it is a file"):
        opened()


def test_folder_may_be_empty_or_missing_with_its_parents(tmp_path, opened):
    """An empty folder, one with hidden files, and one that is to be made become runs."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".gitignore").touch()
    assert opened(tmp_path / "empty").fresh
    assert opened(tmp_path / "a" / "b" / "c").fresh


def test_folder_that_cannot_be_written_is_said(tmp_path, opened, monkeypatch):
    """A read-only place is a RunReadOnly before anything is made."""

    def refuse(disk, path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Disk, "mkdir", refuse)
    with pytest.raises(RunReadOnly, match="Permission denied"):
        opened()


@pytest.mark.parametrize("options", [{"keep": 0}, {"keep": True}, {"keep": 1.5}, {"share": 0}, {"share": "all"}])
def test_open_refuses_bad_options(tmp_path, opened, options):
    """A number of states below one or a share that is none is refused, and no folder is made."""
    with pytest.raises(InvalidArgument):
        opened(**options)
    assert not (tmp_path / "run").exists()


def test_thousand_small_fits_stay_small(opened, tmp_path):
    """The journal grows by a few hundred bytes a fit when recipes are equal (P5)."""
    recorder = opened(share=NEVER)
    recipe = {"layers": [{"name": f"dense_{i}", "units": i} for i in range(50)]}
    for number in range(1, 1001):
        recorder.put_fit(FitRecord(number=number, recipe=recipe, status="finished"))
        recorder.put_epoch(EpochRecord(fit=number, epoch=number - 1, label=number, logs={"loss": 1.0}))
    recorder.close()
    assert (tmp_path / "run" / FILE_NAME).stat().st_size < 600_000
