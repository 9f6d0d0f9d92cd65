"""What the code of a step reads of Python: honoured wherever it lies, and left as it was by an attempt to capture."""

from __future__ import annotations

import argparse
import collections
import functools
import itertools
import os
import random
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest

if keras.backend.backend() != "torch":
    pytest.skip("about the PyTorch backend", allow_module_level=True)

import torch

import keepfit
from keepfit import _keras
from tests.bits import differing, state_bits
from tests.models import regression_data

SIZE = 16


class Scaled(keras.Model):
    """A training step whose loss is multiplied by what some Python code says.

    Args:
        factor: That code, called with the model.
        settings: What it reads of the model.
    """

    def __init__(self, factor: Callable[[Any], Any], settings: Any = None) -> None:
        super().__init__()
        self.out = keras.layers.Dense(1)
        self.factor = factor
        self.settings = settings

    def call(self, x: Any) -> Any:
        return self.out(x)

    def train_step(self, data: Any) -> Any:
        x, y = data
        self.zero_grad()
        loss = keras.ops.mean((self(x) - y) ** 2) * self.factor(self)
        loss.backward()
        with torch.no_grad():
            self.optimizer.apply([v.value.grad for v in self.trainable_weights], self.trainable_weights)
        return {"loss": loss}


class Between(keras.callbacks.Callback):
    """Does something to the model before each epoch."""

    def __init__(self, change: Callable[[Any, float], None]) -> None:
        super().__init__()
        self.change = change

    def get_state(self) -> Any:
        return {}

    def set_state(self, state: Any) -> None:
        pass

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.change(self.model, 1.0 + epoch)


def compiled(factor: Callable[[Any], Any], settings: Any) -> Any:
    keras.utils.set_random_seed(5)
    model = Scaled(factor, settings)
    model.compile(keras.optimizers.SGD(1e-2))
    return model


def as_written(model: Any, change: Callable[[Any, float], None] | None) -> dict[str, Any]:
    """Return the state after Keras's own steps, one by one, as they are written."""
    x, y = regression_data(100)
    _keras.build(model, (x[:SIZE], y[:SIZE]))
    for epoch in range(4):
        model.reset_metrics()
        if change is not None:
            change(model, 1.0 + epoch)
        for first in range(0, 100, SIZE):
            model.train_step((torch.tensor(x[first : first + SIZE]), torch.tensor(y[first : first + SIZE])))
    return state_bits(model)


def with_keepfit(model: Any, change: Callable[[Any, float], None] | None) -> tuple[dict[str, Any], str]:
    """Return the state after a fit of keepfit, and the reason of its plan."""
    x, y = regression_data(100)
    with keepfit.Run(model) as run:
        callbacks = [] if change is None else [Between(change)]
        run.fit(x, y, batch_size=SIZE, epochs=4, shuffle=False, verbose=0, callbacks=callbacks)
        return state_bits(model), run.recorder.fits[1].plan["reason"]


# Where a value may lie: what reads it, what it is at the beginning, what changes it.


class Settings:
    alpha = 1.0

    def value(self) -> float:
        return self.alpha


@dataclass(slots=True)
class Slotted:
    alpha: float = 1.0


def with_default(alpha: float = 1.0) -> float:
    return alpha


def with_attribute() -> float:
    return with_attribute.alpha  # type: ignore[attr-defined, no-any-return]


with_attribute.alpha = 1.0  # type: ignore[attr-defined]
ALPHA = 1.0
MODULE = types.ModuleType("settings_of_a_user")
MODULE.__file__ = "settings_of_a_user.py"
sys.modules["settings_of_a_user"] = MODULE
MODULE.ALPHA = 1.0  # type: ignore[attr-defined]


class Halved(torch.autograd.Function):
    alpha = 1.0

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0] * Halved.alpha


def imported(model: Any) -> Any:
    import settings_of_a_user

    return settings_of_a_user.ALPHA


def imported_from(model: Any) -> Any:
    from settings_of_a_user import ALPHA

    return ALPHA


def replaced(model: Any, value: float) -> None:
    model.settings = Slotted(value)


def set_alpha(model: Any, value: float) -> None:
    model.settings.alpha = value


def set_global(model: Any, value: float) -> None:
    global ALPHA
    ALPHA = value


def set_item(model: Any, value: float) -> None:
    model.settings[0] = value


def set_deep(model: Any, value: float) -> None:
    model.settings["a"]["b"]["c"]["d"]["e"] = value


def fill(model: Any, value: float) -> None:
    model.settings[:] = value


def other_loss(model: Any, value: float) -> None:
    model.settings = keras.losses.Huber(value) if value < 3 else keras.losses.LogCosh()


PLACES: dict[str, tuple[Callable[[Any], Any], Callable[[], Any], Callable[[Any, float], None]]] = {
    "class attribute": (lambda m: m.settings.alpha, Settings, lambda m, v: setattr(Settings, "alpha", v)),
    "class by its name": (lambda m: Settings.alpha, Settings, lambda m, v: setattr(Settings, "alpha", v)),
    "replaced object": (lambda m: m.settings.alpha, Slotted, replaced),
    "slots": (lambda m: m.settings.alpha, Slotted, set_alpha),
    "namespace": (lambda m: m.settings.alpha, lambda: types.SimpleNamespace(alpha=1.0), set_alpha),
    "arguments": (lambda m: m.settings.alpha, lambda: argparse.Namespace(alpha=1.0), set_alpha),
    "deep": (lambda m: m.settings["a"]["b"]["c"]["d"]["e"], lambda: {"a": {"b": {"c": {"d": {"e": 1.0}}}}}, set_deep),
    "large array": (lambda m: float(m.settings[7]), lambda: np.ones(5000), fill),
    "large array as a tensor": (
        lambda m: keras.ops.mean(keras.ops.convert_to_tensor(m.settings)),
        lambda: np.ones(5000, "float32"),
        fill,
    ),
    "long list": (lambda m: m.settings[0], lambda: [1.0] * 3000, set_item),
    "deque": (lambda m: m.settings[0], lambda: collections.deque([1.0]), set_item),
    "default": (lambda m: with_default(), Settings, lambda m, v: setattr(with_default, "__defaults__", (v,))),
    "function": (lambda m: with_attribute(), Settings, lambda m, v: setattr(with_attribute, "alpha", v)),
    "method": (
        lambda m: m.settings(),
        lambda: Settings().value,
        lambda m, v: setattr(m.settings.__self__, "alpha", v),
    ),
    "partial": (
        lambda m: m.settings(),
        lambda: functools.partial(lambda found: found[0], [1.0]),
        lambda m, v: m.settings.args[0].__setitem__(0, v),
    ),
    "partial of a global": (lambda m: m.settings(), lambda: functools.partial(lambda: ALPHA), set_global),
    "global by a text": (lambda m: globals()["ALPHA"], Settings, set_global),
    "import within": (imported, Settings, lambda m, v: setattr(MODULE, "ALPHA", v)),
    "import from within": (imported_from, Settings, lambda m, v: setattr(MODULE, "ALPHA", v)),
    "environment": (
        lambda m: float(os.environ.get("KEEPFIT_TEST_ALPHA", "1")),
        Settings,
        lambda m, v: os.environ.__setitem__("KEEPFIT_TEST_ALPHA", str(v)),
    ),
    "loss": (
        lambda m: m.settings(keras.ops.zeros((1, 1)), m.out.kernel[:1]),
        lambda: keras.losses.Huber(1.0),
        other_loss,
    ),
    "backward pass": (
        lambda m: Halved.apply(keras.ops.mean(m.out.kernel)),
        Settings,
        lambda m, v: setattr(Halved, "alpha", v),
    ),
}


@pytest.mark.parametrize("name", PLACES)
def test_what_a_step_reads_is_honoured_wherever_it_lies(name: str) -> None:
    """A captured step gives Keras's own bits when a callback changes what its code reads."""
    factor, settings, change = PLACES[name]
    found, reason = with_keepfit(compiled(factor, settings()), change)
    assert reason.startswith("the step was captured")
    assert differing(found, as_written(compiled(factor, settings()), change)) == []
    unchanged = as_written(compiled(factor, settings()), lambda model, value: change(model, 1.0))
    assert differing(found, unchanged) != []


# What a step changes: how it tells its turn, and what it is at the beginning.
COUNT = 0


def global_counter(model: Any) -> float:
    global COUNT
    COUNT += 1
    return 1.0 + COUNT / 100


def made_global(model: Any) -> float:
    global MADE
    try:
        MADE += 1  # type: ignore[name-defined]
    except NameError:
        MADE = 1
    return 1.0 + MADE / 100


def closure_counter() -> Callable[[], int]:
    count = 0

    def more() -> int:
        nonlocal count
        count += 1
        return count

    return more


def growing(model: Any) -> float:
    model.settings.append(1)
    return 1.0 + len(model.settings) / 100


def counted(model: Any) -> float:
    model.settings["count"] += 1
    return 1.0 + model.settings["count"] / 100


def counted_in_an_array(model: Any) -> float:
    model.settings += 1
    return 1.0 + float(model.settings[0]) / 100


def another_first_step(model: Any) -> float:
    first, model.settings = model.settings, False
    return 5.0 if first else 1.0


def attribute_of_the_first_step(model: Any) -> float:
    if hasattr(model, "been"):
        return 1.0
    model.been = True
    return 5.0


CHANGES: dict[str, tuple[Callable[[Any], Any], Callable[[], Any]]] = {
    "global": (global_counter, Settings),
    "new global": (made_global, Settings),
    "closure": (lambda m: 1.0 + m.settings() / 100, closure_counter),
    "list": (growing, list),
    "dictionary": (counted, lambda: {"count": 0}),
    "ordered dictionary": (counted, lambda: collections.OrderedDict(count=0)),
    "deque": (growing, collections.deque),
    "array": (counted_in_an_array, lambda: np.zeros(3)),
    "iterator": (lambda m: 1.0 + next(m.settings) / 100, itertools.count),
    "NumPy's generator": (lambda m: m.settings.random(), lambda: np.random.default_rng(1)),
    "NumPy's old generator": (lambda m: m.settings.rand(), lambda: np.random.RandomState(1)),
    "Python's generator": (lambda m: m.settings.random(), lambda: random.Random(1)),
    "PyTorch's generator": (
        lambda m: torch.rand((), generator=m.settings),
        lambda: torch.Generator().manual_seed(1),
    ),
    "first step": (another_first_step, lambda: True),
    "attribute of the first step": (attribute_of_the_first_step, lambda: None),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_a_step_changes_of_python_is_as_if_nobody_had_tried_to_capture_it(name: str) -> None:
    """Counters, containers and generators stand where Keras's own steps find them."""
    factor, settings = CHANGES[name]
    results = []
    for train in (lambda model: with_keepfit(model, None)[0], lambda model: as_written(model, None)):
        globals().pop("MADE", None)
        globals()["COUNT"] = 0
        results.append(train(compiled(factor, settings())))
    assert differing(*results) == []


@pytest.mark.parametrize("deed", [print, lambda *_: sys.stdout.write("")])
def test_a_step_that_does_more_than_compute_runs_as_it_is_written(
    deed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """What would be said once and never again is said in every step."""
    _, reason = with_keepfit(compiled(lambda m: (1.0, deed("a step"))[0], None), None)
    assert "it does more than compute" in reason


def test_what_is_too_large_to_be_compared_is_not_captured() -> None:
    """A step that may read an array of many megabytes runs as it is written, and the plan says so."""
    _, reason = with_keepfit(compiled(lambda m: float(m.settings[0]), np.ones(1 << 20)), None)
    assert "Scaled.settings is too large" in reason
