"""Batches on the host, in memory that a device can read without a copy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepfit.aligned import aligned_empty, is_aligned


def owned(array: Any) -> Any:
    """Return a copy of a host array, so that a source may use its buffer again; device arrays stay as they are."""
    if not isinstance(array, np.ndarray):
        return array
    copy = aligned_empty(array.shape, array.dtype)
    copy[...] = array
    return copy


def stacked_rows(array: Any, rows: NDArray[np.int64] | None, *, size: int, capacity: int) -> NDArray[Any]:
    """Gather rows of an array into batches.

    Args:
        array: Array of shape ``(samples, ...)``.
        rows: Rows to take, shape ``(count * size,)``; None for the first ones, in order.
        size: Samples in a batch.
        capacity: Length of the batch axis, ``count`` or more; what is beyond ``count`` is not initialised.

    Returns:
        Array of shape ``(capacity, size, ...)``.
    """
    array = np.asarray(array)
    if rows is None and len(array) == capacity * size and is_aligned(array) and array.flags.c_contiguous:
        return array.reshape((capacity, size, *array.shape[1:]))  # type: ignore[no-any-return]
    out = aligned_empty((capacity * size, *array.shape[1:]), array.dtype)
    if rows is None:
        out[: len(array)] = array[: len(out)]
    else:
        # mode="clip" lets NumPy write into `out` directly; the rows are in range.
        np.take(array, rows, axis=0, out=out[: len(rows)], mode="clip")
    return out.reshape(capacity, size, *array.shape[1:])


def host_number(value: Any) -> Any:
    """Return a scalar as a Python float and anything else as a NumPy array."""
    array = np.asarray(value)
    return float(array) if array.ndim == 0 and array.dtype.kind in "fiub" else array
