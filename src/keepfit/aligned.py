"""Memory on the host that a device can read without a copy."""

from __future__ import annotations

import math
import mmap
import platform
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

# XLA on the CPU reads a NumPy array in place only when it begins on such a border.
_ALIGNMENT = 64
_KNOWN = {("linux", "x86_64"), ("linux", "aarch64")}
# Memory of this process alone, not reserved before it is written to. Python has the name of that from 3.13 on.
_NOT_RESERVED = getattr(mmap, "MAP_NORESERVE", 0x4000 if (sys.platform, platform.machine()) in _KNOWN else 0)
_OWN = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NOT_RESERVED} if hasattr(mmap, "MAP_PRIVATE") else {}


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
    return mapped(shape, dtype)[1]


def mapped(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[mmap.mmap, NDArray[Any]]:
    """Return an array as `mapped_empty` does, and its memory, of which only what is written to is taken.

    Args:
        shape: Its shape.
        dtype: Its dtype.
    """
    size = math.prod(shape) * dtype.itemsize
    memory = mmap.mmap(-1, max(size, 1), **_OWN)
    return memory, np.frombuffer(memory, np.uint8, size).view(dtype).reshape(shape)


def is_aligned(array: NDArray[Any]) -> bool:
    """Return whether an array begins on a 64-byte border."""
    return array.__array_interface__["data"][0] % _ALIGNMENT == 0  # type: ignore[no-any-return]
