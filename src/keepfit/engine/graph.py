"""What a traced function of TensorFlow is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import ops

from keepfit import nested

# Their generator lies in the running operation, where nobody can read or set it.
_HIDDEN_STATE = frozenset(
    {
        "Multinomial",
        "ParameterizedTruncatedNormal",
        "RandomGamma",
        "RandomPoisson",
        "RandomPoissonV2",
        "RandomShuffle",
        "RandomStandardNormal",
        "RandomUniform",
        "RandomUniformInt",
        "TruncatedNormal",
    }
)
_SLOW_IN_LOOPS = ("Conv", "Random")
_OWN_GRADIENT = "_gradient_op_type"


def operations(function: Any) -> frozenset[str]:
    """Return the kinds of operations in a concrete function and in all that it calls."""
    graph = function.graph.as_graph_def()
    kinds = {node.op for node in graph.node}
    for inner in graph.library.function:
        kinds.update(node.op for node in inner.node_def)
    return frozenset(kinds)


def hidden_generators(kinds: Iterable[str]) -> list[str]:
    """Return the operations that draw from a generator of their own, which cannot be kept."""
    return sorted(_HIDDEN_STATE.intersection(kinds))


def is_slow_in_compiled_loop(kinds: Iterable[str]) -> bool:
    """Return whether XLA's CPU compiler makes one of these operations several times slower inside a loop.

    Convolutions: 20 ms against 4 ms a step for a small net. Random numbers: 3
    layers of dropout over 8,192 numbers take 9 ms inside and 0.4 ms outside.
    """
    return any(word in kind for kind in kinds for word in _SLOW_IN_LOOPS)


def has_summary_writer() -> bool:
    """Return whether a step that is traced now writes its summaries (``tf.summary``) anywhere."""
    with tf.summary.record_if(True):
        return bool(tf.summary.should_record_summaries())


def writes_summaries(kinds: Iterable[str]) -> bool:
    """Return whether any operation writes to the summary writer that was there when it was traced."""
    return "WriteSummary" in kinds


def forget_gradients(function: Any) -> None:
    """Let go of the gradients that TensorFlow registers for good for a function that was traced to its end.

    Each operation with a gradient of its own (``tf.custom_gradient``; Keras's sum over replicas is one) is
    registered under a name of its own, and holds the whole graph. Whoever needed these gradients took them while
    the step was traced: nobody differentiates a training step.
    """
    registered = getattr(getattr(ops, "gradient_registry", None), "_registry", {})
    for operation in function.graph.get_operations():
        name = operation.node_def.attr[_OWN_GRADIENT].s.decode() if _OWN_GRADIENT in operation.node_def.attr else ""
        if name.startswith("CustomGradient-"):
            registered.pop(name, None)


def foreign_variables(function: Any, known: Iterable[Any]) -> list[str]:
    """Return the names of variables that a concrete function uses besides the known ones."""
    ours = {id(variable) for variable in known}
    return sorted(variable.name for variable in function.graph.variables if id(variable) not in ours)


def call_of(function: Any) -> Callable[..., Any]:
    """Return a concrete function as one that takes its tensors as they are.

    Where tensors are sparse or ragged, and where TensorFlow has no such inner
    function, it is the function itself.

    Args:
        function: A concrete function whose arguments are positional.
    """
    outputs = tf.nest.flatten(function.structured_outputs)
    specs = [*tf.nest.flatten(function.structured_input_signature), *outputs]
    dense = all(isinstance(each, (tf.Tensor, tf.TensorSpec)) for each in specs)
    inner = getattr(getattr(function, "_inference_function", None), "call_flat", None)
    captured = getattr(function, "_captured_inputs", None)
    if not dense or inner is None or captured is None or not all(map(tf.is_tensor, captured)):
        return function  # type: ignore[no-any-return]
    return _Call(function, inner, list(captured), count=len(outputs))


class _Call:
    """A concrete function past what TensorFlow does to find out, each time, which argument goes where.

    That takes half as long as the step of a small net. A gradient tape around
    it records nothing: nobody differentiates a training step.
    """

    def __init__(self, function: Any, inner: Callable[..., Any], captured: list[Any], *, count: int) -> None:
        self._function = function  # whoever lets go of it takes its graph apart
        self._inner = inner
        self._captured = captured
        self._places = tf.nest.pack_sequence_as(function.structured_outputs, list(range(count)))

    def __call__(self, *tensors: Any) -> Any:
        found = self._inner(*tensors, *self._captured)
        return nested.map_structure(found.__getitem__, self._places)
