"""Fits of a few steps, one after another: each looks at variables once, and still sees all that happens between two."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import keras
import numpy as np
import pytest

import keepfit
from keepfit.errors import KeepfitWarning
from keepfit.fitting import FitCall
from keepfit.held import Known
from tests.bits import differing, state_bits
from tests.models import make

BACKEND = keras.backend.backend()
GIVEN: dict[str, Any] = {"batch_size": 35, "verbose": 0}


def by_set_weights(model: Any) -> None:
    model.set_weights([weight + 1 for weight in model.get_weights()])


def by_assign(model: Any) -> None:
    variable = model.trainable_variables[-1]
    variable.assign(keras.ops.ones(variable.shape) * 3)


def by_slot(model: Any) -> None:
    variable = model.optimizer.variables[-1]
    variable.assign(keras.ops.ones(variable.shape) * 3)


def by_memory(model: Any) -> None:
    """Write where no version of anything is counted."""
    value = model.trainable_variables[-1].value
    if BACKEND == "torch":
        value.data.numpy()[:] = 3
    elif BACKEND == "tensorflow":
        value.scatter_nd_update([[0]], [3.0])
    else:
        by_assign(model)


@pytest.mark.filterwarnings("ignore:The learning rate of fit . is zero throughout")
@pytest.mark.parametrize("change", [by_set_weights, by_assign, by_slot, by_memory])
def test_what_is_set_between_two_fits_is_what_the_next_one_begins_with(change: Callable[[Any], None]) -> None:
    """The fit is a new phase; one that fails leaves what was set, and one that trains begins with it."""
    model, x, y = make("plain_dense")
    with keepfit.Run(model) as run:
        for _ in range(2):
            run.fit(x, y, **GIVEN)
        assert run.recorder.fits[2].phase == "continues"
        change(model)
        before = state_bits(model)
        model.optimizer.learning_rate = 0.0
        with pytest.warns(KeepfitWarning, match="set by hand"):
            run.fit(x, y, **GIVEN)
    assert run.recorder.fits[3].phase == "new"
    after = state_bits(model)
    weights = [name for name in before if name.startswith("model/")]
    assert differing({name: before[name] for name in weights}, {name: after[name] for name in weights}) == []


@pytest.mark.filterwarnings("ignore:Fit . is a new phase")
@pytest.mark.parametrize("forgets", [True, False])
def test_states_of_fits_that_nobody_watches_are_those_they_trained_to(
    forgets: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `load` brings back is what each fit ended with; where a dispatch did not say that it writes, it is not."""
    if not forgets:
        if BACKEND == "jax":
            pytest.skip("a look at an array of JAX costs nothing and is never spared")
        monkeypatch.setattr(Known, "_clear", lambda _: None)
    model, x, y = make("plain_dense")
    ends = []
    with keepfit.Run(model) as run:
        for fit in range(1, 5):
            model.optimizer.learning_rate = 1e-2 / fit
            run.fit(x, y, **GIVEN)
            ends.append(state_bits(model))
        wrong = []
        for fit, end in enumerate(ends, start=1):
            run.load(fit=fit)
            wrong += differing(state_bits(model), end)
    assert (wrong == []) is forgets


class WritesAtTheEnd(keras.callbacks.History):
    """Kept by Keras like its own History, and rewrites weights."""

    def on_train_end(self, logs: Any = None) -> None:
        variable = self.model.trainable_variables[-1]
        variable.assign(keras.ops.ones(variable.shape) * 5)


@pytest.mark.filterwarnings("ignore:Fit . is a new phase")
@pytest.mark.parametrize("alone", [False, True])
def test_what_a_callback_writes_is_seen(alone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result has what ``on_train_end`` wrote; where a fit believes that it runs alone, it has not."""
    if alone:
        if BACKEND == "jax":
            pytest.skip("a look at an array of JAX costs nothing and is never spared")
        monkeypatch.setattr(FitCall, "_is_alone", lambda _: True)
    model, x, y = make("plain_dense")
    with keepfit.Run(model) as run:
        run.fit(x, y, callbacks=[WritesAtTheEnd()], **GIVEN)
        end = state_bits(model)
        run.fit(x, y, **GIVEN)
        run.load(fit=1)
    assert (differing(state_bits(model), end) == []) is not alone


class Failing(keras.layers.Layer):
    """Fails in a step in which it meets a great number."""

    def call(self, x: Any) -> Any:
        if BACKEND == "tensorflow":
            import tensorflow as tf

            with tf.control_dependencies([tf.debugging.assert_less(x, 100.0)]):
                return tf.identity(x)
        if BACKEND == "torch" and float(x.max()) > 100:
            raise ValueError("a great number")
        return x


@pytest.mark.skipif(BACKEND == "jax", reason="its steps do not fail within")
@pytest.mark.filterwarnings("ignore:Fit 2 is a new phase")
def test_a_step_that_fails_leaves_what_was_set_before_the_fit() -> None:
    """What was known of the variables when the fit began is what they hold again, the metrics as they begin."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4), keras.layers.Dense(1), Failing()])
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    _, x, y = make("plain_dense")
    with keepfit.Run(model) as run:
        run.fit(x, y, **GIVEN)
        by_set_weights(model)
        before = state_bits(model)
        with pytest.raises(Exception, match=r"great number|assertion failed"):
            run.fit(x * 1000, y, **GIVEN)
        after = state_bits(model)
    assert [name for name in differing(before, after) if not name.startswith("metrics/")] == []


def programs_made(model: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return a list that grows whenever the model's Python runs, or a program is made."""
    made = []

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def count(*arguments: Any, **named: Any) -> Any:
            made.append(function)
            return function(*arguments, **named)

        return count

    if BACKEND == "torch":
        from keepfit.engine import torch_library

        monkeypatch.setattr(torch_library, "record", counted(torch_library.record))
    else:
        model.train_step = counted(model.train_step)
    if BACKEND == "tensorflow":
        from keepfit.engine import tensorflow

        monkeypatch.setattr(tensorflow, "_Step", counted(tensorflow._Step))
        monkeypatch.setattr(tensorflow, "_Loop", counted(tensorflow._Loop))
    return made


def test_two_hundred_fits_with_other_rates_trace_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first fit none runs the model's Python, nor makes a program."""
    model, x, y = make("dropout_batch_norm")
    made = programs_made(model, monkeypatch)
    with keepfit.Run(model) as run:
        run.fit(x, y, **GIVEN)
        first = len(made)
        for fit in range(200):
            model.optimizer.learning_rate = 1e-2 / (2 + fit % 7)
            run.fit(x, y, **GIVEN)
        assert run.position.fit == 201
    assert first > 0
    assert len(made) == first


def test_schedules_that_are_equal_share_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new object of one of Keras's schedules with the numbers of the last one traces nothing."""
    model, x, y = make("dropout_batch_norm")
    made = programs_made(model, monkeypatch)
    with keepfit.Run(model) as run:
        for fit in range(6):
            rate = keras.optimizers.schedules.ExponentialDecay(1e-2, 10, 0.5)
            run.fit(x, y, **GIVEN, learning_rate=rate)
            if fit == 0:
                first = len(made)
        assert len(made) == first > 0
        run.fit(x, y, **GIVEN, learning_rate=keras.optimizers.schedules.ExponentialDecay(1e-2, 10, 0.25))
        assert len(made) > first


@pytest.mark.filterwarnings("ignore:The learning rate of fit . is zero throughout")
def test_a_schedule_that_is_changed_in_place_is_trained_with() -> None:
    """A number set in a schedule between fits counts from the next step."""
    model, x, y = make("plain_dense")
    rate = keras.optimizers.schedules.ExponentialDecay(1e-2, 10, 0.5)
    with keepfit.Run(model) as run:
        run.fit(x, y, **GIVEN, learning_rate=rate)
        before = model.get_weights()
        rate.initial_learning_rate = 0.0
        run.fit(x, y, **GIVEN)
        assert all(map(np.array_equal, model.get_weights(), before))


@pytest.mark.filterwarnings("ignore:The learning rate of fit . is zero throughout")
def test_rates_between_fits_are_trained_with() -> None:
    """Fits with a rate of zero change no weight, and those between do."""
    model, x, y = make("plain_dense")
    found = []
    with keepfit.Run(model) as run:
        for fit in range(6):
            model.optimizer.learning_rate = 1e-2 * (fit % 2)
            run.fit(x, y, **GIVEN)
            assert run.recorder.fits[fit + 1].learning_rate == pytest.approx(1e-2 * (fit % 2))
            found.append(np.concatenate([weight.ravel() for weight in model.get_weights()]).tobytes())
    assert [one != other for one, other in pairwise(found)] == [True, False, True, False, True]


@pytest.mark.skipif(BACKEND == "jax", reason="a look at an array of JAX costs nothing")
def test_a_fit_that_nobody_watches_looks_at_each_variable_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once before the step and once after it, and once more at the rate."""
    from keepfit import held

    model, x, y = make("plain_dense")
    looks: list[int] = []
    values = held.values

    def counted(variables: Any, *told: Any) -> Any:
        looks.append(len(variables))
        return values(variables, *told)

    with keepfit.Run(model) as run:
        for _ in range(2):
            run.fit(x, y, **GIVEN)
        monkeypatch.setattr(held, "values", counted)
        run.fit(x, y, **GIVEN)
        total = len(run.engine.variables.all())
    assert sum(looks) <= 2 * total + 1
