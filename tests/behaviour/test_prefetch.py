"""Data that is loaded while the fit before it trains is the same data, and never more of it than one part ahead."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keepfit
from keepfit.ahead import Loads
from keepfit.errors import InvalidArgument, RunClosed
from tests.behaviour.processes import Interrupt, attach_quietly, attached, built
from tests.bits import differing, joined_history, state_bits
from tests.models import make, regression_data
from tests.unchanged import unchanged

SHORT: dict[str, Any] = {"batch_size": 16, "verbose": 0}
BORDERS = [0, 20, 45, 70]
PARTS = range(3)
PATIENCE_S = 60.0  # of a test that would hang; nothing is measured


def part(number: int) -> tuple[Any, Any]:
    """Return a part of the data of most models of the list."""
    x, y = regression_data()
    rows = slice(BORDERS[number], BORDERS[number + 1])
    return x[rows].copy(), y[rows].copy()


def in_turn(model: Any, **options: Any) -> list[Any]:
    """Fit on part after part, each given as arrays."""
    return [model.fit(*part(number), **SHORT, **options) for number in PARTS]


def ahead_in_turn(model: Any, load: Callable[[int], Any] = part, **options: Any) -> list[Any]:
    """Fit on part after part, each loaded while the one before trains."""
    histories, ahead = [], model.run.prefetch(load, 0)
    for following in [*PARTS[1:], None]:
        now, ahead = ahead, None if following is None else model.run.prefetch(load, following)
        histories.append(model.fit(now, **SHORT, **options))
    return histories


def test_prefetched_parts_train_to_the_bits_of_arrays() -> None:
    """Weights, optimizer, metrics and histories are those of the same arrays given directly."""
    ends = []
    for loop in (in_turn, ahead_in_turn):
        model = keepfit.attach(make("dropout_batch_norm")[0], seed=4)
        histories = loop(model, epochs=2)
        ends.append((state_bits(model), joined_history(histories), model.run.position))
        model.run.close()
    assert differing(ends[0][0], ends[1][0]) == []
    assert ends[0][1:] == ends[1][1:]


@pytest.mark.parametrize(("first", "second"), [(in_turn, ahead_in_turn), (ahead_in_turn, in_turn)])
def test_a_script_may_be_changed_from_one_form_to_the_other(first: Any, second: Any, tmp_path: Path) -> None:
    """The recipe is the same: what was trained with arrays is replayed with prefetched parts, and the reverse."""
    model, _, _ = attached(tmp_path)
    before = joined_history(first(model))
    bits = state_bits(model)
    model.run.close()
    model, _, _ = attached(tmp_path)
    assert joined_history(second(model)) == before
    assert differing(bits, state_bits(model)) == []
    assert [fit.epochs for fit in model.run.history] == [1, 1, 1]


def test_a_loop_that_was_cut_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """Ctrl-C amid the second part, then the same script in another process: the end is that of the whole loop."""
    whole = keepfit.attach(make("plain_dense")[0], tmp_path / "whole", seed=3)
    ahead_in_turn(whole, epochs=2, callbacks=[Interrupt(2, armed=False)])
    bits = state_bits(whole)
    whole.run.close()
    model = keepfit.attach(make("plain_dense")[0], tmp_path / "cut", seed=3)
    with pytest.raises(KeyboardInterrupt):
        ahead_in_turn(model, epochs=2, callbacks=[Interrupt(2)])
    model.run.close()
    model = attach_quietly(built()[0], tmp_path / "cut", seed=3)
    ahead_in_turn(model, epochs=2, callbacks=[Interrupt(2, armed=False)])
    assert differing(bits, state_bits(model)) == []


def test_the_next_part_loads_while_a_fit_trains() -> None:
    """A fit whose callback waits for the next part to be loaded ends: loading does not wait for the fit."""
    model = keepfit.attach(make("plain_dense")[0])
    loaded = [threading.Event() for _ in PARTS]

    class Wait(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            assert epoch == 2 or loaded[epoch + 1].wait(PATIENCE_S)

    def load(number: int) -> Any:
        found = part(number)
        loaded[number].set()
        return found

    ahead_in_turn(model, load, callbacks=[Wait()])


def test_one_part_is_in_memory_beside_the_one_that_trains() -> None:
    """When a part begins to load, one other at most is still held by anybody."""
    model = keepfit.attach(make("plain_dense")[0])
    living: list[Any] = []
    others = []

    def load(number: int) -> Any:
        gc.collect()
        others.append(sum(each() is not None for each in living))
        x, y = part(number % 3)
        living.append(weakref.ref(x))
        return x, y

    ahead = model.run.prefetch(load, 0)
    for following in range(1, 7):
        now, ahead = ahead, model.run.prefetch(load, following)
        model.fit(now, **SHORT)
    del now
    model.fit(ahead, **SHORT)
    assert others[0] == 0
    assert max(others) <= 1
    assert len(others) == 7


def test_loads_wait_for_the_one_before_to_be_taken() -> None:
    """Of many that are asked for at once, one is loaded; the next when that was taken, or given up."""
    begun: list[int] = []
    loads = Loads()
    handles: list[Any] = [loads.begin(begun.append, (number,), {}) for number in range(5)]
    handles[0]._load.done.wait(PATIENCE_S)
    assert [handle._load.is_begun for handle in handles] == [True, False, False, False, False]
    assert handles[0].result() is None
    assert [handle._load.is_begun for handle in handles] == [True, True, False, False, False]
    handles[1] = None  # nobody will take it
    gc.collect()
    handles[2]._load.done.wait(PATIENCE_S)
    assert begun == [0, 1, 2]
    assert handles[4].result() is None  # out of turn: it is called at once
    assert handles[0].result() is None  # again: what it returned is still there
    assert begun == [0, 1, 2, 4]
    loads.close()


@pytest.mark.filterwarnings("ignore:Fit . is a new phase", "ignore:Other layers train than before")
@pytest.mark.parametrize("verb", ["evaluate", "predict", "validation_data", "find_learning_rate", "fine_tune"])
def test_prefetched_data_is_data_wherever_it_is_given(verb: str) -> None:
    """It may be used again and again: to train, to evaluate, to predict, to validate, for a range test."""
    x, y = part(0)
    answers = []
    for given in ("arrays", "ahead"):
        model = make("plain_dense")[0]
        with keepfit.Run(model, seed=2) as run:
            ahead = run.prefetch(part, 0)
            data = (ahead,) if given == "ahead" else (x, y)
            run.fit(*data, **SHORT)
            if verb == "predict":
                answers.append(run.predict(data[0], verbose=0).tolist())
            elif verb == "validation_data":
                held = data if given == "arrays" else ahead
                answers.append(run.fit(*part(1), validation_data=held, **SHORT).history)
            elif verb == "find_learning_rate":
                answers.append(run.find_learning_rate(*data, steps=20).losses)
            elif verb == "fine_tune":
                answers.append(run.fine_tune(*data, epochs=1, backbone=model.layers[0], verbose=0).whole.history)
            else:
                answers.append(run.evaluate(*data, verbose=0))
    assert answers[0] == answers[1]


def test_arrays_may_be_given_in_its_place() -> None:
    """``prefetch(x, y)`` is what a function that returns them gives; so is data with targets beside it."""
    x, y = part(0)
    ends = []
    for give in (
        lambda run: (run.prefetch(x, y),),
        lambda run: (run.prefetch(lambda: (x, y)),),
        lambda run: (run.prefetch(lambda: x), y),
    ):
        model = make("plain_dense")[0]
        with keepfit.Run(model, seed=2) as run:
            run.fit(*give(run), **SHORT)
        ends.append(state_bits(model))
    assert differing(ends[0], ends[1]) == []
    assert differing(ends[0], ends[2]) == []


# What goes wrong


@pytest.mark.parametrize("durable", [False, True])
def test_what_loading_raises_is_raised_in_fit(durable: bool, tmp_path: Path) -> None:
    """The error keeps its type and says which call it was; nothing was changed, and a repaired part is loaded anew."""
    missing = [True]

    def load(number: int, *, folder: str) -> Any:
        if number == 1 and missing[0]:
            raise FileNotFoundError(f"{folder}/part-1.npz")
        return part(number)

    with keepfit.Run(make("plain_dense")[0], tmp_path / "run" if durable else None, seed=3) as run:
        first, second = (run.prefetch(load, number, folder="data") for number in (0, 1))
        run.fit(first, **SHORT)
        with unchanged(run), pytest.raises(FileNotFoundError, match=r"data/part-1\.npz") as caught:
            run.fit(second, **SHORT)
        assert caught.value.__notes__ == [
            "in load(1, folder='data'), called by run.prefetch. Nothing was changed: the function is called again "
            "when this data is used again, in this process or in another."
        ]
        missing[0] = False
        run.fit(second, **SHORT)
        bits = state_bits(run.model)
    with keepfit.Run(make("plain_dense")[0], seed=3) as run:
        for number in (0, 1):
            run.fit(*part(number), **SHORT)
        assert differing(bits, state_bits(run.model)) == []


@pytest.mark.parametrize(
    ("result", "beside", "words"),
    [
        (None, {}, "gave None: expected x, "),
        ((1, 2, 3, 4), {}, "gave a tuple of 4: expected x, "),
        (part(0), {"y": part(0)[1]}, "gave a tuple of 2, and y= was given beside it"),
        (part(0), {"sample_weight": np.ones(20)}, "gave a tuple of 2, and sample_weight= was given beside it"),
    ],
)
def test_what_fit_does_not_take_is_refused(result: Any, beside: dict[str, Any], words: str) -> None:
    """A function that returns something else, and targets given twice, are named before anything changes."""
    with keepfit.Run(make("plain_dense")[0]) as run:
        run.fit(*part(0), **SHORT)
        ahead = run.prefetch(lambda: result)
        with unchanged(run), pytest.raises(InvalidArgument, match=words) as caught:
            run.fit(ahead, **beside, **SHORT)
        assert "Nothing was changed." in str(caught.value)


def test_prefetch_refuses_what_is_no_load() -> None:
    """Arrays with more beside them than targets and weights; a run that is closed."""
    x, y = part(0)
    run = keepfit.Run(make("plain_dense")[0])
    for call in (lambda: run.prefetch(x, y, y, y), lambda: run.prefetch(x, y=y)):
        with pytest.raises(InvalidArgument, match="takes a function and its arguments, or x, y and sample_weight"):
            call()
    ahead = run.prefetch(part, 0)
    run.close()
    with pytest.raises(RunClosed):
        run.prefetch(part, 0)
    assert len(ahead.result()[0]) == 20


def test_closing_does_not_wait_for_a_load() -> None:
    """A load that hangs holds up neither close() nor what is loaded after it in another run."""
    hanging, go = threading.Event(), threading.Event()

    def hang() -> None:
        hanging.set()
        go.wait(PATIENCE_S)

    run = keepfit.Run(make("plain_dense")[0])
    ahead, waiting = run.prefetch(hang), run.prefetch(part, 0)
    hanging.wait(PATIENCE_S)
    run.close()
    assert len(waiting.result()[0]) == 20
    assert not ahead._load.done.is_set()
    go.set()


@pytest.mark.skipif(os.name == "nt", reason="signals of another kind")
@pytest.mark.usefixtures("_heard_ctrl_c")
def test_ctrl_c_is_heard_while_a_fit_waits_for_its_data() -> None:
    """KeyboardInterrupt comes at once, before anything changes; the data can be used once it is there."""
    go = threading.Event()
    held: list[Any] = []

    def slow() -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        go.wait(PATIENCE_S)
        return part(0)

    with keepfit.Run(make("plain_dense")[0]) as run:
        run.fit(*part(0), **SHORT)
        with unchanged(run), pytest.raises(KeyboardInterrupt):
            held.append(run.prefetch(slow)) or run.fit(held[0], **SHORT)
        go.set()
        assert run.fit(held[0], **SHORT).epoch == [1]


_SCRIPT = """
import keepfit, keras, threading
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
model = keepfit.attach(model)
begun = threading.Event()
ahead = model.run.prefetch(lambda: (begun.set(), threading.Event().wait()))
begun.wait()
print("ends")
"""


@pytest.mark.slow
def test_a_process_ends_while_a_load_hangs() -> None:
    """The end of a script waits for no load."""
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _SCRIPT], capture_output=True, text=True, timeout=300, check=True
    )
    assert found.stdout.strip() == "ends"
