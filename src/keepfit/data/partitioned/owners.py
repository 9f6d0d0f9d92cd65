"""Which partition a sample is of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# So many stretches of samples have the partition that they begin in looked up; a search takes ten times as long.
_STRETCHES = 1 << 14
# Of more partitions than this a stretch may hold too many for that.
_MOST = 1 << 12


class Owners:
    """The partitions of samples, which are counted through all of them.

    Args:
        sizes: Samples in each partition, 0 or more; 1 or more in all.

    Example:
        >>> Owners(np.array([3, 0, 2])).of(np.array([0, 2, 3, 4])).tolist()
        [0, 0, 2, 2]
    """

    def __init__(self, sizes: NDArray[np.int64]) -> None:
        self._ends = np.cumsum(sizes)
        count = int(self._ends[-1])
        size = int(sizes[0])
        # All but the last have one size.
        self._even = size if np.all(sizes[:-1] == size) and sizes[-1] <= size else 0
        self._firsts: NDArray[np.int64] | None = None
        if not self._even and len(sizes) <= _MOST:
            self._shift = max(0, (count // _STRETCHES).bit_length())
            begins = np.arange(0, count, 1 << self._shift)
            self._firsts = np.searchsorted(self._ends, begins, side="right").astype(np.int64)

    def of(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the partition of each sample."""
        if self._even:
            return indices // self._even
        if self._firsts is None:
            return np.searchsorted(self._ends, indices, side="right").astype(np.int64, copy=False)
        owners: NDArray[np.int64] = self._firsts[indices >> self._shift]
        while (beyond := indices >= self._ends[owners]).any():
            owners += beyond
        return owners
