"""Memory on the host that a device can read without a copy."""

from __future__ import annotations

import math
import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

# XLA on the CPU reads a NumPy array in place only when it begins on such a border.
_ALIGNMENT = 64


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an uninitialised array that begins on a 64-byte border.

    Args:
        shape: Its shape.
        dtype: Its dtype.
    """
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    offset = -memory.__array_interface__["data"][0] % _ALIGNMENT
    return memory[offset : offset + size].view(dtype).reshape(shape)


def mapped_empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an array of zeros whose memory goes back to the system when it is let go of.

    What an allocator keeps for later, and in how many pieces, depends on threads and history; a stated
    budget cannot.

    Args:
        shape: Its shape.
        dtype: Its dtype.
    """
    size = math.prod(shape) * dtype.itemsize
    memory = mmap.mmap(-1, max(size, 1))
    return np.frombuffer(memory, np.uint8, size).view(dtype).reshape(shape)


def is_aligned(array: NDArray[Any]) -> bool:
    """Return whether an array begins on a 64-byte border."""
    return array.__array_interface__["data"][0] % _ALIGNMENT == 0  # type: ignore[no-any-return]
