"""Freezing and unfreezing between fits: no optimizer forgets, and what begins late takes no oversized step."""

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

pytestmark = pytest.mark.filterwarnings("ignore::keepfit.errors.KeepfitWarning")

RATE = 1e-2
optimizers = keras.optimizers
OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda: optimizers.SGD(RATE),
    "momentum": lambda: optimizers.SGD(RATE, momentum=0.9, nesterov=True),
    "rmsprop": lambda: optimizers.RMSprop(RATE, momentum=0.5, centered=True),
    "adagrad": lambda: optimizers.Adagrad(RATE),
    "adadelta": lambda: optimizers.Adadelta(RATE),
    "adam": lambda: optimizers.Adam(RATE),
    "amsgrad": lambda: optimizers.Adam(RATE, amsgrad=True, clipnorm=1.0),
    "adamw": lambda: optimizers.AdamW(RATE, weight_decay=1e-2),
    "adamax": lambda: optimizers.Adamax(RATE),
    "nadam": lambda: optimizers.Nadam(RATE),
    "adafactor": lambda: optimizers.Adafactor(RATE),
    "lamb": lambda: optimizers.Lamb(RATE),
    "lion": lambda: optimizers.Lion(RATE),
    "ftrl": lambda: optimizers.Ftrl(RATE),
    "muon": lambda: optimizers.Muon(RATE),
    "ema": lambda: optimizers.Adam(RATE, use_ema=True, ema_momentum=0.9),
    "accumulation": lambda: optimizers.Adam(RATE, gradient_accumulation_steps=3),
    "loss scale": lambda: optimizers.LossScaleOptimizer(optimizers.Adam(RATE), initial_scale=8.0),
}
if hasattr(optimizers, "ScheduleFreeAdamW"):
    OPTIMIZERS["schedule free"] = lambda: optimizers.ScheduleFreeAdamW(RATE)
# Their first step after moments of zero is at most the rate, thanks to bias correction.
# Not Nadam's: Keras's looks ahead, and takes 1.06 times the rate at its very first step.
CORRECTED = ("adam", "amsgrad", "adamax", "accumulation", "loss scale")


def two_layers(name: str) -> tuple[Any, Any, Any]:
    """Return a model of two dense layers, with its data."""
    keras.utils.set_random_seed(4)
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(5, name="body"), keras.layers.Dense(1, name="head")]
    )
    model.compile(OPTIMIZERS[name](), "mse")
    return model, *regression_data()


def slots_of(model: Any, layer: str) -> dict[str, bytes]:
    """Return name -> bytes of what the optimizer keeps for a layer."""
    part = {"body": "/dense/", "head": "/dense_1/"}[layer]
    values = {name: np.asarray(value) for name, value in variables_of(model).values().items()}
    own = ("/age", "/born")
    return {
        name: value.tobytes()
        for name, value in values.items()
        if name.startswith("optimizer") and part in name and not name.endswith(own)
    }


def weights_of(model: Any, layer: str) -> list[Any]:
    """Return a layer's weights."""
    return [np.asarray(weight) for weight in model.get_layer(layer).get_weights()]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_is_frozen_keeps_its_state_and_finds_it_again(name: str) -> None:
    """No bit of a frozen layer or of its slots moves; when it returns, what it had is there."""
    model, x, y = two_layers(name)
    optimizer = model.optimizer
    with keepfit.Run(model) as run:
        run.fit(x, y, batch_size=10, verbose=0)
        model.get_layer("body").trainable = False
        run.fit(x, y, batch_size=10, epochs=0, verbose=0)  # ends of a fit may write averages into weights
        body, slots = weights_of(model, "body"), slots_of(model, "body")
        assert slots or name == "sgd"
        run.fit(x, y, batch_size=10, epochs=2, verbose=0)
        assert all(np.array_equal(a, b) for a, b in zip(body, weights_of(model, "body"), strict=True))
        assert differing(slots, slots_of(model, "body")) == []
        head = slots_of(model, "head")
        model.get_layer("body").trainable = True
        run.ready((x[:10], y[:10]))
        run.seat_optimizer()
        assert differing(slots, slots_of(model, "body")) == []
        assert differing(head, slots_of(model, "head")) == []
        run.fit(x, y, batch_size=10, verbose=0)
        assert differing(slots, slots_of(model, "body")) != [] or name == "sgd"
        assert model.optimizer is optimizer


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_layer_that_begins_late_moves_as_with_a_new_optimizer(name: str) -> None:
    """Its first update is that of an optimizer at its first step; without ages it would be several times the rate."""
    model, x, y = two_layers(name)
    every = 3 if name == "accumulation" else 1
    with keepfit.Run(model) as run:
        model.get_layer("body").trainable = False
        run.fit(x, y, batch_size=10, epochs=6, verbose=0, shuffle=False)
        model.get_layer("body").trainable = True
        before = weights_of(model, "body")
        start = model.get_weights()
        run.fit(x, y, batch_size=10, steps_per_epoch=every, verbose=0, shuffle=False)
        moved = [b - a for a, b in zip(before, weights_of(model, "body"), strict=True)]
    other, _, _ = two_layers(name)
    with keepfit.Run(other) as run:
        run.ready((x[:10], y[:10]))
        other.set_weights(start)
        if name == "schedule free":
            run.model.optimizer.built = False  # it begins with the weights it is built over
            run.model.optimizer.build(other.trainable_variables)
        run.fit(x, y, batch_size=10, steps_per_epoch=every, verbose=0, shuffle=False)
        expected = [b - a for a, b in zip(before, weights_of(other, "body"), strict=True)]
    if name == "ema":  # a fit ends with the average, which begins with the value before, not after, the first step
        expected = [0.1 * change for change in expected]
    for one, two in zip(moved, expected, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-6)  # the same numbers by another program
    if name in CORRECTED:
        assert max(float(np.abs(change).max()) for change in moved) <= 1.01 * RATE


@pytest.mark.parametrize("name", ["adam", "nadam"])
def test_without_ages_the_first_step_would_be_oversized(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the test above: with the optimizer's own count, the step is more than the rate."""
    monkeypatch.setattr("keepfit.phases.seat.AgedUpdate", lambda part: type(part)._backend_update_step.__get__(part))
    model, x, y = two_layers(name)
    with keepfit.Run(model) as run:
        model.get_layer("body").trainable = False
        run.fit(x, y, batch_size=10, epochs=60, verbose=0, shuffle=False)
        model.get_layer("body").trainable = True
        before = weights_of(model, "body")
        run.fit(x, y, batch_size=10, steps_per_epoch=1, verbose=0, shuffle=False)
        moved = [b - a for a, b in zip(before, weights_of(model, "body"), strict=True)]
    assert max(float(np.abs(change).max()) for change in moved) > 1.5 * RATE


@pytest.mark.parametrize("name", ["adam", "nadam", "adafactor", "ema", "accumulation", "loss scale"])
def test_phases_are_cut_and_replayed_with_every_bit(name: str, tmp_path: Path) -> None:
    """A schedule of phases in several processes ends with the bits of one, its late layers' ages among them."""

    def script(directory: Path, fits: int) -> Any:
        model, x, y = two_layers(name)
        with keepfit.Run(model, directory, checkpoint_share="each") as run:
            for number in range(fits):
                model.get_layer("body").trainable = number % 2 == 1
                run.fit(x, y, batch_size=10, epochs=2, verbose=0)
            return state_bits(model)

    whole = script(tmp_path / "whole", 5)
    assert any(found.endswith("/age") for found in whole)
    for fits in range(1, 5):
        script(tmp_path / "cut", fits)
    assert differing(whole, script(tmp_path / "cut", 5)) == []
    assert differing(whole, script(tmp_path / "cut", 5)) == []


def test_appending_process_finds_what_is_frozen(tmp_path: Path) -> None:
    """A process that knows nothing of the phases before it has the state of layers that do not train now."""

    def fit(train_body: bool) -> tuple[Any, Any]:
        model, x, y = two_layers("adam")
        model.get_layer("body").trainable = train_body
        with keepfit.Run(model, tmp_path / "run", mode="append", checkpoint_share="each") as run:
            run.fit(x, y, batch_size=10, verbose=0)
            return slots_of(model, "body"), int(np.asarray(model.optimizer.iterations))

    first, _ = fit(True)
    second, _ = fit(False)
    assert second == first
    third, iterations = fit(True)
    assert (third.keys(), third != first, iterations) == (first.keys(), True, 21)


def test_going_back_forgets_what_began_later(tmp_path: Path) -> None:
    """run.load() of a fit before a layer trained leaves no slots of it, and it begins fresh again."""
    model, x, y = two_layers("adam")
    model.get_layer("body").trainable = False
    with keepfit.Run(model, tmp_path / "run", mode="append", checkpoint_share="each") as run:
        run.fit(x, y, batch_size=10, verbose=0)
        model.get_layer("body").trainable = True
        run.fit(x, y, batch_size=10, verbose=0)
        first = state_bits(model)
        run.load(fit=1)
        assert not any(name.endswith("/born") for name in state_bits(model))
        run.fit(x, y, batch_size=10, verbose=0)
        again = state_bits(model)
    changed = [name for name in differing(first, again) if "rate" not in name]
    assert first.keys() == again.keys()
    assert changed  # another order of samples: pass 3, not 2
    assert np.frombuffer(again["optimizer/model/dense/kernel/born"][2], "int32")[0] == 7


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="looks into the JAX engine")
def test_alternating_sets_compile_once() -> None:
    """Twenty fits over two sets of layers use two programs."""
    model, x, y = two_layers("adam")
    with keepfit.Run(model) as run:
        counts = []
        for number in range(20):
            model.get_layer("body").trainable = number % 2 == 0
            run.fit(x, y, batch_size=10, verbose=0)
            counts.append(len([key for key in run.engine._programs if key[0] in ("loop", "step")]))
    assert counts[-1] == counts[3]


def test_frozen_model_saved_and_loaded_has_its_optimizer(tmp_path: Path) -> None:
    """Keras loads the optimizer of a model whose layers began at several times."""
    model, x, y = two_layers("adam")
    with keepfit.Run(model) as run:
        model.get_layer("body").trainable = False
        run.fit(x, y, batch_size=10, verbose=0)
        model.get_layer("body").trainable = True
        run.fit(x, y, batch_size=10, verbose=0)
        model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert int(np.asarray(loaded.optimizer.iterations)) == 14
    plain = [np.asarray(v) for v in loaded.optimizer.variables]
    mine = [np.asarray(v) for v in model.optimizer.variables][: len(plain)]
    assert all(np.array_equal(a, b) for a, b in zip(plain, mine, strict=True))


def test_that_other_layers_train_is_said() -> None:
    """Once per change, and only where something had been trained."""
    model, x, y = two_layers("adam")
    with keepfit.Run(model) as run:
        run.fit(x, y, batch_size=10, verbose=0)
        model.get_layer("body").trainable = False
        with pytest.warns(KeepfitWarning, match="Other layers train than before: each keeps its optimizer state"):
            run.fit(x, y, batch_size=10, verbose=0)
