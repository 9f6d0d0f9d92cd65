"""The range test: a rate is found on a state that is put back, and found again by the same script."""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keepfit
from keepfit import schedules
from keepfit.errors import InvalidArgument, KeepfitWarning, StateNotKept
from keepfit.range_test import RangeTest
from tests.behaviour.processes import copied
from tests.models import MODELS, make
from tests.unchanged import Batches, batches, begun, facts_of, refuse, unchanged

pytestmark = pytest.mark.filterwarnings("ignore::keepfit.errors.KeepfitWarning")
SHORT: dict[str, Any] = {"batch_size": 10, "steps": 12, "lowest": 1e-4}


@pytest.mark.parametrize("name", MODELS)
def test_a_range_test_leaves_no_trace(name: str) -> None:
    """Weights, slots, metrics, generators, rates and rows are as before, to the bit; and it did train."""
    model, x, y = make(name)
    with keepfit.Run(model) as run:
        run.fit(x, y, batch_size=10, verbose=0)
        before = facts_of(run)
        with unchanged(run):
            found = run.find_learning_rate(x, y, **SHORT)
        assert before == facts_of(run)
        assert len(set(found.losses)) > 5
        assert len(found.rates) == len(found.losses)


@pytest.mark.parametrize("what", ["weights", "generators", "rate"])
def test_a_range_test_that_did_not_put_back_would_show(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the test above."""
    run, x, y = begun(None)
    with run:
        if what == "weights":
            monkeypatch.setattr("keepfit.state.Variables.assign", lambda *given, **how: [])
        elif what == "generators":
            monkeypatch.setattr("keepfit.range_test._loss", lambda logs: random.random())
            monkeypatch.setattr("keepfit.standing.randomness.restore", lambda state: None)
        else:
            run.fit(x, y, batch_size=10, verbose=0, learning_rate=schedules.Cosine(0.01))
            monkeypatch.setattr("keepfit.range_test.Asked.take_back", lambda asked: None)
        before = facts_of(run)
        run.find_learning_rate(x, y, **SHORT)
        assert before != facts_of(run)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("kind", ["arrays", "data set"])
def test_training_goes_on_as_without_a_range_test(kind: str) -> None:
    """What follows ends with the bits of a run that never did one, dropout and the order of samples included."""
    from tests.bits import differing, state_bits

    def trained(*, tested: bool) -> Any:
        run, x, y = begun(None)
        data = (x, y) if kind == "arrays" else (Batches(x, y),)
        size = {"batch_size": 10} if kind == "arrays" else {}
        with run:
            run.fit(*data, steps_per_epoch=3, verbose=0, **size)
            if tested:
                run.find_learning_rate(*data, steps=12, **size)
            run.fit(*data, steps_per_epoch=3, epochs=2, verbose=0, **size)
            return state_bits(run.model), [fit.phase for fit in run.history]

    one, other = trained(tested=False), trained(tested=True)
    assert differing(one[0], other[0]) == []
    assert one[1] == other[1]


def test_a_range_test_before_the_first_fit_and_on_part_of_the_layers() -> None:
    """A schedule, layers that are frozen, and an unbuilt model are as they were after it."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.layers.Dense(5, name="body"), keras.layers.Dense(1, name="head")])
    schedule = schedules.Cosine(0.01)
    model.compile(keras.optimizers.Adam(schedule), "mse")
    _, x, y = make("plain_dense")
    with keepfit.Run(model) as run:
        assert len(run.find_learning_rate(x, y, **SHORT).losses) > 1
        assert run.model.optimizer._learning_rate is schedule
        run.fit(x, y, batch_size=10, verbose=0)
        with unchanged(run):
            whole = run.find_learning_rate(x, y, **SHORT)
            head = run.find_learning_rate(x, y, train="head", **SHORT)
        assert whole.losses[0] == head.losses[0]
        assert whole.losses[-1] != head.losses[-1]
        assert [layer.trainable for layer in model.layers] == [True, True]
        run.fit(x, y, batch_size=10, verbose=0, train="head")
        with unchanged(run):
            run.find_learning_rate(x, y, train="all", **SHORT)
        assert [layer.trainable for layer in model.layers] == [False, True]


def test_a_range_test_of_a_head_that_never_trained_leaves_it_fresh() -> None:
    """Nor does it say anything: the optimizer serves what it served, and has nothing of the head."""
    model, x, y = make("plain_dense")
    with keepfit.Run(model) as run:
        run.fit(x, y, batch_size=10, verbose=0)
        model.pop()
        model.add(keras.layers.Dense(1, name="head"))
        run.inventory.ready((x[:10], y[:10]))
        with unchanged(run), warnings.catch_warnings():
            warnings.simplefilter("error", KeepfitWarning)
            assert len(set(run.find_learning_rate(x, y, train="head", **SHORT).losses)) > 5
        run.fit(x, y, batch_size=10, steps_per_epoch=1, verbose=0, train="head")
        born = [value for name, value in run.engine.variables.values().items() if name.endswith("/born")]
        assert [int(np.asarray(value)) for value in born] == [7, 7]


def test_a_script_that_is_run_again_gets_the_same_rate(tmp_path: Path) -> None:
    """Also where the state it was found on is not kept any more; the numbers of fits do not shift."""

    def script(directory: Path, fits: int = 5) -> list[Any]:
        model, x, y = make("dropout_batch_norm")
        found = []
        with keepfit.Run(model, directory, keep=2, checkpoint_share="each") as run:
            for _ in range(fits):
                run.fit(x, y, batch_size=10, verbose=0)
                test = run.find_learning_rate(x, y, **SHORT)
                found.append((test.rates, test.losses, test.suggestion))
            assert len(run.history) == fits
        return found

    first = script(tmp_path / "run")
    assert script(tmp_path / "run") == first
    assert script(tmp_path / "whole", 3) == first[:3]
    model, x, y = make("dropout_batch_norm")
    with keepfit.Run(model, copied(tmp_path / "run", tmp_path / "other"), keep=2) as run:
        run.fit(x, y, batch_size=10, verbose=0)
        with pytest.raises(StateNotKept, match="find_learning_rate"):
            run.find_learning_rate(x, y, batch_size=10, steps=13)


def test_other_weights_are_asked_anew(tmp_path: Path) -> None:
    """An answer that was recorded is not given for weights that were set by hand since."""
    model, x, y = make("plain_dense")
    with keepfit.Run(model, tmp_path / "run", checkpoint_share="each") as run:
        run.fit(x, y, batch_size=10, verbose=0)
        first = run.find_learning_rate(x, y, **SHORT).losses
        model.set_weights([weight * 1.5 for weight in model.get_weights()])
        assert run.find_learning_rate(x, y, **SHORT).losses[0] != first[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"lowest": 0.0}, "lowest=0.0"),
        ({"highest": float("inf")}, "highest=inf"),
        ({"lowest": 1.0, "highest": 0.1}, "less than highest"),
        ({"steps": 3}, "a whole number, 10 or more"),
        ({"steps": True}, "steps=True"),
        ({"train": "nothing"}, "means no layer"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_what_no_range_test_can_be_asked_is_refused(arguments: dict[str, Any], words: str) -> None:
    """A clear error, with everything as it was."""
    run, x, y = begun(None)
    with run:
        refuse(run, lambda: run.find_learning_rate(x, y, **arguments), InvalidArgument, words)


def test_streams_are_refused() -> None:
    """What is taken from them cannot be put back."""
    run, x, y = begun(None)
    with run:
        refuse(run, lambda: run.find_learning_rate(batches(x, y)), InvalidArgument, "read without a trace")


def test_the_suggestion_lies_in_the_middle_of_the_longest_fall() -> None:
    """Half way down a valley; none where the loss only rises."""
    rates = tuple(float(rate) for rate in np.geomspace(1e-5, 1.0, 11))
    falling = RangeTest(rates, (5.0, 5.0, 5.0, 4.0, 3.0, 2.0, 1.0, 30.0, 60.0, 90.0, 99.0))
    assert falling.suggestion in rates[3:6]
    assert RangeTest(rates, tuple(map(float, range(11)))).suggestion is None
    assert RangeTest((), ()).suggestion is None


def test_a_range_test_is_drawn(tmp_path: Path) -> None:
    """A picture with the suggestion in it."""
    run, x, y = begun(None)
    with run:
        found = run.find_learning_rate(x, y, batch_size=10)
    figure = found.plot(tmp_path / "rates.png")
    assert (tmp_path / "rates.png").stat().st_size > 10_000
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert found.suggestion is None or any("suggestion" in label for label in labels)
