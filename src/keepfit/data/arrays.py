"""Arrays as a source: any sample at any time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keepfit import nested
from keepfit.data.checks import check_array_like, check_rows, named_leaves
from keepfit.data.columns import Column, DenseColumn, MappedColumn, Rows, StoreColumn, column, is_mapped
from keepfit.data.order import SampleOrder
from keepfit.data.source import IndexedSource
from keepfit.data.weights import sample_weights
from keepfit.errors import warn

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEFAULT_BATCH_SIZE = 32  # Keras's


class ArraySource(IndexedSource):
    """Samples in arrays or nested structures of them.

    Args:
        columns: The batch structure, its leaves columns or None.
        batch_size: Samples in a batch, 1 or more.
        seed: Seed of the orders, 0 or more.
        shuffle: True (all samples), ``"batch"`` (within each batch, as Keras 3 does) or False.
    """

    exactness = "exact"
    takes_inputs = True

    def __init__(self, columns: Any, *, batch_size: int, seed: int, shuffle: bool | str) -> None:
        self._columns = columns
        self._seed = seed
        self._shuffle = shuffle
        leaves: list[Column] = [leaf for leaf in nested.flatten(columns) if leaf is not None]
        self.num_samples = leaves[0].shape[0]
        self.batch_size = batch_size
        self.num_batches = -(-self.num_samples // batch_size)
        self.size_bytes = sum(leaf.size_bytes for leaf in leaves)
        if all(isinstance(leaf, DenseColumn) for leaf in leaves):
            self.arrays = nested.map_structure(lambda leaf: leaf.array, columns, none_is_leaf=False)
            self.resident = True
        self.is_dense = all(isinstance(leaf, (DenseColumn, MappedColumn, StoreColumn)) for leaf in leaves)
        self._order = SampleOrder(seed, self.num_samples, batch_size=batch_size, shuffle=shuffle)

    @classmethod
    def of(
        cls,
        x: Any,
        y: Any,
        sample_weight: Any,
        *,
        batch_size: int | None,
        steps: int | None,
        shuffle: bool | str,
        class_weight: Mapping[int, float] | None,
        seed: int,
        mapped_bytes: int,
    ) -> ArraySource:
        """Return arrays as a source.

        Args:
            x: Inputs.
            y: Targets, or None.
            sample_weight: Weights, or None.
            batch_size: Samples in a batch; None divides the samples among ``steps``, or means 32.
            steps: Batches in an epoch, or None.
            shuffle: True, False or ``"batch"``.
            class_weight: Class number -> weight, or None.
            seed: Seed of the orders.
            mapped_bytes: Largest memory-mapped array that is read into memory.

        Raises:
            InvalidData: The arrays do not fit together, or a model cannot be trained on them.
        """
        given = named_leaves(x=x, y=y, sample_weight=sample_weight)
        check_array_like(given)
        count = check_rows(given)
        weights = sample_weights(y, sample_weight, class_weight)
        if y is None and weights is not None:
            warn("sample_weight was given without y: it is ignored, as in Keras.", UserWarning)
        parts = {"x": x} if y is None else {"x": x, "y": y}
        if y is not None and weights is not None:
            parts["sample_weight"] = weights
        columns = [_columns(name, part, mapped_bytes) for name, part in parts.items()]
        size = batch_size or default_batch_size(count, steps)
        packed = keras.utils.pack_x_y_sample_weight(*columns)
        return cls(packed, batch_size=size, seed=seed, shuffle=shuffle)

    def peek(self) -> Any:
        """Return the first samples, unshuffled."""
        return self._take(slice(0, min(self.batch_size, self.num_samples)))

    def take(self, indices: NDArray[np.int64]) -> Any:
        """Return samples; those that lie in a row are a view."""
        return self._take(_run(indices))

    def order(self, number: int, start: int, stop: int) -> NDArray[np.int64]:
        """Return a stretch of the order of one pass."""
        return self._order.stretch(number, start, stop)

    def with_inputs(self, inputs: Any) -> ArraySource:
        """Return the same samples in the same orders with other inputs; memory-mapped ones stay on disk."""
        columns = nested.map_structure(lambda a: MappedColumn(a) if is_mapped(a) else DenseColumn(a), inputs)
        _, *others = keras.utils.unpack_x_y_sample_weight(self._columns)
        packed = keras.utils.pack_x_y_sample_weight(columns, *others)
        return ArraySource(packed, batch_size=self.batch_size, seed=self._seed, shuffle=self._shuffle)

    def _take(self, rows: Rows) -> Any:
        return nested.map_structure(lambda leaf: leaf.take(rows), self._columns, none_is_leaf=False)


def default_batch_size(count: int, steps: int | None) -> int:
    """Return the batch size where none was given: the samples divided among the steps of an epoch, or Keras's."""
    return -(-count // steps) if steps else DEFAULT_BATCH_SIZE


def _columns(name: str, structure: Any, mapped_bytes: int) -> Any:
    names = iter(leaf_name for leaf_name, _ in named_leaves(**{name: structure}))
    return nested.map_structure(
        lambda leaf: column(leaf, name=next(names), mapped_bytes=mapped_bytes), structure, none_is_leaf=False
    )


def _run(indices: NDArray[np.int64]) -> Rows:
    """Return indices that count up by one as a slice, which copies nothing."""
    if not len(indices):
        return slice(0, 0)
    first, last = int(indices[0]), int(indices[-1])
    if last - first == len(indices) - 1 and np.array_equal(indices, np.arange(first, last + 1)):
        return slice(first, last + 1)
    return indices
