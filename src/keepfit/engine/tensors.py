"""Host arrays as tensors of TensorFlow, and what a compiled program must know of them."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keepfit import nested
from keepfit.aligned import is_aligned
from keepfit.engine.host import owned

# Dtypes that both sides of DLPack know; the rest is copied.
_EXCHANGED = frozenset("fiu")
_COMPOSITE = (tf.SparseTensor, tf.RaggedTensor, tf.IndexedSlices)


def tensor(array: Any) -> Any:
    """Return an array as a tensor, without a copy where TensorFlow can read its memory; nobody may write it then.

    Args:
        array: A NumPy array, a tensor (dense, sparse or ragged) or anything else that TensorFlow converts.
    """
    if isinstance(array, np.ndarray) and array.dtype.kind in _EXCHANGED and array.size:
        # TensorFlow ends the process over memory that is not aligned. Its own conversion takes ten times as long.
        array = array if is_aligned(array) and array.flags.c_contiguous and array.flags.writeable else owned(array)
        return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
    return array if _is_tensor(array) else tf.convert_to_tensor(array)


def own_tensor(leaf: Any) -> Any:
    """Return a batch's leaf as a tensor that its source cannot write into; None stays None."""
    if leaf is None:
        return None
    return tensor(owned(leaf) if isinstance(leaf, np.ndarray) and leaf.dtype.kind in _EXCHANGED else leaf)


def host_output(value: Any) -> Any:
    """Return an output of a model as a NumPy array; a sparse or ragged one stays a tensor, as in Keras."""
    return value if isinstance(value, (tf.SparseTensor, tf.RaggedTensor)) else keras.ops.convert_to_numpy(value)


def concatenated(*parts: Any) -> Any:
    """Return one output of several batches as one.

    Args:
        parts: What `host_output` gave for each batch, first axis samples; all of one kind.

    Returns:
        An array where the parts differ on the first axis alone, a ragged
        tensor where they differ on others, a sparse one where they are.
    """
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], tf.SparseTensor):
        return tf.sparse.concat(axis=0, sp_inputs=list(parts))
    if isinstance(parts[0], tf.RaggedTensor):
        return tf.concat(parts, axis=0)
    shapes = {np.shape(part)[1:] for part in parts}
    if len(shapes) == 1:
        return np.concatenate(parts) if np.ndim(parts[0]) else np.stack(parts)
    last = max(axis for axis, lengths in enumerate(zip(*shapes, strict=True), start=1) if len(set(lengths)) > 1)
    return tf.concat([tf.RaggedTensor.from_tensor(part, ragged_rank=last) for part in parts], axis=0)


def is_dense(leaf: Any) -> bool:
    """Return whether a leaf of a batch is a dense array of numbers."""
    if type(leaf) is np.ndarray:
        return leaf.dtype.kind not in "OSU"
    if not hasattr(leaf, "dtype") or not hasattr(leaf, "shape") or isinstance(leaf, _COMPOSITE):
        return False
    return leaf.dtype != tf.string and getattr(leaf.dtype, "kind", "f") not in "OSU"


class Spec:
    """Structure, shapes and dtypes of a batch: what a program is traced for.

    Args:
        structure: A nested structure of tensors or arrays; None is a leaf.
    """

    __slots__ = ("_forms", "_key", "_places", "_structure")

    def __init__(self, structure: Any) -> None:
        leaves = nested.flatten(structure)
        self._places = [index for index, leaf in enumerate(leaves) if leaf is not None]
        self._structure = nested.map_structure(lambda _: None, structure)
        self._forms = [_form_of(leaves[index]) for index in self._places]
        self._key = (repr(self._structure), tuple(self._places), tuple(self._forms))

    @property
    def types(self) -> list[Any]:
        """What TensorFlow calls the leaves; to make and compare these takes long, and a fit call only compares."""
        return [tf.TensorSpec(form[0], form[1]) if type(form) is tuple else form for form in self._forms]

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spec) and self._key == other._key

    def pack(self, tensors: Sequence[Any]) -> Any:
        """Return tensors in the structure."""
        leaves: list[Any] = [None] * len(nested.flatten(self._structure))
        for index, leaf in zip(self._places, tensors, strict=True):
            leaves[index] = leaf
        return nested.pack_sequence_as(self._structure, leaves)


def leaves_of(structure: Any) -> list[Any]:
    """Return the leaves of a structure in the order of a `Spec`'s types."""
    return [leaf for leaf in nested.flatten(structure) if leaf is not None]


def bytes_of(structure: Any) -> int:
    """Return the size of the dense leaves of a batch."""
    return sum(math.prod(leaf.shape) * _item_bytes(leaf.dtype) for leaf in leaves_of(structure) if is_dense(leaf))


def row_bytes(arrays: Any) -> int:
    """Return the size of one sample in the dense leaves of arrays whose first axis is samples."""
    return sum(math.prod(leaf.shape[1:]) * _item_bytes(leaf.dtype) for leaf in leaves_of(arrays) if is_dense(leaf))


def _item_bytes(dtype: Any) -> int:
    return int(getattr(dtype, "itemsize", None) or getattr(dtype, "size", 0) or 1)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, (tf.Tensor, *_COMPOSITE))


def _form_of(leaf: Any) -> Any:
    """Return shape and dtype of a leaf, or its type where it has more to it than these."""
    if isinstance(leaf, tf.SparseTensor):
        return tf.SparseTensorSpec(leaf.shape, leaf.dtype)
    if isinstance(leaf, tf.RaggedTensor):
        # The lengths of rows differ from batch to batch.
        return tf.RaggedTensorSpec(leaf.shape, leaf.dtype, leaf.ragged_rank, leaf.row_splits.dtype)
    return tuple(leaf.shape), _number_of(leaf.dtype)


@functools.cache
def _number_of(dtype: Any) -> int:
    """Return the number that TensorFlow has for a dtype of its own or of NumPy; to look it up takes a while."""
    return int(tf.as_dtype(dtype).as_datatype_enum)
