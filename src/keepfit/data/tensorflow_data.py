"""Batches of a ``tf.data.Dataset``, with a state from which another process can read on.

TensorFlow writes the state of an iterator to files: the place in what it
reads, the seeds of its shuffling, and what its buffers hold. At the beginning
of a pass the buffers are empty, and only what is read of such a state brings
back how many passes were begun, which decides the order of the next one.

References:
    ``tf.train.Checkpoint`` of an iterator: https://www.tensorflow.org/guide/data#iterator_checkpointing
"""

from __future__ import annotations

import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keepfit import _keras
from keepfit.data.memory import ObjectMemory

Files = dict[str, bytes]

# To read again what took less time is no loss.
BETWEEN_S = 10.0
# Of the time may be spent on saving states: each takes about 10 ms, and 20 us for each place in a shuffle's buffer.
_SHARE = 0.01
_MOST_SHUFFLED = 20_000
# What the state of an iterator may hold in its buffers, and a data set in its own arrays, in bytes.
_MOST_BUFFERED = 4 << 20
_MOST_IN_MEMORY = 256 << 20
# Elements that a step of a data set which reads ahead is taken to hold.
_AHEAD = 16
_FAIL_ON_STATE = 2  # tf.data's ExternalStatePolicy


class _Traits:
    """What is known of a data set.

    Attributes:
        known: Whether a state of its iterators decides all that follows, and what their buffers may hold, in bytes.
        took_s: How long it took to save the last state.
    """

    def __init__(self) -> None:
        self.known: tuple[bool, int] | None = None
        self.took_s = 0.0


_TRAITS = ObjectMemory(_Traits)


class TensorFlowBatches:
    """One pass over a data set, as batches for the backend in force.

    Args:
        adapter: Keras's adapter of a ``tf.data.Dataset``.
    """

    def __init__(self, adapter: Any) -> None:
        self._dataset = adapter.get_tf_dataset()
        self._iterator = iter(self._dataset)
        self._batches = _keras.foreign_iterator(_keras.adapter_over(adapter, self._iterator))
        self._has_begun = False
        self._beginning: Files | None = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self._has_begun = True
        return next(self._batches)

    def may_be_saved(self, last: float) -> bool:
        """Return whether a state is worth saving now, and is small and whole.

        Args:
            last: When the last one was saved, as ``time.monotonic`` counts.
        """
        traits = _TRAITS.of(self._dataset)
        if time.monotonic() - last < BETWEEN_S + traits.took_s / _SHARE:
            return False
        if traits.known is None:
            traits.known = _traits(self._dataset)
        is_determined, buffered = traits.known
        return is_determined and (not self._has_begun or (self._beginning is not None and buffered <= _MOST_BUFFERED))

    def get_state(self) -> dict[str, Files]:
        """Return where the iterator stands, as plain data: the state at the beginning of the pass, and that of now."""
        began = time.monotonic()
        state = _written(self._iterator)
        if not self._has_begun:
            self._beginning = state
        _TRAITS.of(self._dataset).took_s = time.monotonic() - began
        assert self._beginning is not None
        return {"beginning": self._beginning, **({"now": state} if self._has_begun else {})}

    def set_state(self, state: dict[str, Files]) -> None:
        """Let the iterator stand where another of an equal data set did."""
        self._beginning, self._has_begun = state["beginning"], "now" in state
        if "now" in state:
            _read(self._iterator, state["now"])
        # In this order: the passes that were begun are those of what is read last.
        _read(iter(self._dataset) if "now" in state else self._iterator, state["beginning"])


def shuffles_anew(adapter: Any) -> bool:
    """Return whether every pass over a data set has another order, which the number of passes before decides.

    Args:
        adapter: Keras's adapter of any data set; of Grain's every pass is alike.
    """
    if not _keras.reads_tensorflow(adapter):
        return _keras.is_custom_adapter(adapter)
    tf = sys.modules["tensorflow"]
    dataset = adapter.get_tf_dataset()
    if _bytes_in_memory(dataset) > _MOST_IN_MEMORY:
        return True  # a description of it would repeat them
    steps, _ = _steps(tf.raw_ops.DatasetToGraphV2(input_dataset=tf.data.experimental.to_variant(dataset)))
    shuffles = (node for node in steps if node.op.startswith(("ShuffleDataset", "ShuffleAndRepeatDataset")))
    return any(node.attr["reshuffle_each_iteration"].b for node in shuffles)


def _written(iterator: Any) -> Files:
    tf = sys.modules["tensorflow"]
    with tempfile.TemporaryDirectory(prefix="keepfit-") as place:
        tf.train.Checkpoint(iterator=iterator).write(f"{place}/state")
        return {path.name: zlib.compress(path.read_bytes(), level=1) for path in Path(place).iterdir()}


def _read(iterator: Any, files: Files) -> None:
    tf = sys.modules["tensorflow"]
    with tempfile.TemporaryDirectory(prefix="keepfit-") as place:
        for name, content in files.items():
            (Path(place) / name).write_bytes(zlib.decompress(content))
        tf.train.Checkpoint(iterator=iterator).read(f"{place}/state").assert_consumed()


def _traits(dataset: Any) -> tuple[bool, int]:
    """Return whether an iterator's state decides all that follows, and what its buffers may hold, in bytes.

    It does not where functions have a state of their own (random numbers, Python
    code, variables), where a shuffle has no seed, where threads decide the order,
    where a cache would be part of the state, and where a shuffle begins anew within
    a pass. A state has a place for each sample of a shuffle's buffer, empty or not.
    """
    tf = sys.modules["tensorflow"]
    if dataset.options().deterministic is False or _bytes_in_memory(dataset) > _MOST_IN_MEMORY:
        return False, 0
    try:
        serialised = tf.raw_ops.DatasetToGraphV2(
            input_dataset=tf.data.experimental.to_variant(dataset), external_state_policy=_FAIL_ON_STATE
        )
    except tf.errors.OpError:
        return False, 0
    steps, nodes = _steps(serialised)
    shuffled = sum(_number(node.input[1], nodes) for node in steps if node.op.startswith("ShuffleDataset"))
    # Which order a repetition inside a pass has is decided while the pass goes on, and its state does not hold it.
    within = any(node.op.startswith(("RepeatDataset", "ConcatenateDataset")) for node in steps)
    if shuffled > _MOST_SHUFFLED or (shuffled and within) or any(_is_undetermined(node, nodes) for node in steps):
        return False, 0
    return True, sum(_buffered(node, nodes) for node in steps if "Dataset" in node.op)


def _steps(serialised: Any) -> tuple[list[Any], dict[str, Any]]:
    """Return the operations of a data set that was written as a graph, those in functions too; and by name the others.

    Args:
        serialised: The graph.
    """
    graph = sys.modules["tensorflow"].compat.v1.GraphDef.FromString(serialised.numpy())
    inner = (node for function in graph.library.function for node in function.node_def)
    return [*graph.node, *inner], {node.name: node for node in graph.node}


def _is_undetermined(node: Any, nodes: dict[str, Any]) -> bool:
    if node.op.startswith(("CacheDataset", "RandomDataset", "ShuffleAndRepeatDataset")):
        return True
    if node.attr["deterministic"].s == b"false" or node.attr["sloppy"].b:
        return True
    return node.op.startswith("ShuffleDataset") and not any(_number(name, nodes) for name in node.input[2:4])


def _buffered(node: Any, nodes: dict[str, Any]) -> int:
    """Return what a step may hold, in bytes; more than may be saved where that is not known."""
    tf = sys.modules["tensorflow"]
    size = 0
    shapes, types = node.attr["output_shapes"].list.shape, node.attr["output_types"].list.type
    for shape, kind in zip(shapes, types, strict=False):
        extents = [dimension.size for dimension in shape.dim]
        if shape.unknown_rank or any(extent < 0 for extent in extents[1:]):
            return _MOST_BUFFERED + 1
        elements = 1
        for extent in extents:
            elements *= extent if extent >= 0 else 1024  # the batch, the last one of which may be smaller
        size += elements * max(tf.dtypes.as_dtype(kind).size or 64, 1)
    count = _number(node.input[1], nodes) if node.op.startswith("ShuffleDataset") else _AHEAD
    return size * (count or _MOST_BUFFERED + 1)


def _number(name: str, nodes: dict[str, Any]) -> int:
    """Return the number in a constant; 0 where it is none."""
    tf = sys.modules["tensorflow"]
    node = nodes.get(name.split(":")[0])
    return int(tf.make_ndarray(node.attr["value"].tensor)) if node is not None and node.op == "Const" else 0


def _bytes_in_memory(dataset: Any) -> int:
    """Return the size of the arrays that a data set was made of, which its description repeats."""
    # To look at their contents would be to copy them.
    held = sum((tensor.shape.num_elements() or 0) * tensor.dtype.size for tensor in getattr(dataset, "_tensors", ()))
    inputs = dataset._inputs() if hasattr(dataset, "_inputs") else ()
    return int(held) + sum(_bytes_in_memory(each) for each in inputs)
