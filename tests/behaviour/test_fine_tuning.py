"""fine_tune: two fits of the run, replayed and resumed like any others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keepfit
from keepfit.errors import InvalidArgument, RecipeChanged
from tests.behaviour.processes import Interrupt
from tests.behaviour.test_phases import RATE, nested, own_weights
from tests.bits import differing, state_bits
from tests.unchanged import refuse

pytestmark = pytest.mark.filterwarnings("ignore::keepfit.errors.KeepfitWarning")


def flat() -> tuple[Any, Any, Any]:
    """Return a model without a model in it, and its data."""
    keras.utils.set_random_seed(4)
    layers = keras.layers
    model = keras.Sequential([keras.Input((6,)), layers.Dense(5, name="one"), layers.Dense(4, name="two")])
    model.add(layers.Dense(1, name="head"))
    model.compile(keras.optimizers.Adam(RATE), "mse")
    return model, *nested()[1:]


@pytest.mark.parametrize(
    ("make", "backbone", "head"),
    [
        (nested, None, ["head"]),
        (nested, "backbone/block1", ["backbone/block2/dense", "backbone/block2/norm", "head"]),
        (flat, None, ["head"]),
        (flat, "one", ["two", "head"]),
    ],
)
def test_the_head_trains_first_and_then_everything(make: Any, backbone: Any, head: list[str]) -> None:
    """Two named fits: what is frozen does not move by a bit in the first, and every layer moves in the second."""
    model, x, y = make()
    moved: list[list[str]] = []

    class Watch(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            self.before = own_weights(self.model)

        def on_train_end(self, logs: Any = None) -> None:
            moved.append([path for path, weights in own_weights(self.model).items() if weights != self.before[path]])

    with keepfit.Run(model) as run:
        found = run.fine_tune(
            x, y, epochs=2, frozen_epochs=3, backbone=backbone, batch_size=10, verbose=0, callbacks=[Watch()]
        )
        assert [(fit.name, fit.epochs) for fit in run.history] == [("fine_tune: head", 3), ("fine_tune: whole", 2)]
        assert (found.head.epoch, found.whole.epoch) == ([0, 1, 2], [3, 4])
        assert moved == [head, list(own_weights(model))]


def test_its_rates_are_those_of_one_cycles_by_layer() -> None:
    """Each layer of the second fit moves with its share of the rate; without them all would move alike."""
    losses, rates = {}, []
    for lowest in (0.01, 1.0):
        model, x, y = flat()
        with keepfit.Run(model) as run:
            losses[lowest] = run.fine_tune(x, y, epochs=4, batch_size=10, verbose=0, lowest=lowest).whole.history
            rates = run.history.learning_rates
            multipliers = {
                name: float(np.frombuffer(bits[2], "float32")[0])
                for name, bits in state_bits(model).items()
                if name.endswith("kernel/multiplier")
            }
            expected = {"dense": 0.01, "dense_1": 0.1} if lowest == 0.01 else {}
            assert {name.split("/")[-3]: value for name, value in multipliers.items()} == pytest.approx(expected)
    assert losses[0.01] != losses[1.0]
    assert max(rates) < 2e-3  # the peak lies within the first fit's last steps
    assert rates[1] > rates[2] > rates[3] > rates[4] == pytest.approx(1e-8, rel=1)


@pytest.mark.parametrize("stop", [0, 1, 3])
def test_a_script_that_was_killed_ends_with_the_same_bits(stop: int, tmp_path: Path) -> None:
    """Interrupted in either fit and run again, with every number and every bit; finished, it trains nothing."""

    def script(directory: Path, *, at: int | None = None) -> Any:
        model, x, y = nested()
        with keepfit.Run(model, directory, checkpoint_share="each") as run:
            callbacks = [] if at is None else [Interrupt(at)]
            run.fine_tune(x, y, epochs=3, frozen_epochs=2, batch_size=10, verbose=0, callbacks=callbacks)
            return state_bits(model), run.history.logs

    whole = script(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        script(tmp_path / "cut", at=stop)
    for _ in range(2):
        cut = script(tmp_path / "cut")
        assert differing(whole[0], cut[0]) == []
        assert whole[1] == cut[1]


@pytest.mark.parametrize("stop", [0, 3])
def test_called_again_in_one_process_it_goes_on(stop: int) -> None:
    """After Ctrl-C the same call ends what it began, as a cell of a notebook does; it makes no third fit."""

    def script(*, at: int | None) -> Any:
        model, x, y = nested()
        with keepfit.Run(model) as run:
            stops = [Interrupt(-1 if at is None else at)]
            for _ in range(2):
                try:
                    run.fine_tune(x, y, epochs=3, frozen_epochs=2, batch_size=10, verbose=0, callbacks=stops)
                    break
                except KeyboardInterrupt:
                    continue
            return state_bits(model), len(run.history)

    whole, cut = script(at=None), script(at=stop)
    assert (differing(whole[0], cut[0]), whole[1], cut[1]) == ([], 2, 2)


def test_another_length_is_another_recipe(tmp_path: Path) -> None:
    """Its schedules are over fractions of each fit, so more epochs raise."""
    for epochs in (1, 2):
        model, x, y = nested()
        with keepfit.Run(model, tmp_path / "run") as run:
            if epochs == 1:
                run.fine_tune(x, y, epochs=epochs, batch_size=10, verbose=0)
            else:
                with pytest.raises(RecipeChanged, match="over fractions of 1 epochs"):
                    run.fine_tune(x, y, epochs=epochs, batch_size=10, verbose=0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"epochs": 1, "frozen_epochs": -1}, "frozen_epochs=-1"),
        ({"epochs": 1, "learning_rate": 0.0}, "learning_rate=0.0"),
        ({"epochs": 1, "learning_rate": "fast"}, "learning_rate='fast'"),
        ({"epochs": 1, "lowest": 2.0}, "lowest=2.0"),
        ({"epochs": 1, "train": "head"}, "train='head'"),
        ({"epochs": 1, "name": ""}, "name=''"),
        ({"epochs": 1, "backbone": "backbon"}, "Did you mean 'backbone'"),
        ({"epochs": 1, "backbone": "all"}, "no layer with weights outside of it"),
        ({"epochs": 1, "backbone": lambda layer: layer.name.startswith("input")}, "no layer with weights in it"),
        ({"epochs": 1, "batch_size": 0}, "batch_size=0"),
        ({"epochs": 1, "colour": 1}, "no argument 'colour'"),
    ],
)
def test_what_cannot_be_fine_tuned_is_refused(arguments: dict[str, Any], words: str) -> None:
    """Before the first of the two fits, with everything as it was."""
    model, x, y = nested()
    with keepfit.Run(model) as run:
        run.fit(x, y, batch_size=10, verbose=0)
        refuse(run, lambda: run.fine_tune(x, y, verbose=0, **arguments), InvalidArgument, words)
