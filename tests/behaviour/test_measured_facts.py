"""Where Keras behaves in three ways on three backends, keepfit behaves in one: a test for each measured fact."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import keras
import numpy as np
import pytest

import keepfit
from keepfit.errors import KeepfitWarning
from tests.bits import differing, state_bits
from tests.models import make, regression_data

SCHEDULES = keras.optimizers.schedules
GIVEN: dict[str, Any] = {"batch_size": 10, "verbose": 0}
# What the first fit of another phase, or an optimizer that serves other layers, says once.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{words}:keepfit.errors.KeepfitWarning")
    for words in ("Fit . is a new phase", "Other layers train", "The newly compiled", "The learning rate of fit")
]


def orders(cuts: list[int]) -> list[bytes]:
    """Return the order of the samples in each epoch."""
    seen: list[float] = []
    x = y = np.arange(40, dtype="float32")[:, None]
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    # With a rate of zero the loss of a batch of one sample tells which sample it was.
    model.compile(keras.optimizers.SGD(0.0), "mae")
    note = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(logs["loss"]))
    with keepfit.Run(model, seed=1) as run:
        for epochs in cuts:
            run.fit(x, y, batch_size=1, epochs=epochs, verbose=0, callbacks=[note])
    means = np.array(seen).reshape(4, 40)
    return [epoch.tobytes() for epoch in means]


@pytest.mark.parametrize("cuts", [[4], [1, 1, 1, 1]])
def test_every_epoch_has_an_order_of_its_own(cuts: list[int]) -> None:
    """Four epochs have four orders, in one fit as in four, seeded."""
    keras.utils.set_random_seed(1)
    found = orders(cuts)
    assert len(set(found)) == 4
    keras.utils.set_random_seed(1)
    assert found == orders([2, 2])


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("name", ["plain_dense", "dropout_batch_norm"])
def test_two_fits_are_one(name: str, shuffle: bool) -> None:
    """``fit(2)`` and ``fit(2)`` are ``fit(4)``, with dropout and shuffled too."""
    results = []
    for cuts in ([2, 2], [4]):
        model, x, y = make(name)
        with keepfit.Run(model, seed=1) as run:
            for epochs in cuts:
                run.fit(x, y, epochs=epochs, shuffle=shuffle, **GIVEN)
        results.append(state_bits(model))
    assert differing(*results) == []


def trained(model: Any, x: Any, y: Any, run: Any) -> set[str]:
    """Return which layers a fit changes."""
    before = {layer.name: [w.copy() for w in layer.get_weights()] for layer in model.layers}
    run.fit(x, y, **GIVEN)
    return {
        layer.name
        for layer in model.layers
        if any(not np.array_equal(a, b) for a, b in zip(before[layer.name], layer.get_weights(), strict=True))
    }


@pytest.mark.parametrize("recompile", [False, True])
def test_freezing_and_unfreezing_are_honoured(recompile: bool) -> None:
    """What is frozen stays as it is and what is not trains, compiled again with the same optimizer object or not."""
    model, x, y = make("plain_dense")
    first, last = model.layers[-2:]
    with keepfit.Run(model) as run:
        for frozen in ([], [first], [], [first, last], [last]):
            for layer in (first, last):
                layer.trainable = layer not in frozen
            if len(frozen) == 2:
                continue
            if recompile:
                model.compile(model.optimizer, "mse", metrics=["mae"])
            assert trained(model, x, y, run) == {layer.name for layer in (first, last) if layer not in frozen}


RATES = {
    "number to schedule": (1e-2, lambda: SCHEDULES.ExponentialDecay(0.0, 10, 0.5)),
    "schedule to schedule": (
        SCHEDULES.ExponentialDecay(1e-2, 10, 0.5),
        lambda: SCHEDULES.CosineDecay(0.0, 10),
    ),
    "schedule to number": (SCHEDULES.ExponentialDecay(1e-2, 10, 0.5), lambda: 0.0),
}


@pytest.mark.parametrize("name", RATES)
def test_a_rate_of_another_kind_is_honoured(name: str) -> None:
    """The next step uses it: with a rate of zero no weight changes."""
    before, after = RATES[name]
    model, x, y = make("plain_dense")
    model.compile(keras.optimizers.Adam(before), "mse")
    with keepfit.Run(model) as run:
        run.fit(x, y, **GIVEN)
        if name == "schedule to number":  # Keras itself refuses the assignment
            run.fit(x, y, learning_rate=after(), **GIVEN)
        else:
            weights = model.get_weights()
            model.optimizer.learning_rate = after()
            run.fit(x, y, **GIVEN)
            assert all(map(np.array_equal, weights, model.get_weights()))
        weights = model.get_weights()
        run.fit(x, y, **GIVEN)
        assert all(map(np.array_equal, weights, model.get_weights()))
        run.fit(x, y, learning_rate=1e-2, **GIVEN)
        assert not all(map(np.array_equal, weights, model.get_weights()))


def test_a_fit_without_epochs_trains_nothing() -> None:
    """Its History is empty, and the next one trains."""
    model, x, y = make("plain_dense")
    with keepfit.Run(model) as run:
        run.fit(x, y, epochs=2, **GIVEN)
        assert run.fit(x, y, epochs=0, **GIVEN).epoch == []
        assert run.fit(x, y, **GIVEN).epoch == [2]


def test_one_generator_over_three_fits_loses_no_batch() -> None:
    """Each batch that it gives is trained on, once and in its order."""
    x, y = regression_data()
    given: list[int] = []

    def batches() -> Iterator[Any]:
        for number in range(100):
            given.append(number)
            yield x[number % 7 * 10 : number % 7 * 10 + 10], y[number % 7 * 10 : number % 7 * 10 + 10]

    results = []
    for cuts in ([1, 1, 1], [3]):
        model, *_ = make("plain_dense")
        source = batches()
        with keepfit.Run(model) as run:
            for epochs in cuts:
                run.fit(source, steps_per_epoch=2, epochs=epochs, verbose=0)
            assert run.position.step == 6
        results.append(state_bits(model))
    assert differing(*results) == []
    assert all(after == before + 1 or after == 0 for before, after in pairwise(given))


def test_an_error_of_the_data_leaves_the_last_finished_step() -> None:
    """With several steps per execution too, model and optimizer are whole afterwards, and go on."""
    x, y = regression_data()

    def failing() -> Iterator[Any]:
        for number in range(6):
            yield x[number * 10 : number * 10 + 10], y[number * 10 : number * 10 + 10]
        raise OSError("the disk is gone")

    keras.utils.set_random_seed(2)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
    executions = {} if keras.backend.backend() == "torch" else {"steps_per_execution": 4}
    model.compile("adam", "mse", **executions)
    with keepfit.Run(model) as run:
        with pytest.raises(OSError, match="the disk is gone"):
            run.fit(failing(), steps_per_epoch=8, verbose=0)
        assert run.position.step == int(np.asarray(keras.ops.convert_to_numpy(model.optimizer.iterations))) == 6
        run.fit(x, y, **GIVEN)
        assert all(np.isfinite(weight).all() for weight in model.get_weights())


def test_a_signal_handler_may_read_the_weights_amid_an_epoch() -> None:
    """The variables always hold their values."""
    model, x, y = make("plain_dense")
    seen: list[Any] = []
    before = signal.signal(signal.SIGUSR1, lambda *_: seen.append(model.get_weights()))
    try:
        send = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: os.kill(os.getpid(), signal.SIGUSR1)
        )
        with keepfit.Run(model) as run:
            run.fit(x, y, callbacks=[send], **GIVEN)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(seen) == 7
    assert all(not np.array_equal(one[0], other[0]) for one, other in pairwise(seen))


def test_compiling_again_in_a_loop_trains_on() -> None:
    """``compile()`` between fits keeps what the optimizer knows, and says so."""
    model, x, y = make("plain_dense")
    with keepfit.Run(model) as run:
        run.fit(x, y, **GIVEN)
        model.compile(keras.optimizers.Adam(1e-3), "mse", metrics=["mae"])
        with pytest.warns(KeepfitWarning, match="goes on with the state"):
            run.fit(x, y, **GIVEN)
        assert int(np.asarray(keras.ops.convert_to_numpy(model.optimizer.iterations))) == 14
