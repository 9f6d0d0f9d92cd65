"""Optimizer state survives freezing, unfreezing and a new ``compile()``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keepfit
from keepfit.errors import KeepfitWarning
from keepfit.state import variables_of
from tests.bits import differing, state_bits
from tests.models import regression_data


def two_layers(optimizer: Any = None) -> tuple[Any, Any, Any]:
    """Return a model of two dense layers, with its data."""
    keras.utils.set_random_seed(4)
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(5, name="body"), keras.layers.Dense(1, name="head")]
    )
    model.compile(optimizer or keras.optimizers.Adam(1e-2), "mse")
    return model, *regression_data()


def slots(model: Any) -> dict[str, Any]:
    """Return name -> value of the optimizer's variables."""
    return {n: np.asarray(v) for n, v in variables_of(model).values().items() if n.startswith("optimizer/")}


def test_freezing_without_compile_keeps_what_trains_and_moves_nothing_frozen() -> None:
    """A frozen layer does not move by a bit, the other one keeps its moments, the optimizer stays the same object."""
    model, x, y = two_layers()
    optimizer = model.optimizer
    with keepfit.Run(model) as run:
        run.fit(x, y, verbose=0)
        before, frozen = slots(model), [np.asarray(w) for w in model.get_layer("body").get_weights()]
        model.get_layer("body").trainable = False
        run.inventory.ready((x[:4], y[:4]))
        with pytest.warns(KeepfitWarning, match="Other layers train"):
            run.inventory.seat_optimizer()
        after = slots(model)
        with pytest.warns(KeepfitWarning, match="new phase"):
            run.fit(x, y, verbose=0)
        assert model.optimizer is optimizer
        kept = {name: value for name, value in after.items() if not name.endswith("/age")}
        assert kept.keys() == before.keys()
        assert all(np.array_equal(value, before[name]) for name, value in kept.items())
        served = {id(variable) for variable in model.optimizer.variables}
        assert not any("dense/kernel" in name for name, v in variables_of(model).items() if id(v) in served)
        assert all(np.array_equal(a, b) for a, b in zip(model.get_layer("body").get_weights(), frozen, strict=True))
        assert int(np.asarray(slots(model)["optimizer/iterations"])) == int(before["optimizer/iterations"]) + 3


@pytest.mark.filterwarnings("ignore::keepfit.errors.KeepfitWarning")
def test_unfreezing_without_compile_starts_the_returning_layer_fresh() -> None:
    """A layer that begins to train has zero moments; the others keep theirs."""
    model, x, y = two_layers()
    model.get_layer("body").trainable = False
    with keepfit.Run(model) as run:
        run.fit(x, y, verbose=0)
        kept = slots(model)
        model.get_layer("body").trainable = True
        run.inventory.ready((x[:4], y[:4]))
        run.inventory.seat_optimizer()
        now = slots(model)
        assert all(np.array_equal(now[name], value) for name, value in kept.items())
        assert any(name not in kept and not value.any() for name, value in now.items())
        assert run.fit(x, y, verbose=0).epoch == [1]


def test_compiling_again_keeps_the_state_and_takes_the_new_rate() -> None:
    """A newly compiled optimizer of the same class goes on with moments and iterations; its rate wins; that is said."""
    model, x, y = two_layers()
    with keepfit.Run(model) as run:
        run.fit(x, y, verbose=0)
        before = slots(model)
        model.compile(keras.optimizers.Adam(3e-3), "mse")
        with pytest.warns(KeepfitWarning, match="goes on with the state of the last one"):
            run.inventory.ready((x[:4], y[:4]))
        after = slots(model)
        assert {n: v.tobytes() for n, v in after.items() if "rate" not in n} == {
            n: v.tobytes() for n, v in before.items() if "rate" not in n
        }
        assert float(after["optimizer/learning_rate"]) == np.float32(3e-3)
        run.fit(x, y, verbose=0)
        assert run.recorder.fits[2].phase == "continues"


@pytest.mark.filterwarnings("ignore:Fit 2 is a new phase")
@pytest.mark.parametrize("how", ["fresh", "other class"])
def test_optimizer_begins_without_state(how: str) -> None:
    """``fresh=["optimizer"]`` and another class of optimizer begin without state, and that is said."""
    model, x, y = two_layers()
    with keepfit.Run(model) as run:
        run.fit(x, y, verbose=0)
        model.compile(keras.optimizers.Adam(1e-2) if how == "fresh" else keras.optimizers.SGD(1e-2), "mse")
        fresh = ["optimizer"] if how == "fresh" else []
        with pytest.warns(KeepfitWarning, match="begins without state"):
            run.fit(x, y, verbose=0, fresh=fresh)
        assert int(np.asarray(slots(model)["optimizer/iterations"])) == 3


@pytest.mark.parametrize("compiled", [False, True])
def test_fresh_says_when_it_comes_too_late(compiled: bool) -> None:
    """An optimizer that trained before, or that took the state over for a range test, does not begin fresh in silence.

    Only a newly compiled one can; the first fit has nothing to say.
    """
    model, x, y = two_layers()
    with keepfit.Run(model) as run:
        run.fit(x, y, verbose=0, fresh=["optimizer"])
        if compiled:
            model.compile(keras.optimizers.Adam(3e-3), "mse")
            with pytest.warns(KeepfitWarning, match="goes on with the state"):
                run.find_learning_rate(x, y, steps=10)
        with pytest.warns(KeepfitWarning, match=r'Fit 2: fresh=\["optimizer"\] changes nothing'):
            run.fit(x, y, verbose=0, fresh=["optimizer"])


@pytest.mark.filterwarnings("ignore:Fit 2 is a new phase")
@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("verb", ["evaluate", "test_on_batch", "forgetting"])
def test_what_only_measures_leaves_a_new_optimizer_to_the_fit(verb: str, fresh: bool) -> None:
    """How a newly compiled optimizer begins is said and done by the next fit, whatever was measured in between."""

    def ends(measured: str | None) -> Any:
        model, x, y = two_layers()
        with keepfit.Run(model, seed=2) as run:
            run.fit(x, y, validation_data=(x, y), verbose=0)
            model.compile(keras.optimizers.Adam(3e-3), "mse")
            said = len(run.recorder.events)
            if measured is not None:
                getattr(run, measured)(*() if measured == "forgetting" else (x, y))
            assert len(run.recorder.events) == said
            with pytest.warns(KeepfitWarning, match="begins without state" if fresh else "goes on with the state"):
                run.fit(x, y, validation_data=(x, y), verbose=0, fresh=["optimizer"] if fresh else [])
            return state_bits(model), [event.message for event in run.recorder.events], run.recorder.fits[2].phase

    assert ends(verb) == ends(None)


@pytest.mark.filterwarnings("ignore::keepfit.errors.KeepfitWarning")
@pytest.mark.parametrize("compile_again", [False, True])
def test_phases_replay_and_resume_with_every_bit(compile_again: bool, tmp_path: Path) -> None:
    """A script that freezes between fits is replayed, and extended, with the bits of one that ran through."""

    def script(directory: Path, fits: int) -> Any:
        model, x, y = two_layers()
        with keepfit.Run(model, directory) as run:
            for number in range(fits):
                model.get_layer("body").trainable = number % 2 == 0
                if compile_again:
                    model.compile(keras.optimizers.Adam(1e-2), "mse")
                run.fit(x, y, epochs=2, verbose=0)
            return state_bits(model)

    whole = script(tmp_path / "whole", 3)
    script(tmp_path / "cut", 2)
    assert differing(whole, script(tmp_path / "cut", 3)) == []
    assert differing(whole, script(tmp_path / "cut", 3)) == []
