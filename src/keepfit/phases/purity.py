"""Whether a layer gives the same output for the same sample, however often and in whatever company it is called."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from keepfit import _keras

# Families of Keras's own layers whose code was read: what they give depends on the sample and their weights alone,
# but for what `layer_impurity` asks after.
_FAMILIES = (
    "activations.",
    "attention.",
    "convolutional.",
    "core.dense",
    "core.einsum_dense",
    "core.embedding",
    "core.identity",
    "core.input_layer",
    "core.masking",
    "merging.",
    "normalization.batch_normalization",
    "normalization.group_normalization",
    "normalization.layer_normalization",
    "normalization.rms_normalization",
    "normalization.unit_normalization",
    "pooling.",
    "preprocessing.category_encoding",
    "preprocessing.discretization",
    "preprocessing.image_preprocessing.center_crop",
    "preprocessing.image_preprocessing.resizing",
    "preprocessing.normalization",
    "preprocessing.rescaling",
    "regularization.",
    "reshaping.",
    "rnn.",
)
_LAYERS = "keras.src.layers."
# Operations of a graph (``x + y``, ``keras.ops.relu(x)``) that treat every number by itself.
_ELEMENTWISE = frozenset(
    {
        "Abs", "Absolute", "Add", "Cast", "Clip", "Cos", "Divide", "Elu", "Equal", "Exp", "Gelu", "Greater",
        "HardSigmoid", "HardSilu", "LeakyRelu", "Less", "Log", "Log1p", "LogicalAnd", "LogicalNot", "LogicalOr",
        "Maximum", "Minimum", "Multiply", "Negative", "NotEqual", "Power", "Relu", "Relu6", "Rsqrt", "Sigmoid",
        "Sign", "Silu", "Sin", "Softplus", "Softsign", "Sqrt", "Square", "Subtract", "Tanh", "TrueDivide",
    }
)  # fmt: skip
_NUMBERS = (int, float, bool, str, type(None))
_RATES = ("dropout", "recurrent_dropout")


def impurity(node: Any) -> str | None:
    """Return why a call in a graph may give another output for the same sample; None where it cannot.

    Args:
        node: A call of a layer that is no model, or of an operation.
    """
    operation = node.operation
    if any(tensor.shape is None or not tensor.shape or tensor.shape[0] is not None for tensor in node.outputs):
        return "gives a tensor whose first axis is not that of the samples"
    if any(getattr(tensor, "sparse", False) or getattr(tensor, "ragged", False) for tensor in node.outputs):
        return "gives a sparse or ragged tensor"
    if not all(isinstance(leaf, (*_NUMBERS, keras.KerasTensor)) for leaf in _leaves(_keras.node_arguments(node))):
        return "is given arrays or variables beside the sample"
    if isinstance(operation, keras.layers.Layer):
        return layer_impurity(operation)
    return _operation_impurity(node)


def layer_impurity(layer: Any) -> str | None:
    """Return why a layer may give another output for the same sample; None where it cannot."""
    if layer.trainable_variables:
        return "has weights that train"
    for part in _with_parts(layer):
        found = _own_impurity(part)
        if found is not None:
            return found
    return None


def _own_impurity(layer: Any) -> str | None:
    kind: Any = type(layer)
    module = kind.__module__
    if not module.startswith(_LAYERS):
        return f"is a {kind.__name__}, whose code keepfit does not know"
    _, generators, metrics, _ = _keras.layer_parts(layer)
    if generators and not _never_draws(layer):
        return "draws random numbers"
    if not module.removeprefix(_LAYERS).startswith(_FAMILIES):
        return f"is a {kind.__name__}, which is not known to give the same output each time"
    if "call" in vars(layer):
        return "has a call of its own"
    if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable:
        return "normalises by the batch that it is in"
    if getattr(layer, "stateful", False):
        return "keeps a state from batch to batch"
    if layer.activity_regularizer is not None or isinstance(layer, keras.layers.ActivityRegularization):
        return "adds to the loss"
    if metrics:
        return "counts a metric"
    if getattr(layer.dtype_policy, "quantization_mode", None) is not None:
        return "is quantized"
    if _takes_first_axis(layer):
        return "works over the axis of the samples"
    if not all(map(_is_known_function, (getattr(layer, f"{name}activation", None) for name in ("", "recurrent_")))):
        return "has an activation whose code keepfit does not know"
    return None


def _never_draws(layer: Any) -> bool:
    """Return whether a layer has its generators for nothing: cells make them whatever their rates."""
    rates = [getattr(layer, name) for name in _RATES if hasattr(layer, name)]
    return type(layer).__module__.startswith(f"{_LAYERS}rnn.") and bool(rates) and not any(rates)


def _takes_first_axis(layer: Any) -> bool:
    axes = [getattr(layer, name, None) for name in ("axis", "axes")]
    flat = [axis for value in axes for axis in (value if isinstance(value, (list, tuple)) else [value])]
    return any(axis == 0 and not isinstance(axis, bool) for axis in flat)


def _is_known_function(function: Any) -> bool:
    if function is None or isinstance(function, (keras.layers.Layer, str)):
        return True  # layers are looked at by themselves
    module = getattr(function, "__module__", None) or type(function).__module__
    return str(module).startswith("keras.")


def _operation_impurity(node: Any) -> str | None:
    operation = node.operation
    name = type(operation).__name__
    unknown = f"is keras.ops' {name}, which is not known to treat each sample by itself"
    if not type(operation).__module__.startswith("keras.src.ops."):
        return f"is a {name}, whose code keepfit does not know"
    if name == "GetItem":
        args, kwargs = _keras.node_arguments(node)
        key = args[1] if len(args) > 1 else kwargs.get("key")
        whole = isinstance(key, tuple) and key and isinstance(key[0], slice) and key[0] == slice(None)
        return None if whole else "takes samples apart"
    if name not in _ELEMENTWISE:
        return unknown
    ranks = {len(tensor.shape) for tensor in (*node.input_tensors, *node.outputs)}
    return None if len(ranks) == 1 else unknown


def _with_parts(layer: Any) -> Iterator[Any]:
    yield layer
    for inner in _keras.layer_parts(layer)[3]:
        yield from _with_parts(inner)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _leaves(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _leaves(inner)
    elif isinstance(value, slice):
        yield from (value.start, value.stop, value.step)
    elif value is not Ellipsis:
        yield value
