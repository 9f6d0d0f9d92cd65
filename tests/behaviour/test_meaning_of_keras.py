"""P6: what is valid for Keras is valid here, with the same meaning."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

import keepfit
from tests.models import DRAWS_AS_KERAS, make, regression_data

# Another program for the same arithmetic: XLA may fuse and order sums differently.
ROUNDING = {"rtol": 2e-4, "atol": 2e-5}


def both(name: str, **arguments: Any) -> tuple[Any, Any, Any, Any]:
    """Fit the same model with Keras and with keepfit, in the same order of samples; return histories and models."""
    given = {"batch_size": 10, "epochs": 3, "verbose": 0, "shuffle": False, **arguments}
    plain, x, y = make(name)
    expected = plain.fit(x, y, **given)
    model, x, y = make(name)
    with keepfit.Run(model) as run:
        found = run.fit(x, y, **given)
    return expected, found, plain, model


def assert_alike(expected: Any, found: Any, plain: Any, model: Any, *, ordered: bool = True) -> None:
    """Check that histories have the same form and, to rounding, the same numbers; weights too."""
    assert found.epoch == expected.epoch
    order = list if ordered else sorted
    assert order(found.history) == order(expected.history)
    for metric, values in expected.history.items():
        np.testing.assert_allclose(found.history[metric], values, err_msg=metric, **ROUNDING)
    for mine, theirs in zip(model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, **ROUNDING)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("name", DRAWS_AS_KERAS)
def test_fit_gives_what_keras_gives(name: str) -> None:
    """One fit gives the logs, epochs and weights of Keras's own."""
    assert_alike(*both(name))


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize(
    "arguments",
    [
        {"validation_split": 0.3},
        {"validation_split": 0.3, "validation_freq": 2, "validation_batch_size": 5},
        {"validation_split": 0.3, "validation_freq": [1, 3], "validation_steps": 2},
        {"steps_per_epoch": 3},
        {"initial_epoch": 1},
        {"epochs": 0},
        {"sample_weight": np.linspace(0.1, 2.0, 70)},
        {"batch_size": 33},
        {"batch_size": None},
        {"batch_size": 1000},
    ],
    ids=lambda arguments: "-".join(arguments),
)
def test_arguments_mean_what_they_mean_in_keras(arguments: dict[str, Any]) -> None:
    """Validation, steps, weights and batch sizes give what Keras gives."""
    assert_alike(*both("plain_dense", **arguments))


def test_class_weight_means_what_it_means_in_keras() -> None:
    """Class weights give what Keras gives."""

    def model() -> Any:
        keras.utils.set_random_seed(1)
        made = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, activation="softmax")])
        made.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], weighted_metrics=["accuracy"])
        return made

    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(50, 6)).astype("float32"), generator.integers(0, 3, 50)
    given = {"class_weight": {0: 1.0, 1: 4.0, 2: 0.2}, "epochs": 2, "verbose": 0, "shuffle": False}
    plain, mine = model(), model()
    expected = plain.fit(x, y, **given)
    with keepfit.Run(mine) as run:
        assert_alike(expected, run.fit(x, y, **given), plain, mine)


class Extremes(keras.metrics.Metric):
    """A metric whose result is a dict."""

    def __init__(self) -> None:
        super().__init__(name="extremes")
        self.sums = self.add_weight(shape=(2,), initializer="zeros", name="sums")

    def update_state(self, y: Any, outputs: Any, sample_weight: Any = None) -> None:
        self.sums.assign_add(keras.ops.stack([keras.ops.max(y), keras.ops.min(outputs)]))

    def result(self) -> Any:
        # Not parts of the variable itself: Keras reads those on PyTorch only after validation has changed it.
        return {"most": self.sums[0] + 0.0, "least": self.sums[1] + 0.0}


class Nested(keras.Model):
    """A training step whose logs are dicts in a dict, and have nothing called ``"loss"``."""

    def __init__(self) -> None:
        super().__init__()
        self.out = keras.layers.Dense(1)

    def call(self, x: Any) -> Any:
        return self.out(x)

    def train_step(self, *given: Any) -> Any:
        logs = super().train_step(*given)
        return _told(logs) if isinstance(logs, dict) else (_told(logs[0]), logs[1])


def _told(logs: Any) -> Any:
    return {"losses": {"whole": logs["loss"], "half": {"half": logs["loss"] / 2}}, "mae": logs["mae"]}


@pytest.mark.parametrize("kind", ["standard", "own step"])
def test_logs_of_dicts_are_flat_as_in_keras(kind: str) -> None:
    """Metrics and steps that give dicts are logged under the names in these, wherever logs are given."""

    def model() -> Any:
        keras.utils.set_random_seed(1)
        made = Nested() if kind == "own step" else keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
        made.compile("adam", "mse", metrics=["mae", Extremes()])
        return made

    x, y = regression_data(50)
    given = {"epochs": 2, "verbose": 0, "shuffle": False, "batch_size": 10, "validation_data": (x[:7], y[:7])}
    plain, mine = model(), model()
    expected = plain.fit(x, y, **given)
    assert {"val_most", "val_least", "half" if kind == "own step" else "most"} <= expected.history.keys()
    with keepfit.Run(mine) as run:
        # Keras sorts the dicts before it flattens them, keepfit after that.
        assert_alike(expected, run.fit(x, y, **given), plain, mine, ordered=False)
        for name in ("evaluate", "test_on_batch", "train_on_batch"):
            quiet = {"verbose": 0} if name == "evaluate" else {}
            plain.reset_metrics()
            np.testing.assert_allclose(
                getattr(run, name)(x, y, **quiet), getattr(plain, name)(x, y, **quiet), err_msg=name, **ROUNDING
            )


@pytest.mark.parametrize("how", [{"run_eagerly": True}, {"jit_compile": False}, {"steps_per_execution": 3}])
def test_compile_options_mean_what_they_mean_in_keras(how: dict[str, Any]) -> None:
    """Eager mode and several steps per execution give what Keras gives."""
    if keras.backend.backend() == "torch" and "steps_per_execution" in how:
        pytest.skip("Keras has no steps_per_execution on PyTorch")

    def model() -> tuple[Any, Any, Any]:
        made, x, y = make("plain_dense")
        made.compile("adam", "mse", metrics=["mae"], **how)
        return made, x, y

    plain, x, y = model()
    given = {"batch_size": 10, "epochs": 2, "verbose": 0, "shuffle": False}
    expected = plain.fit(x, y, **given)
    mine, x, y = model()
    with keepfit.Run(mine) as run:
        assert_alike(expected, run.fit(x, y, **given), plain, mine)


@pytest.mark.parametrize("name", ["dropout_batch_norm", "two_in_two_out", "convolution"])
def test_evaluate_and_predict_give_what_keras_gives(name: str) -> None:
    """Evaluating and predicting give Keras's numbers, in Keras's form."""
    plain, x, y = make(name)
    model, x, y = make(name)
    # Where Keras does not know a batch's length (TensorFlow), it weighs the losses of several outputs by batches.
    size = 14 if keras.backend.backend() == "tensorflow" and name == "two_in_two_out" else 16
    expected = (
        plain.evaluate(x, y, batch_size=size, verbose=0),
        plain.evaluate(x, y, verbose=0, return_dict=True, steps=2),
    )
    outputs = plain.predict(x, batch_size=16, verbose=0)
    with keepfit.Run(model) as run:
        found = run.evaluate(x, y, batch_size=size, verbose=0), run.evaluate(x, y, verbose=0, return_dict=True, steps=2)
        mine = run.predict(x, batch_size=16, verbose=0)
    np.testing.assert_allclose(found[0], expected[0], **ROUNDING)
    assert list(found[1]) == list(expected[1])
    np.testing.assert_allclose(list(found[1].values()), list(expected[1].values()), **ROUNDING)
    for one, other in zip(keras.tree.flatten(mine), keras.tree.flatten(outputs), strict=True):
        assert isinstance(one, np.ndarray)
        np.testing.assert_allclose(one, other, **ROUNDING)


def test_train_on_batch_gives_what_keras_gives() -> None:
    """Single batches give the numbers and weights of the newest Keras: earlier ones averaged over calls."""
    plain, x, y = make("dropout_batch_norm")
    expected = []
    for _ in range(3):
        plain.reset_metrics()
        expected.append(plain.train_on_batch(x[:16], y[:16]))
    plain.reset_metrics()
    last = plain.train_on_batch(x, y, sample_weight=np.linspace(0, 1, 70), return_dict=True)
    model, x, y = make("dropout_batch_norm")
    with keepfit.Run(model) as run:
        found = [run.train_on_batch(x[:16], y[:16]) for _ in range(3)]
        mine = run.train_on_batch(x, y, sample_weight=np.linspace(0, 1, 70), return_dict=True)
        assert run.position.step == 4
    np.testing.assert_allclose(found, expected, **ROUNDING)
    assert list(mine) == list(last)
    for one, other in zip(model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, **ROUNDING)


def test_evaluate_leaves_the_training_metrics_as_they_are() -> None:
    """Evaluating, predicting and validating change no metric of the training."""
    model, x, y = make("plain_dense")
    with keepfit.Run(model) as run:
        run.fit(x, y, verbose=0)
        before = [np.asarray(v.value) for v in model.metrics_variables]
        run.evaluate(x[:5], y[:5], verbose=0)
        run.predict(x[:5], verbose=0)
        after = [np.asarray(v.value) for v in model.metrics_variables]
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))


def test_unbuilt_subclassed_model_is_built_by_fit_and_by_predict() -> None:
    """A model without variables gets them from the data, as in Keras."""

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(1)

        def call(self, x: Any) -> Any:
            return self.dense(x)

    x, y = np.ones((8, 3), "float32"), np.ones((8, 1), "float32")
    for first in ("fit", "predict"):
        model = Model()
        model.compile("sgd", "mse")
        with keepfit.Run(model) as run:
            if first == "predict":
                assert run.predict(x, verbose=0).shape == (8, 1)
            assert run.fit(x, y, epochs=2, verbose=0).epoch == [0, 1]


@pytest.mark.parametrize("kind", ["float64", "pandas", "jax", "lists", "float16"])
def test_every_kind_of_array_trains(kind: str) -> None:
    """Arrays of every library give the weights that NumPy's float32 gives, to the precision of the kind."""
    import jax.numpy as jnp

    convert = {
        "float64": lambda a: a.astype("float64"),
        "pandas": pd.DataFrame,
        "jax": jnp.asarray,
        "lists": lambda a: a.astype("float32"),
        "float16": lambda a: a.astype("float16"),
    }[kind]
    model, x, y = make("plain_dense")
    with keepfit.Run(model) as run:
        run.fit(convert(x), convert(y), epochs=2, verbose=0)
    reference, x, y = make("plain_dense")
    with keepfit.Run(reference) as run:
        run.fit(x, y, epochs=2, verbose=0)
    tolerance = {"atol": 2e-3} if kind == "float16" else {"atol": 1e-6}
    for one, other in zip(model.get_weights(), reference.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, **tolerance)


def test_epochs_are_capped_as_keras_caps_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """``keras.config.set_max_epochs`` limits a fit, with Keras's warning."""
    model, x, y = make("plain_dense")
    keras.config.set_max_epochs(2)
    try:
        with keepfit.Run(model) as run, pytest.warns(UserWarning, match="Limiting epochs to 2"):
            assert run.fit(x, y, epochs=5, verbose=0).epoch == [0, 1]
    finally:
        keras.config.set_max_epochs(None)
