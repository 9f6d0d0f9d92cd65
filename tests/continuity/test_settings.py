"""P1: settings of layers that callbacks change are seen at the same steps, however training is cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest

import keepfit
from keepfit.loop import FitLoop
from tests.bits import differing, state_bits
from tests.models import regression_data

EPOCHS = 4


class Annealed(keras.callbacks.Callback):
    """Gives layers other settings, at the beginning of each epoch or of each batch.

    Args:
        change: Called with the model and the epoch.
        each: ``"epoch"`` or ``"batch"``.
    """

    def __init__(self, change: Callable[[Any, int], None], each: str) -> None:
        super().__init__()
        self.change = change
        self.epoch = 0
        if each == "batch":
            self.on_train_batch_begin = self.act

    def get_state(self) -> Any:
        return {}

    def set_state(self, state: Any) -> None:
        pass

    def act(self, batch: int, logs: Any = None) -> None:
        self.change(self.model, self.epoch + batch)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch
        self.change(self.model, epoch)


def more_noise(model: Any, number: int) -> None:
    model.layers[1].stddev = 0.1 + number / 10


def more_penalty(model: Any, number: int) -> None:
    model.layers[0].kernel_regularizer.l2 = 0.01 * (1 + number)


CHANGES = [more_noise, more_penalty]


def built() -> Any:
    keras.utils.set_random_seed(4)
    first = keras.layers.Dense(5, kernel_regularizer=keras.regularizers.L2(0.01))
    model = keras.Sequential([keras.Input((6,)), first, keras.layers.GaussianNoise(0.1, seed=1), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    return model


def train(cuts: list[int], change: Callable[[Any, int], None] | None, *, each: str = "epoch") -> dict[str, Any]:
    model = built()
    x, y = regression_data(30)
    with keepfit.Run(model) as run:
        for epochs in cuts:
            callbacks = [] if change is None else [Annealed(change, each)]
            run.fit(x, y, batch_size=10, epochs=epochs, verbose=0, callbacks=callbacks)
        return state_bits(model)


@pytest.mark.parametrize("each", ["epoch", "batch"])
@pytest.mark.parametrize("change", CHANGES)
def test_settings_that_a_callback_changes_are_heeded_however_training_is_cut(
    change: Callable[[Any, int], None], each: str
) -> None:
    """A rate of noise and a factor of a penalty take effect at once, in one fit or in several."""
    whole = train([EPOCHS], change, each=each)
    assert differing(whole, train([1, 2, 1], change, each=each)) == []
    assert differing(whole, train([EPOCHS], None))


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="looked at before each dispatch there")
@pytest.mark.parametrize("change", CHANGES)
def test_cut_training_differs_when_settings_are_not_heeded(
    change: Callable[[Any, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: where only a new fit looks, a cut shows."""
    monkeypatch.setattr(FitLoop, "_heed_settings", lambda self: None)
    assert differing(train([EPOCHS], change), train([2, 2], change))


@pytest.mark.parametrize("change", CHANGES)
def test_settings_that_a_script_changes_are_heeded_in_every_process(
    change: Callable[[Any, int], None], tmp_path: Path
) -> None:
    """P2: a process that goes on after the change ends as one that did all of it."""
    x, y = regression_data(30)
    found = []
    for folder, processes in (("whole", [2]), ("again", [1, 2])):
        for fits in processes:
            model = built()
            with keepfit.Run(model, tmp_path / folder) as run:
                for number in range(fits):
                    if number:
                        change(model, 7)
                    run.fit(x, y, batch_size=10, epochs=2, verbose=0)
        found.append(state_bits(model))
    assert differing(*found) == []
