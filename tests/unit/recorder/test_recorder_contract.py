"""What every recorder promises."""

from __future__ import annotations

import numpy as np
import pytest

from keepfit.clock import Position
from keepfit.errors import StateNotKept
from keepfit.journal import EpochRecord, FitRecord
from keepfit.recorder import Recorder


@pytest.fixture(params=["disk", "memory"])
def kind(request):
    """Return the kind of recorder."""
    return request.param


@pytest.fixture
def recorder(openers, kind) -> Recorder:
    """Return an empty recorder."""
    return openers[kind]()


def test_recorder_is_fresh_until_something_is_recorded(recorder, life):
    """Only a run without fits and checkpoints is fresh."""
    assert recorder.fresh
    recorder.set_meta("seed", 1)
    recorder.event("notice", "hello")
    assert recorder.fresh
    life(recorder).start()
    assert not recorder.fresh


def test_recorder_gives_back_what_was_recorded(recorder):
    """Facts, fits, epochs and events are there at once."""
    fit = FitRecord(number=1, recipe={"epochs": 1})
    epoch = EpochRecord(fit=1, epoch=0, label=0, logs={"loss": 0.5})
    recorder.set_meta("seed", 42)
    recorder.put_fit(fit)
    recorder.put_epoch(epoch)
    recorder.event("notice", "hello", fit=1, epoch=1, step=2, more=[3])
    assert recorder.meta["seed"] == 42
    assert recorder.fits[1] == fit
    assert recorder.epochs == [epoch]
    event = recorder.events[-1]
    assert (event.kind, event.message, event.fit, event.epoch, event.step) == ("notice", "hello", 1, 1, 2)
    assert event.data == {"more": [3]}
    assert event.session > 0


def test_recorder_gives_states_back(recorder, life, state):
    """A checkpoint comes back with its tensors' bits, its JSON state and its place."""
    life(recorder).fit(1)
    checkpoint = recorder.newest()
    assert (checkpoint.kind, checkpoint.fit, checkpoint.position) == ("end", 1, Position(fit=1, epoch=2, step=2))
    found, small = recorder.load(checkpoint)
    assert small == {"label": 1}
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: array.tobytes() for name, array in state(1).items()
    }


def test_recorder_copies_the_state_when_it_is_given(recorder):
    """What happens to the JSON state after the call does not reach the checkpoint, nor what happens to a loaded one."""
    small = {"patience": [1], "pair": (1, 2)}
    recorder.checkpoint(kind="start", fit=0, position=Position(), tensors={"a": np.ones(2)}, state=small)
    small["patience"].append(2)
    for _ in range(2):
        _, found = recorder.load(recorder.newest())
        assert found == {"patience": [1], "pair": [1, 2]}
        found["patience"].append(3)


def test_newest_selects_by_fit_and_kind(recorder, life):
    """The newest of a fit or of some kinds is found, and None where there is none."""
    live = life(recorder)
    live.start()
    live.fit(1)
    live.begin(2)
    live.inside(2, wait=True)
    assert recorder.newest().fit == 2
    assert recorder.newest(kinds=("start", "end")).fit == 1
    assert recorder.newest(fit=1).kind == "end"
    assert recorder.end_of(1).fit == 1
    assert recorder.end_of(2) is None
    assert recorder.newest(fit=7) is None


@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_recorder_thins_out_states(openers, kind, life):
    """The start, the last ends, named ones and the best stay; what went raises StateNotKept."""
    recorder = openers[kind](keep=2)
    live = life(recorder)
    live.start()
    gone = None
    for number in range(1, 9):
        live.fit(number, name="head" if number == 2 else None, loss=0.1 if number == 4 else 1.0)
        gone = gone or (recorder.newest() if number == 3 else None)
    assert [item.fit for item in recorder.checkpoints] == [0, 2, 4, 7, 8]
    with pytest.raises(StateNotKept, match="fit 3"):
        recorder.load(gone)
    with pytest.raises(StateNotKept):
        recorder.pin(gone.id)


@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_pin_keeps_a_checkpoint(openers, kind, life):
    """A pinned state outlives retention."""
    recorder = openers[kind](keep=1)
    live = life(recorder)
    live.fit(1)
    recorder.pin(recorder.end_of(1).id)
    for number in range(2, 7):
        live.fit(number)
    assert recorder.end_of(1) is not None
    assert recorder.end_of(3) is None


def test_branch_closes_what_lies_after_a_fit(recorder, life):
    """Later fits leave the current branch, one of their states stays, and numbers can be used again."""
    live = life(recorder)
    live.start()
    for number in (1, 2, 3):
        live.fit(number)
    recorder.branch(after=1)
    assert list(recorder.fits) == [1]
    assert [(item.number, item.branch) for item in recorder.closed_fits] == [(2, 1), (3, 1)]
    assert [item.fit for item in recorder.epochs] == [1, 1]
    assert [item.fit for item in recorder.checkpoints] == [0, 1]
    assert recorder.events[-1].kind == "branch"
    live.fit(2)
    assert recorder.newest().fit == 2
    recorder.branch(after=1)
    assert [(item.number, item.branch) for item in recorder.closed_fits] == [(2, 1), (3, 1), (2, 2)]
    recorder.branch(after=5)
    assert len(recorder.closed_fits) == 3


def test_recorder_says_and_does_nothing_when_there_is_nothing(recorder):
    """Waiting for nothing returns, and closing twice is fine."""
    recorder.check()
    recorder.flush()
    assert recorder.newest() is None
    assert recorder.due() in (True, False)
    recorder.close()
    recorder.close()


@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_memory_does_not_grow_with_fits(openers, kind):
    """A fit adds less than a kilobyte once the run is warm, also when every recipe differs in its rate (P5)."""
    import tracemalloc

    recorder = openers[kind](keep=2)
    sizes = {}
    tracemalloc.start()
    try:
        for number in range(1, 501):
            recipe = {"learning_rate": 1 / number, "model": [{"name": f"dense_{i}", "units": i} for i in range(20)]}
            for status in ("open", "finished"):
                recorder.put_fit(FitRecord(number=number, recipe=recipe, status=status, plan={"backend": "jax"}))
            recorder.put_epoch(EpochRecord(fit=number, epoch=number - 1, label=number, logs={"loss": 1.0, "val": 2.0}))
            recorder.checkpoint(
                kind="end", fit=number, position=Position(fit=number), tensors={"a": np.ones(3)}, state={"n": number}
            )
            if number in (200, 500):
                recorder.flush()
                sizes[number] = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert (sizes[500] - sizes[200]) / 300 < 1000
