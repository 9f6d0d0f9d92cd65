"""Partitions as a source of batches: any sample at any time, cheapest in the order of the passes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keepfit.data.arrays import default_batch_size
from keepfit.data.order import Stretches, batch_order
from keepfit.data.partitioned.owners import Owners
from keepfit.data.partitioned.partitions import Partitions, Side
from keepfit.data.partitioned.shelf import StuckError
from keepfit.data.partitioned.windows import WindowedOrder
from keepfit.data.source import IndexedSource
from keepfit.data.weights import sample_weights
from keepfit.errors import InvalidData, PartitionFailed

if TYPE_CHECKING:
    from numpy.typing import NDArray


class PartitionSource(IndexedSource):
    """Samples in partitions.

    Args:
        data: The partitions, or one side of a split of them.
        batch_size: Samples in a batch; None divides the samples among ``steps``, or means 32.
        steps: Batches in an epoch, or None.
        seed: Seed of the orders, 0 or more.
        shuffle: True (in windows), ``"batch"`` (within each batch) or False.
        class_weight: Class number -> weight, or None.

    Raises:
        InvalidData: There are no samples.
        PartitionFailed: A partition that must be looked at cannot be read.
    """

    exactness = "exact"
    is_dense = True

    def __init__(
        self,
        data: Partitions | Side,
        *,
        batch_size: int | None,
        steps: int | None,
        seed: int,
        shuffle: bool | str,
        class_weight: Mapping[int, float] | None = None,
    ) -> None:
        self._side = data if isinstance(data, Side) else None
        self._data = data.partitions if isinstance(data, Side) else data
        self._sizes = np.array(self._data.sizes if self._side is None else self._data.side_sizes(self._side))
        self._ends = np.cumsum(self._sizes)
        self._owners = Owners(self._sizes)
        self.num_samples = int(self._sizes.sum())
        if not self.num_samples:
            raise InvalidData("There are no samples in any of the partitions. Nothing was changed.")
        self.batch_size = batch_size or default_batch_size(self.num_samples, steps)
        self.num_batches = -(-self.num_samples // self.batch_size)
        self._layout = self._data.layout
        self.size_bytes = self.num_samples * self._layout.row_bytes
        self._seed, self._shuffle, self._class_weight = seed, shuffle, class_weight
        self._windows = WindowedOrder(self._sizes, window=self._data.settings.window, seed=seed)
        self._stretches = Stretches(self._compute, count=self.num_samples)
        self._rows: dict[int, NDArray[np.int64]] = {}
        self._near: tuple[tuple[int, int], list[int], list[int]] | None = None
        self._data.note()
        self._places = self._data.shelf.places  # the budget is checked before anything changes

    def peek(self) -> Any:
        """Return the first rows of the data."""
        return self._batch(self._data.head(min(self.batch_size, self.num_samples)))

    def order(self, number: int, start: int, stop: int) -> NDArray[np.int64]:
        """Return a stretch of the order of one pass: numbers of samples, counted through the partitions."""
        if not self._shuffle:
            return np.arange(start, stop, dtype=np.int64)
        return self._stretches.get(number, start, stop)

    def take(self, indices: NDArray[np.int64]) -> Any:
        """Return samples; partitions are read in the order in which these need them, never too many at once."""
        return self._take(indices, room=0)

    def read(self, number: int, start: int, stop: int, *, room: int = 0) -> Any:
        """Return a stretch of a pass, and begin to read the partition that comes after it."""
        batch = self._take(self.order(number, start, stop), room=room)
        here, coming = self._around(number, stop)
        shelf = self._data.shelf
        with shelf.room.lock:
            shelf.read_ahead([part for part in coming if part not in self._data.skipped], keep=here)
        return batch

    def get_state(self) -> dict[str, Any] | None:
        """Return which partitions are skipped, so that a resumed fit skips them too."""
        return {"skipped": sorted(self._data.skipped)} if self._data.skipped else None

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Skip the partitions that were skipped."""
        self._data.skipped.update(int(number) for number in state["skipped"])

    def take_told(self) -> list[str]:
        """Return what was said of partitions that were skipped."""
        told, self._data.told = self._data.told, []
        return told

    def _take(self, indices: NDArray[np.int64], *, room: int) -> Any:
        while True:
            try:
                return self._gathered(self._replaced(indices), room=room)
            except PartitionFailed as error:
                if self._data.settings.on_error != "skip":
                    raise
                self._skip(error)

    def _skip(self, error: PartitionFailed) -> None:
        number = error.partition
        if not set(np.flatnonzero(self._sizes).tolist()) - self._data.skipped - {number}:
            raise error
        self._data.skip(
            number,
            f"Partition {number} ({error.name}) is skipped from here on, as on_error asks: {error.__cause__}. "
            f"Samples of other partitions take the places of its {self._sizes[number]}.",
        )

    def _replaced(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return samples of other partitions in place of those that are skipped: the number of steps stays."""
        if not self._data.skipped:
            return indices
        starts = self._ends - self._sizes
        owners, indices = self._owners.of(indices), indices.copy()
        left = [int(number) for number in np.flatnonzero(self._sizes) if int(number) not in self._data.skipped]
        for number in sorted(self._data.skipped):
            mine = owners == number
            other = next((each for each in left if each > number), left[0])
            indices[mine] = starts[other] + (indices[mine] - starts[number]) % self._sizes[other]
        return indices

    def _gathered(self, indices: NDArray[np.int64], *, room: int) -> Any:
        # As small as can be: to sort numbers of 16 bits takes no comparisons.
        owners = self._owners.of(indices)
        out = self._layout.empty(max(room, len(indices)))
        done = 0
        while done < len(indices):
            until = done + _within(owners[done:], self._data.settings.window)
            self._fill([array[done:until] for array in out], owners[done:until], indices[done:until])
            done = until
        return self._batch(out)

    def _around(self, number: int, place: int) -> tuple[list[int], list[int]]:
        """Return the partitions in use at a place of a pass, and those that come next."""
        ahead = self._data.settings.workers
        if self._shuffle is True:
            at = min(place, self.num_samples - 1)
            block = self._windows.block_of(number, at)
            if self._near is None or self._near[0] != block:
                members, after = self._windows.partitions_at(number, at), self._windows.partitions_after
                self._near = (block, members, after(number, at, ahead))
            return self._near[1], self._near[2]
        filled = np.flatnonzero(self._sizes)
        here = int(np.searchsorted(self._ends, place % self.num_samples, side="right"))
        at = int(np.searchsorted(filled, here))
        return [here], [int(part) for part in np.roll(filled, -at)[1 : ahead + 1]]

    def _fill(self, out: list[NDArray[Any]], owners: NDArray[Any], indices: NDArray[np.int64]) -> None:
        """Fill arrays with samples of partitions that are in memory together."""
        present = np.flatnonzero(np.bincount(owners)).tolist()
        while True:
            shelf = self._data.shelf
            try:
                with shelf.room.lock:
                    begins = shelf.there(present) or self._data.get(self._firsts(present, owners, indices))
                    places = self._places_of(owners, indices, begins)
                    for target, array in zip(out, shelf.room.arrays, strict=True):
                        # mode="clip" lets NumPy write into the target directly; the places are in range.
                        np.take(array, places, axis=0, out=target, mode="clip")
                return
            except StuckError:
                self._data.clear()

    def _firsts(self, present: list[int], owners: NDArray[Any], indices: NDArray[np.int64]) -> dict[int, int]:
        """Return the sample of each partition that is needed first, in the order in which they are needed."""
        firsts = sorted((int(np.argmax(owners == number)), number) for number in present)
        starts = self._ends - self._sizes
        return {number: int(self._row(number, indices[first] - starts[number])) for first, number in firsts}

    def _places_of(
        self, owners: NDArray[Any], indices: NDArray[np.int64], begins: Mapping[int, int]
    ) -> NDArray[np.int64]:
        """Return where samples lie in the room of the shelf.

        Args:
            owners: Partition of each.
            indices: Their numbers.
            begins: Number of a partition -> where it begins in the room.
        """
        starts = self._ends - self._sizes
        if self._side is None:
            shifts = np.zeros(len(starts), np.int64)
            for number, begin in begins.items():
                shifts[number] = begin - starts[number]
            return indices + shifts[owners]  # type: ignore[no-any-return]
        places = np.empty(len(indices), np.int64)
        for number, begin in begins.items():
            mine = owners == number
            places[mine] = self._row(number, indices[mine] - starts[number]) + begin
        return places

    def _row(self, number: int, row: Any) -> Any:
        """Return where a sample lies in its partition, for its number on this side."""
        if self._side is None:
            return row
        if number not in self._rows:
            if len(self._rows) > self._places:
                self._rows.clear()
            self._rows[number] = self._data.side_rows(self._side, number)
        return self._rows[number][row]

    def _compute(self, number: int, start: int, stop: int) -> NDArray[np.int64]:
        if self._shuffle == "batch":
            return batch_order(self._seed, number, self.num_samples, self.batch_size, start=start, stop=stop)
        return self._windows.stretch(number, start, stop)

    def _batch(self, arrays: list[NDArray[Any]]) -> Any:
        x, y, weights = self._layout.packed(arrays)
        weights = None if y is None else sample_weights(y, weights, self._class_weight)
        return keras.utils.pack_x_y_sample_weight(x, y, weights)


def _within(owners: NDArray[Any], most: int) -> int:
    """Return how many of the first samples lie in ``most`` partitions together."""
    if np.count_nonzero(np.bincount(owners)) <= most:
        return len(owners)
    firsts = np.sort(np.unique(owners, return_index=True)[1])
    return int(firsts[most])
