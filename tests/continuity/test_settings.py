"""P1, P2: settings of layers that callbacks change are seen at the same steps, cut, interrupted or not."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keepfit
from keepfit.attributes import Attributes
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


class Weighed(keras.Model):
    """A training loss that is multiplied by what lies in attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.out = keras.layers.Dense(1)
        self.weights_of_epochs = [1.0]
        self.settings = Settings()
        self.table = {"rates": {"first": 1.0}}

    def call(self, x: Any) -> Any:
        return self.out(x)

    def compute_loss(self, *given: Any, **named: Any) -> Any:
        half = 0.5 if self.settings.mode is Mode.HALF else 1.0
        return (
            super().compute_loss(*given, **named)
            * self.weights_of_epochs[-1]
            * self.settings.alpha
            * half
            * self.table["rates"]["first"]
        )


class Mode(Enum):
    WHOLE = 1
    HALF = 2


@dataclass
class Settings:
    alpha: float = 1.0
    mode: Mode = Mode.WHOLE


def other_weights(model: Any, number: int) -> None:
    model.weights_of_epochs.append(1.0 + number / 5)
    model.table["rates"]["first"] = 1.0 / (1 + number)
    model.settings.alpha = np.float32(1 + number)
    model.settings.mode = Mode.HALF if number % 2 else Mode.WHOLE


class Failing(Annealed):
    """End the process after as many steps as the environment says, which no recipe tells of."""

    def __init__(self, change: Callable[[Any, int], None]) -> None:
        super().__init__(change, "epoch")
        self.steps = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.steps += 1
        if self.steps == int(os.environ["FAIL_AT_STEP"]):
            raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def _leave_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the environment back after each test."""
    monkeypatch.setenv("FAIL_AT_STEP", "0")


def weighed() -> Any:
    keras.utils.set_random_seed(4)
    model = Weighed()
    model.compile("adam", "mse", run_eagerly=keras.backend.backend() != "torch")
    return model


def in_processes(folder: Path, make: Callable[[], Any], change: Callable[[Any, int], None], stops: list[int]) -> Any:
    """Return the state after two fits, the second without callbacks; each of ``stops`` ends a process."""
    x, y = regression_data(30)
    for at in [*stops, 0]:
        os.environ["FAIL_AT_STEP"] = str(at)
        model = make()
        with keepfit.Run(model, folder) as run:
            try:
                run.fit(x, y, batch_size=10, epochs=3, verbose=0, callbacks=[Failing(change)])
                if at != 0:
                    continue
                run.fit(x, y, batch_size=10, epochs=2, verbose=0)
            except KeyboardInterrupt:
                continue
            return state_bits(model)
    raise AssertionError


CASES = [(built, more_noise), (built, more_penalty), (weighed, other_weights)]


@pytest.mark.parametrize(("make", "change"), CASES)
@pytest.mark.parametrize("stop", [5, 100])
def test_attributes_go_on_in_another_process(
    make: Callable[[], Any], change: Callable[[Any, int], None], stop: int, tmp_path: Path
) -> None:
    """What a callback had set when its epoch began holds for the rest of it, and after a fit that is replayed."""
    whole = in_processes(tmp_path / "whole", make, change, [])
    assert differing(whole, in_processes(tmp_path / "cut", make, change, [stop])) == []


@pytest.mark.parametrize(("make", "change"), CASES)
@pytest.mark.parametrize("stop", [5, 100])
def test_another_process_differs_when_attributes_are_not_brought_back(
    make: Callable[[], Any],
    change: Callable[[Any, int], None],
    stop: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The negative control."""
    whole = in_processes(tmp_path / "whole", make, change, [])
    monkeypatch.setattr(Attributes, "put_back", lambda self, state: None)
    assert differing(whole, in_processes(tmp_path / "cut", make, change, [stop]))
