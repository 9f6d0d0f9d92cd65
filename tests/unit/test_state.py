"""Names of variables mean the same whatever a process has made before."""

from __future__ import annotations

from typing import Any

import keras

from keepfit.state import variables_of


class Counting(keras.layers.Layer):
    """Holds variables that nobody named."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = keras.Variable(1.0)
        self.calls = keras.Variable(0.0, trainable=False)

    def build(self, shape: Any) -> None:
        self.shift = self.add_weight(shape=(), initializer="zeros")

    def call(self, x: Any) -> Any:
        return x * self.scale + self.shift


class OwnMetric(keras.metrics.Metric):
    """A metric without a name, with a variable that has none either."""

    def __init__(self) -> None:
        super().__init__()
        self.total = self.add_variable(shape=(), initializer="zeros")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.total.assign_add(1.0)

    def result(self) -> Any:
        return self.total + 0.0


def make() -> Any:
    model = keras.Sequential([keras.Input((2,)), Counting(), keras.layers.Dense(1), Counting()])
    model.compile("adam", "mse", metrics=[OwnMetric()])
    model.build((None, 2))
    model.optimizer.build(model.trainable_variables)
    model._compile_metrics.build(keras.ops.ones((2, 1)), keras.ops.ones((2, 1)))
    return model


def test_variables_without_a_name_are_named_by_their_place() -> None:
    """A second model of the same kind in one process has the names of the first, as a new process would."""
    first, second = variables_of(make()), variables_of(make())
    assert first.names == second.names
    assert len(set(first.names)) == len(first.names)
    assert "model/counting/variable" in first.names
