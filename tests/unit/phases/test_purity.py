"""Which calls of a graph give the same output for the same sample, and which reason stands for the others."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import keras
import pytest

from keepfit import _keras
from keepfit.phases import find_prefix, has_frozen_weights
from keepfit.phases.purity import impurity

layers = keras.layers


def reason(layer: Any, shape: tuple[int, ...] = (6, 6, 2), *, trainable: bool = False) -> str | None:
    """Return why the last call of a graph made of a layer is not the same each time."""
    inputs = keras.Input(shape)
    outputs = layer(inputs)
    if isinstance(layer, layers.Layer):
        layer.trainable = trainable
    return impurity(_keras.graph_nodes(keras.Model(inputs, outputs))[-1])


class Own(layers.Dense):
    """A user's own layer."""


def attention(dropout: float) -> Callable[[Any], Any]:
    """Return frozen attention of a sequence to itself."""
    layer = layers.MultiHeadAttention(2, 2, dropout=dropout, trainable=False)
    return lambda x: layer(x, x)


def added_variable(x: Any) -> Any:
    """Add a variable that no layer has."""
    return x + keras.Variable([[1.0] * 4])


PURE: dict[str, Callable[[], tuple[Any, tuple[int, ...]]]] = {
    "dense": lambda: (layers.Dense(3, activation="gelu"), (4,)),
    "convolution": lambda: (layers.DepthwiseConv2D(3), (6, 6, 2)),
    "frozen batch norm": lambda: (layers.BatchNormalization(), (4,)),
    "layer norm": lambda: (layers.LayerNormalization(), (4,)),
    "pooling": lambda: (layers.GlobalAveragePooling2D(), (6, 6, 2)),
    "reshape": lambda: (layers.Flatten(), (6, 6, 2)),
    "dropout of zero": lambda: (layers.Dropout(0.0), (4,)),
    "recurrent": lambda: (layers.Bidirectional(layers.LSTM(3)), (5, 2)),
    "attention": lambda: (attention(0.0), (5, 4)),
    "sum": lambda: (lambda x: x + x * 2.0, (4,)),
    "activation": lambda: (lambda x: keras.ops.relu(x), (4,)),
    "first token": lambda: (lambda x: x[:, 0], (5, 4)),
}
IMPURE: dict[str, tuple[Callable[[], tuple[Any, tuple[int, ...]]], str]] = {
    "dropout": (lambda: (layers.Dropout(0.1), (4,)), "draws random"),
    "spatial dropout": (lambda: (layers.SpatialDropout2D(0.1), (6, 6, 2)), "draws random"),
    "augmentation": (lambda: (layers.RandomFlip(), (6, 6, 2)), "draws random|not known"),
    "dropout within": (lambda: (layers.LSTM(3, dropout=0.1), (5, 2)), "draws random"),
    "dropout in attention": (lambda: (attention(0.1), (5, 4)), "draws random"),
    "activity": (lambda: (layers.Dense(2, activity_regularizer="l1"), (4,)), "adds to the loss"),
    "activity layer": (lambda: (layers.ActivityRegularization(0.1), (4,)), "adds to the loss"),
    "own class": (lambda: (Own(2), (4,)), "keepfit does not know"),
    "own class within": (lambda: (layers.TimeDistributed(Own(2)), (5, 4)), "keepfit does not know"),
    "own activation": (lambda: (layers.Dense(2, activation=lambda x: x), (4,)), "activation"),
    "lambda": (lambda: (layers.Lambda(lambda x: x), (4,)), "Lambda"),
    "spectral": (lambda: (layers.SpectralNormalization(layers.Dense(2)), (4,)), "not known"),
    "samples mixed": (lambda: (lambda x: x - keras.ops.mean(x, axis=0, keepdims=True), (4,)), "."),
    "samples picked": (lambda: (lambda x: keras.ops.flip(x, axis=0), (4,)), "."),
    "over samples": (lambda: (layers.Softmax(axis=0), (4,)), "axis of the samples"),
    "array": (lambda: (lambda x: x + keras.ops.ones((1, 4)), (4,)), "arrays or variables"),
    "variable": (lambda: (added_variable, (4,)), "arrays or variables"),
}


@pytest.mark.parametrize("name", PURE)
def test_call_that_is_the_same_each_time_is_known(name: str) -> None:
    """It has no reason against it."""
    assert reason(*PURE[name]()) is None


@pytest.mark.parametrize("name", IMPURE)
def test_call_that_may_differ_has_a_reason(name: str) -> None:
    """Random, stateful, unknown and mixing calls are told, also where they are deep inside."""
    maker, words = IMPURE[name]
    inputs = keras.Input(maker()[1])
    made, _ = maker()
    outputs = made(inputs)
    if isinstance(made, layers.Layer):
        made.trainable = False
    found = [impurity(node) for node in _keras.graph_nodes(keras.Model(inputs, outputs))]
    assert any(each is not None for each in found)

    assert any(each is not None and re.search(words, each) for each in found), found


@pytest.mark.parametrize("layer", [layers.Dense(2), layers.BatchNormalization(center=False, scale=False)])
def test_layer_that_trains_is_told(layer: Any) -> None:
    """Weights that train, and statistics of the batch, change what a layer gives."""
    assert reason(layer, (4,), trainable=True) in ("has weights that train", "normalises by the batch that it is in")


def test_prefix_of_a_nested_model_ends_within_it() -> None:
    """The cut runs through a nested model, and tells the path of the layer at which it ends."""
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(2, name="last")], name="inner")
    inner.layers[0].trainable = False
    model = keras.Sequential([keras.Input((4,)), inner, layers.Dense(1)])
    prefix = find_prefix(model)
    assert not isinstance(prefix, str)
    assert [layer.name for layer in prefix.layers] == [inner.layers[0].name]
    assert list(map(str, prefix.blockers)) == ["inner/last has weights that train"]
    assert [tuple(tensor.shape) for tensor in prefix.tensors] == [(None, 3)]


def test_description_is_the_same_for_the_same_model() -> None:
    """Names that count the objects of a process are not in it; settings and wiring are."""

    def described(width: int = 3, *, twice: bool = False) -> Any:
        inputs = keras.Input((4,))
        hidden = layers.Dense(width, trainable=False)(inputs)
        hidden = layers.Add()([hidden, hidden if twice else keras.ops.relu(hidden)])
        prefix = find_prefix(keras.Model(inputs, layers.Dense(1)(hidden)))
        assert not isinstance(prefix, str)
        return prefix.description()

    assert described() == described()
    assert described() != described(5)
    assert described() != described(twice=True)


def test_frozen_weights_are_seen() -> None:
    """Only a weight that was made to train and does not counts; statistics of a batch norm do not."""
    model = keras.Sequential([keras.Input((4,)), layers.BatchNormalization(), layers.Dense(2)])
    assert not has_frozen_weights(model)
    model.layers[0].trainable = False
    assert has_frozen_weights(model)


def test_model_without_frozen_weights_before_a_trained_layer_has_no_prefix() -> None:
    """What only rescales is not worth keeping."""
    last = layers.Dense(1, trainable=False)
    model = keras.Sequential([keras.Input((4,)), layers.Rescaling(2.0), layers.Dense(2, name="first"), last])
    assert find_prefix(model) == (
        "no frozen weights before the first layer that must run in every step: first has weights that train"
    )
