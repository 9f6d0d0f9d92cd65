"""What a process finds when the one before it did not end in peace."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from keepfit.clock import Position
from keepfit.errors import DamagedObject
from keepfit.journal import FitRecord, Reader


@pytest.fixture
def killed(openers):
    """Return what copies a live run as a kill would leave it, and opens the copy."""

    def kill(recorder, **options):
        recorder.flush()
        copy = recorder.directory.with_name(recorder.directory.name + "-copy")
        shutil.copytree(recorder.directory, copy)
        (copy / "lock").write_text("")
        return openers["disk"](copy, **options)

    return kill


def flip(recorder, checkpoint, name="model/large"):
    """Flip a bit of a stored tensor."""
    path = recorder.directory / "objects" / checkpoint.manifest[name][0]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_rows_beyond_the_newest_checkpoint_are_to_be_done_again(opened, killed, life):
    """Fits and epochs that no checkpoint covers go, and an event says how many."""
    recorder = opened(share=1e-9)
    live = life(recorder)
    live.start()
    live.fit(1)
    live.begin(2)
    live.epoch(2, 2)
    live.begin(3)
    again = killed(recorder)
    assert list(again.fits) == [1]
    assert [item.epoch for item in again.epochs] == [0, 1]
    notice = next(item for item in again.events if item.kind == "notice")
    assert notice.data == {"epochs": 1, "fits": 2}
    assert (notice.fit, notice.epoch) == (1, 2)
    with Reader.open(again.directory) as reader:
        assert [item.number for item in reader.fits()] == [1]


def test_session_that_died_is_told_with_its_place(opened, killed, life):
    """The next process says that the one before ended without closing, and how far it had come."""
    recorder = opened()
    live = life(recorder)
    live.start()
    live.fit(1)
    live.begin(2)
    live.epoch(2, 2)
    again = killed(recorder)
    died = next(item for item in again.events if item.kind == "died")
    assert (died.fit, died.epoch) == (2, 3)
    with Reader.open(again.directory) as reader:
        assert [item.how for item in reader.sessions()] == ["died", "open"]
    again.close()
    assert [item.session for item in killed(again).events if item.kind == "died"] == [2]


def test_fit_of_a_checkpoint_inside_it_is_open_as_of_the_checkpoint(opened, killed, life):
    """A fit that ended after its newest checkpoint is open again, with the epochs that the checkpoint covers."""
    recorder = opened()
    live = life(recorder)
    live.start()
    live.begin(1, detail={"mood": "then"})
    live.epoch(1, 0)
    live.inside(1, wait=True)
    live.epoch(1, 1)
    recorder.put_fit(
        FitRecord(number=1, status="stopped", epochs_done=2, ended=9.0, stop_training=True, detail={"mood": "later"})
    )
    record = killed(recorder).fits[1]
    assert (record.status, record.epochs_done, record.ended, record.stop_training) == ("open", 1, None, False)
    assert record.detail == {"mood": "then"}


@pytest.mark.parametrize("first", ["row", "checkpoint"])
def test_fit_of_a_checkpoint_at_its_end_is_as_recorded(opened, killed, life, first):
    """A fit whose end is kept is finished, whether its last word came before the checkpoint or just behind it."""
    recorder = opened()
    live = life(recorder)
    live.begin(1)
    live.epoch(1, 0)
    word = FitRecord(number=1, status="finished", epochs_done=1)
    if first == "row":
        recorder.put_fit(word)
    live.checkpoint("end", 1, Position(fit=1, epoch=1), 1, wait=True)
    if first == "checkpoint":
        recorder.put_fit(word)
    assert killed(recorder).fits[1] == word


def test_fit_that_went_on_after_its_end_is_as_of_its_end(opened, killed, life):
    """A fit that was asked for more epochs, and killed, is back at the length it had reached."""
    recorder = opened()
    live = life(recorder)
    live.fit(1)
    live.begin(1, epochs=5)
    live.epoch(1, 2)
    record = killed(recorder).fits[1]
    assert (record.status, record.epochs_planned, record.epochs_done) == ("finished", 2, 2)


def test_without_a_checkpoint_nothing_has_happened(opened, killed, life):
    """A process killed before its first checkpoint leaves a fresh run, with what it noted about it."""
    recorder = opened()
    recorder.set_meta("seed", 42)
    live = life(recorder)
    live.begin(1)
    live.epoch(1, 0)
    again = killed(recorder)
    assert again.fresh
    assert again.meta == {"seed": 42}
    assert len(again.epochs) == 0


def test_closed_branches_survive_a_kill(opened, killed, life):
    """Trimming is for the current branch; closed ones keep their fits and their state."""
    recorder = opened()
    live = life(recorder)
    live.start()
    for number in (1, 2, 3):
        live.fit(number)
    recorder.branch(after=1)
    live.begin(2)
    again = killed(recorder)
    assert [(item.number, item.branch) for item in again.closed_fits] == [(2, 1), (3, 1)]
    assert list(again.fits) == [1]


def test_leftovers_of_a_crash_are_removed(opened, killed, life):
    """Files that were announced or written and belong to no checkpoint are gone after opening."""
    recorder = opened()
    live = life(recorder)
    live.start()
    objects = recorder.directory / "objects"
    known = {item.name for item in objects.iterdir()}
    with recorder._work._writer.transaction(durable=True):
        recorder._work._writer.add_pending({"a.safetensors": 1, "b.safetensors": 1})
    (objects / "a.safetensors.part").touch()
    (objects / "b.safetensors").touch()
    again = killed(recorder)
    assert {item.name for item in (again.directory / "objects").iterdir()} == known
    with Reader.open(again.directory) as reader:
        assert set(reader.files()) == known


def test_damaged_newest_checkpoint_gives_way_to_the_one_before(opened, killed, life):
    """On opening, a flipped bit in the newest state is reported, and the record goes back to the one before."""
    recorder = opened()
    live = life(recorder)
    live.start()
    live.fit(1)
    live.fit(2)
    flip(recorder, recorder.newest())
    with pytest.warns(UserWarning, match=r"Checkpoint 3 \(fit 2, epoch 4, step 4\) is damaged"):
        again = killed(recorder)
    assert list(again.fits) == [1]
    assert again.newest().fit == 1
    damage = next(item for item in again.events if item.kind == "damage")
    assert (damage.fit, damage.data) == (2, {"checkpoint": 3})
    assert killed(again).newest().fit == 1  # and says it once


def test_damage_in_a_shared_object_is_healed_by_the_next_checkpoint(opened, killed, life):
    """A frozen tensor that rotted is written again, not referred to."""
    recorder = opened()
    live = life(recorder)
    live.start()
    small = {"only": np.ones(2)}
    recorder.checkpoint(kind="inside", fit=1, position=Position(), tensors=small, state={}, wait=True)
    flip(recorder, recorder.checkpoints[0], "model/frozen")
    again = killed(recorder)
    life(again).fit(1)
    assert again.newest().fit == 1
    assert again.load(again.newest())


def test_run_without_any_readable_checkpoint_is_left_alone(opened, killed, life):
    """Where all states are damaged, opening raises instead of beginning anew, and changes nothing."""
    recorder = opened()
    live = life(recorder)
    live.start()
    live.fit(1)
    flip(recorder, recorder.checkpoints[0])
    flip(recorder, recorder.checkpoints[1])
    with pytest.raises(DamagedObject, match="No checkpoint of the run"):
        killed(recorder)
    with Reader.open(recorder.directory.with_name("run-copy")) as reader:
        assert [item.number for item in reader.fits()] == [1]


def test_damage_found_while_the_run_is_open_is_reported(opened, life):
    """newest() passes over a damaged state with an event and a warning, load() raises and does so too."""
    recorder = opened()
    live = life(recorder)
    live.start()
    for number in (1, 2, 3):
        live.fit(number)
    flip(recorder, recorder.end_of(3))
    with pytest.warns(UserWarning, match="fit 3"):
        assert recorder.newest().fit == 2
    damaged = recorder.newest()
    flip(recorder, damaged)
    with pytest.raises(DamagedObject, match="model/large"):
        recorder.load(damaged)
    assert recorder.newest().fit == 1
    assert [item.data["checkpoint"] for item in recorder.events if item.kind == "damage"] == [4, 3]
    live.fit(4)
    assert recorder.newest().fit == 4
