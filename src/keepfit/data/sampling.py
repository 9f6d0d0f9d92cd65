"""A sample of bounded size of all that ever came: those with the smallest keys.

A sample's key is a hash of the run's seed, the number of its source and its
row, so that what is kept does not depend on when it is asked, nor on how often.
The smallest of two samples together are the sample of both together, and the
smallest of those a smaller sample: samples merge and shrink.

References:
    Bottom-k sampling: E. Cohen and H. Kaplan, "Summarizing data using bottom-k
    sketches", PODC 2007.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keepfit.data.order import sample_keys

EVERY = (1 << 64) - 1  # the bound below which every key lies
_CHUNK = 1 << 20  # rows whose keys are looked at at once


@dataclass(frozen=True)
class Sample:
    """Rows of one source that belong to a sample of all sources up to it.

    Args:
        rows: Rising, shape ``(samples,)``.
        keys: The key of each.
        bound: The largest key that belongs; `EVERY` where all samples do.
    """

    rows: NDArray[np.int64]
    keys: NDArray[np.uint64]
    bound: int


def sample_of(
    seed: int, source: int, count: int, *, most: int, others: NDArray[np.uint64] | None = None, bound: int = EVERY
) -> Sample:
    """Return the rows of a source that belong to the ``most`` smallest keys of it and all sources before it.

    Args:
        seed: Seed of the run, 0 or more.
        source: Number of the source, 0 or more.
        count: Its samples, 1 or more.
        most: Size of the sample over all sources, 1 or more.
        others: Keys of what is kept of earlier sources.
        bound: The largest key that belongs to the sample of these.

    Example:
        >>> sample_of(7, 0, 1000, most=3).rows.shape, sample_of(7, 0, 2, most=3).rows.tolist()
        ((3,), [0, 1])
    """
    rows, keys = _smallest(seed, source, count, most=most, bound=bound)
    together = keys if others is None else np.concatenate([others[others <= np.uint64(bound)], keys])
    bound = min(bound, bound_of(together, most))
    inside = keys <= np.uint64(bound)
    return Sample(rows[inside], keys[inside], bound)


def bound_of(keys: NDArray[np.uint64], most: int) -> int:
    """Return the largest of the ``most`` smallest keys, `EVERY` where there are no more than these."""
    return EVERY if len(keys) <= most else int(np.partition(keys, most - 1)[most - 1])


def _smallest(
    seed: int, source: int, count: int, *, most: int, bound: int
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Return the rows with the smallest keys, and these, in the order of the rows."""
    rows, keys = np.empty(0, np.int64), np.empty(0, np.uint64)
    for start in range(0, count, _CHUNK):
        new = sample_keys(seed, source, start, min(count, start + _CHUNK))
        there = np.flatnonzero(new <= np.uint64(bound))
        rows, keys = np.concatenate([rows, there + start]), np.concatenate([keys, new[there]])
        bound = min(bound, bound_of(keys, most))
        inside = keys <= np.uint64(bound)
        rows, keys = rows[inside], keys[inside]
    return rows, keys
