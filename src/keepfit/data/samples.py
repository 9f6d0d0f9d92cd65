"""Samples by index from an object of any library: it has a length, and gives one sample for an index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keepfit import nested, randomness
from keepfit.data import draws
from keepfit.data.columns import check_dtype, model_dtype
from keepfit.data.draws import generators_of, undrawn
from keepfit.data.order import SampleOrder
from keepfit.data.source import IndexedSource
from keepfit.errors import InvalidData

if TYPE_CHECKING:
    from numpy.typing import NDArray


def gives_samples(value: Any) -> bool:
    """Return whether a value has a length and gives something for an index, as Grain's and torch's data sets do."""
    if isinstance(value, (str, bytes, dict, type)):
        return False
    return hasattr(value, "__len__") and hasattr(value, "__getitem__")


class SampleRows:
    """Some samples of an object that gives one for an index, as such an object.

    Args:
        data: Has ``__len__`` and ``__getitem__``.
        rows: Which samples, rising.
        fraction: How many of the object's samples are held back for validation.
        held_back: Whether it is those.
    """

    def __init__(self, data: Any, rows: NDArray[np.int64], *, fraction: float, held_back: bool) -> None:
        self.data = data
        self.fraction = fraction
        self.held_back = held_back
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Any:
        return self.data[int(self._rows[index])]


class SampleSource(IndexedSource):
    """Samples of an object, each ``x``, ``(x, y)`` or ``(x, y, sample_weight)``.

    As exact as a sample is a function of its index, of the random generators
    that the object holds, whose states are kept, and of the global ones.

    Args:
        data: Has ``__len__`` and ``__getitem__``.
        batch_size: Samples in a batch, 1 or more.
        seed: Seed of the orders, 0 or more.
        shuffle: True, ``"batch"`` or False.

    Raises:
        InvalidData: There are no samples, or they are of no use for training.
    """

    exactness = "exact"
    is_dense = True

    def __init__(self, data: Any, *, batch_size: int, seed: int, shuffle: bool | str) -> None:
        self._data = data
        self.num_samples = len(data)
        if not self.num_samples:
            raise InvalidData(f"x is a {type(data).__name__} without samples. Nothing was changed.")
        self.batch_size = batch_size
        self.num_batches = -(-self.num_samples // batch_size)
        self._order = SampleOrder(seed, self.num_samples, batch_size=batch_size, shuffle=shuffle)
        self._generators = generators_of(data)
        self._before: tuple[dict[str, Any], randomness.State] = ({}, {})
        # A look must leave no trace, or it would matter how often `fit` is called.
        with undrawn(self._generators) as self._drawn:
            first = self._sample(0)
        for leaf in nested.flatten(first):
            if leaf is not None:
                check_dtype(np.asarray(leaf).dtype, "a sample of x")
        self.size_bytes = self.num_samples * sum(
            np.asarray(leaf).nbytes for leaf in nested.flatten(first) if leaf is not None
        )

    def peek(self) -> Any:
        """Return the first samples."""
        with undrawn(self._generators):
            return self._taken(np.arange(min(self.batch_size, self.num_samples)))

    def order(self, number: int, start: int, stop: int) -> NDArray[np.int64]:
        """Return a stretch of the order of one pass."""
        return self._order.stretch(number, start, stop)

    def take(self, indices: NDArray[np.int64]) -> Any:
        """Return samples, asked for one by one."""
        if not self._drawn:
            return self._taken(indices)
        self._before = draws.take(self._generators), randomness.take() if self._drawn.others else {}
        try:
            return self._taken(indices)
        except BaseException:
            self.put_back()  # what they drew, they will draw again
            raise

    def put_back(self, *_: Any) -> None:
        """Let the generators stand where they did before the last samples."""
        own, others = self._before
        draws.restore(self._generators, own)
        randomness.restore(others)

    def get_state(self) -> dict[str, Any] | None:
        """Return the states of the object's generators where samples draw from them, else None."""
        return {"generators": draws.take(self._generators)} if self._drawn.own else None

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Set the states of the object's generators."""
        draws.restore(self._generators, state["generators"])

    def _taken(self, indices: NDArray[np.int64]) -> Any:
        samples = [self._sample(int(index)) for index in indices]
        structure = samples[0]
        leaves = zip(*(nested.flatten(sample) for sample in samples), strict=True)
        return nested.pack_sequence_as(structure, [None if each[0] is None else _stacked(each) for each in leaves])

    def _sample(self, index: int) -> Any:
        found = self._data[index]
        if isinstance(found, tuple):
            return keras.utils.pack_x_y_sample_weight(*keras.utils.unpack_x_y_sample_weight(found))
        return found


def _stacked(leaves: tuple[Any, ...]) -> NDArray[Any]:
    array = np.stack([np.asarray(leaf) for leaf in leaves])
    return array.astype(model_dtype(array.dtype), copy=False)
