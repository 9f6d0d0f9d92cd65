"""Hashes of rows: the same 64 bits for the same bytes, in every process."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from keepfit import nested
from keepfit.data.memory import ObjectMemory

Hashes = NDArray[np.uint64]

_SEED = 0x6B656570  # of the multipliers; another one makes every hash that was kept worthless
_WORD_BYTES = 4
# From here on one call of xxh3 for each row is faster than to multiply all its words.
_WIDE_BYTES = 512
# What lies between reading a row and its hash stays in the processor's cache.
_PIECE_BYTES = 1 << 18
_WHOLE_BYTES = 1 << 16
_SAMPLES, _SAMPLE_BYTES = 16, 1 << 12


def batch_hashes(batch: Any) -> Hashes:
    """Return a hash of each row of a batch: of inputs and targets, not of weights.

    Args:
        batch: ``x``, ``(x,)``, ``(x, y)`` or ``(x, y, sample_weight)``: dense arrays of numbers, or nested structures
            of them.
    """
    return row_hashes([np.asarray(leaf) for leaf in row_arrays(batch)])


def row_arrays(batch: Any) -> list[Any]:
    """Return the arrays of a batch that make up its rows: inputs and targets."""
    parts = batch[:2] if isinstance(batch, tuple) else (batch,)
    if all(type(part) is np.ndarray for part in parts):
        return list(parts)
    return [leaf for leaf in nested.flatten(parts) if leaf is not None]


def row_hashes(arrays: Sequence[NDArray[Any]]) -> Hashes:
    """Return a hash of each row of arrays that belong together.

    The bytes of a row are taken as 32-bit words *w*, and its hash is the upper
    halves of two sums of *a·w* modulo 2^64, each with random multipliers *a* of
    its own: two rows that differ have the same hash with a probability of at
    most 2^-64. Of rows that are wide, xxh3 of each array stands for its words.
    Bytes are compared: 0.0 is not -0.0, and 1 in another dtype is another row.

    Args:
        arrays: Arrays of the same length, of any dtype but objects.

    Returns:
        Shape ``(rows,)``.

    References:
        M. Dietzfelbinger, "Universal hashing and k-wise independent random variables via integer arithmetic without
        primes", 1996: the upper 32 bits of such a sum are strongly universal for words of 32 bits.

    Example:
        >>> hashes = row_hashes([np.array([[1, 2], [3, 4], [1, 2]]), np.array([0.5, 0.5, 0.5])])
        >>> bool(hashes[0] == hashes[2]), bool(hashes[0] == hashes[1])
        (True, False)
    """
    count = len(arrays[0])
    widths = [_row_bytes(array) for array in arrays]
    step = max(1, _PIECE_BYTES // max(1, *widths))
    if count <= step:
        return _hashes(arrays, widths)
    found = np.empty(count, np.uint64)
    for start in range(0, count, step):
        found[start : start + step] = _hashes([array[start : start + step] for array in arrays], widths)
    return found


def content_digest(arrays: Iterable[Any]) -> int:
    """Return 64 bits that tell arrays from others, in microseconds: of large ones they see 64 kB, evenly spread.

    Args:
        arrays: NumPy or JAX arrays.
    """
    state = xxhash.xxh3_64()
    for array in arrays:
        state.update(_about(array.shape, array.dtype))
        state.update(_sampled(array) if type(array) is np.ndarray else _digest(array))
    return int(state.intdigest())


_digests: ObjectMemory[list[bytes]] = ObjectMemory(list)


def _digest(array: Any) -> bytes:
    """Return the digest of a JAX array: it never changes, and to read it may be to fetch it from a device."""
    remembered = _digests.of(array)
    if not remembered:
        remembered.append(xxhash.xxh3_64_digest(_sampled(np.asarray(array))))
    return remembered[0]


@lru_cache(maxsize=256)
def _about(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    return f"{dtype.name}{shape}".encode()


def _sampled(array: NDArray[Any]) -> Any:
    """Return the bytes of an array, or of evenly spread pieces of it."""
    if array.nbytes <= _WHOLE_BYTES and array.flags.c_contiguous and array.dtype.kind in "fiub":
        return array
    if not array.flags.c_contiguous:
        few = max(1, _WHOLE_BYTES // max(1, _row_bytes(array)))
        array = np.ascontiguousarray(array if len(array) <= few else array[_spread(len(array), few)])
    flat = array.reshape(-1).view(np.uint8)
    if len(flat) <= _WHOLE_BYTES:
        return flat
    starts = _spread(len(flat) - _SAMPLE_BYTES + 1, _SAMPLES).tolist()
    return np.concatenate([flat[start : start + _SAMPLE_BYTES] for start in starts])


def _spread(count: int, samples: int) -> NDArray[np.int64]:
    return np.linspace(0, count - 1, samples).astype(np.int64)


def _row_bytes(array: NDArray[Any]) -> int:
    return array.itemsize * math.prod(array.shape[1:])


def _hashes(arrays: Sequence[NDArray[Any]], widths: Sequence[int]) -> Hashes:
    parts = [_words(array, width) for array, width in zip(arrays, widths, strict=True)]
    words = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    sums = words.astype(np.uint64) @ _multipliers(words.shape[1])
    # The halves of a row's two sums, the upper ones at odd places.
    halves = sums.view(np.uint32)
    return np.ascontiguousarray(halves[:, 1::2]).view(np.uint64).reshape(-1)


def _words(array: NDArray[Any], width: int) -> NDArray[np.uint32]:
    """Return the bytes of each row as words, or two words that stand for them; shape ``(rows, words)``."""
    count = len(array)
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    if width >= _WIDE_BYTES:
        view, digest = flat.data, xxhash.xxh3_64_intdigest
        found = np.fromiter((digest(view[at : at + width]) for at in range(0, count * width, width)), np.uint64, count)
        return found.view(np.uint32).reshape(count, 2)
    if width % _WORD_BYTES:
        padded = np.zeros((count, width + -width % _WORD_BYTES), np.uint8)
        padded[:, :width] = flat.reshape(count, width)
        flat = padded.reshape(-1)
    return flat.view(np.uint32).reshape(count, -(-width // _WORD_BYTES))


@lru_cache(maxsize=256)
def _multipliers(words: int) -> NDArray[np.uint64]:
    """Return two multipliers for each word, those of the first ones being the same for any number."""
    # The raw stream of a bit generator is the same in every version of NumPy.
    return np.asarray(np.random.PCG64(_SEED).random_raw(2 * words)).reshape(words, 2)
