"""Which samples of a partition are held back for validation: a hash of their place, the same in every fit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from keepfit.data.order import place_hashes

_AT_ONCE = 1 << 20


def rows_of_side(partition: int, count: int, fraction: float, *, held_back: bool) -> NDArray[np.int64]:
    """Return the rows of a partition that are on one side, in order.

    A row is held back where a hash of the partition's number and its place in
    it is below the fraction. So no row changes sides when partitions are added
    or grow at their end, and a smaller fraction holds back some of the same rows.

    Args:
        partition: Number of the partition.
        count: Its rows.
        fraction: How many rows are held back, in [0, 1).
        held_back: Whether the rows that are held back are asked for, or the others.

    Example:
        >>> one, other = (rows_of_side(3, 1000, 0.2, held_back=side) for side in (True, False))
        >>> len(one), len(one) + len(other), np.intersect1d(one, other).tolist()
        (215, 1000, [])
    """
    parts = [
        np.flatnonzero((place_hashes(partition, start, min(start + _AT_ONCE, count)) < _limit(fraction)) == held_back)
        + start
        for start in range(0, count, _AT_ONCE)
    ]
    return np.concatenate([np.empty(0, np.int64), *parts])


def _limit(fraction: float) -> np.uint64:
    return np.uint64(int(fraction * 2.0**64))
