"""Memory for the partitions that are held, the same for all that come one after another."""

from __future__ import annotations

import mmap
import threading

from keepfit.aligned import mapped
from keepfit.data.partitioned.loading import Arrays, Layout

# From here on a place is worth large pages, which the rows of a batch are found in faster, as NumPy has it.
_LARGE_BYTES = 1 << 22


class Room:
    """Places for partitions, side by side: rows of several partitions are gathered at once.

    A place is as long as the largest partition, and takes memory as far as one
    has filled it: to use it again costs nothing, where memory that is got anew
    for each partition costs as much as reading does.

    Args:
        layout: What the rows are like.
        places: How many there are, 1 or more.
        rows: Rows in the largest partition.

    Attributes:
        arrays: All places one after another, array by array.
        lock: Held by who gathers rows and chooses which partitions stay.
    """

    def __init__(self, layout: Layout, *, places: int, rows: int) -> None:
        self._rows = rows
        self._memories: list[mmap.mmap] = []
        self._filled = [0] * places
        self.arrays: Arrays = []
        for shape, dtype in zip(layout.shapes, layout.dtypes, strict=True):
            memory, array = mapped((places * rows, *shape), dtype)
            if array.nbytes >= places * _LARGE_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
                memory.madvise(mmap.MADV_HUGEPAGE)
            self._memories.append(memory)
            self.arrays.append(array)
        self.lock = threading.RLock()

    def begin(self, place: int) -> int:
        """Return the first row of a place."""
        return place * self._rows

    def arrays_of(self, place: int, count: int) -> Arrays:
        """Return a place for a partition of ``count`` rows; what a larger one took more goes back to the system."""
        begin, before = self.begin(place), self._filled[place]
        self._filled[place] = count
        if before > count:
            for memory, array in zip(self._memories, self.arrays, strict=True):
                _give_back(memory, *((begin + rows) * (array.nbytes // len(array)) for rows in (count, before)))
        return [array[begin : begin + count] for array in self.arrays]


def _give_back(memory: mmap.mmap, start: int, stop: int) -> None:
    """Give whole pages back to the system, where it takes them."""
    start = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
    stop = stop // mmap.PAGESIZE * mmap.PAGESIZE
    if stop > start and hasattr(mmap, "MADV_DONTNEED"):
        memory.madvise(mmap.MADV_DONTNEED, start, stop - start)
