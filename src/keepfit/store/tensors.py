"""The safetensors format, for every dtype of NumPy and ml_dtypes.

The ``safetensors`` package stores arrays that are not contiguous wrongly, and
does not read bfloat16 and float8 back into NumPy. The format is a JSON header
behind its length, then the bytes, so it is written and read here.

References:
    https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import sys
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import ml_dtypes
import numpy as np
import xxhash
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Mapping

Array = NDArray[Any]

_CODES = {
    "bool": "BOOL",
    "int8": "I8",
    "int16": "I16",
    "int32": "I32",
    "int64": "I64",
    "uint8": "U8",
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e8m0fnu": "F8_E8M0",
    "complex64": "C64",
}
_MAX_HEADER = 100_000_000  # bytes, the limit of the format's own reader


class Slice(NamedTuple):
    """Where one tensor lies in a file: dtype code, shape, first byte, byte behind the last."""

    code: str
    shape: tuple[int, ...]
    start: int
    stop: int


def plain(value: Any) -> Array:
    """Return an array with its elements in order, little-endian, in one block.

    Raises:
        TypeError: The values are not numbers.
    """
    array: Array = np.asarray(value, order="C")
    if name_of(array.dtype) not in _CODES and not _is_extension(array.dtype) and array.dtype.kind not in "iufc":
        raise TypeError(f"A tensor holds numbers: expected a numeric dtype, received {array.dtype}.")
    if array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and sys.byteorder == "big"):
        return array.astype(array.dtype.newbyteorder("<"))
    return array


def content(array: Array) -> memoryview:
    """Return the bytes of an array from `plain`, not copied."""
    return array.reshape(-1).view(np.uint8).data


@cache
def name_of(dtype: np.dtype[Any]) -> str:
    """Return the name of a dtype; NumPy takes ten microseconds to make it."""
    return str(dtype.name)


def dtype_named(name: str) -> np.dtype[Any]:
    """Return the dtype with a name, ml_dtypes included.

    Raises:
        TypeError: There is none.
    """
    extension = getattr(ml_dtypes, name, None)
    kind = np.dtype(name if extension is None else extension)
    if kind.kind not in "biufcV" or kind.hasobject or name_of(kind) != name:
        raise TypeError(f"no such dtype of numbers: {name!r}")
    return kind


def digest(array: Array) -> str:
    """Return the hash of dtype, shape and bytes: 32 hexadecimal digits."""
    state = xxhash.xxh3_128(f"{name_of(array.dtype)}{list(array.shape)}".encode())
    state.update(content(array))
    return state.hexdigest()


def encoded(arrays: Mapping[str, Array]) -> list[bytes | memoryview]:
    """Return the chunks of a safetensors file; the arrays are not copied.

    A dtype that the format does not know (int4, ...) is stored as bytes.
    """
    return [header(arrays), *(content(arrays[key]) for key in _order(arrays))]


def header(arrays: Mapping[str, Array]) -> bytes:
    """Return the beginning of a safetensors file, behind which the bytes of the arrays follow, wide items first."""
    entries: dict[str, Any] = {}
    offset = 0
    for key in _order(arrays):
        array = arrays[key]
        code = _CODES.get(name_of(array.dtype))
        stop = offset + array.nbytes
        entries[key] = {
            "dtype": code or "U8",
            "shape": list(array.shape) if code else [array.nbytes],
            "data_offsets": [offset, stop],
        }
        offset = stop
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _order(arrays: Mapping[str, Array]) -> list[str]:
    # Wide items first, so that each tensor is aligned and none is padded.
    return sorted(arrays, key=lambda key: (-arrays[key].dtype.itemsize, key))


def slices(data: bytearray) -> dict[str, Slice]:
    """Return where each tensor lies in the bytes of a safetensors file.

    Raises:
        ValueError: The bytes are not such a file.
    """
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(_MAX_HEADER, len(data) - 8):
        raise ValueError("the header is cut short")
    try:
        header = json.loads(bytes(data[8 : 8 + length]))
        found = {
            key: Slice(
                str(item["dtype"]),
                tuple(int(size) for size in item["shape"]),
                8 + length + int(item["data_offsets"][0]),
                8 + length + int(item["data_offsets"][1]),
            )
            for key, item in header.items()
            if key != "__metadata__"
        }
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError("the header cannot be read") from error
    for item in found.values():
        if not 8 + length <= item.start <= item.stop <= len(data):
            raise ValueError("the file is cut short")
    return found


def decoded(data: bytearray, where: Slice, *, dtype: str, shape: tuple[int, ...]) -> Array:
    """Return one tensor as a writable view on the bytes of its file.

    Raises:
        ValueError: The bytes do not make such a tensor.
        TypeError: The dtype is not known here.
    """
    kind = dtype_named(dtype)
    count = int(np.prod(shape, dtype=np.int64))
    if where.stop - where.start != count * kind.itemsize:
        raise ValueError(f"expected {count * kind.itemsize} bytes, found {where.stop - where.start}")
    if count == 0:
        return np.empty(shape, kind)
    view = np.frombuffer(data, np.uint8, where.stop - where.start, where.start)
    aligned = view if view.ctypes.data % max(kind.alignment, 1) == 0 else view.copy()
    array: Array = aligned.view(kind).reshape(shape)
    return array


def _is_extension(dtype: np.dtype[Any]) -> bool:
    return getattr(ml_dtypes, name_of(dtype), None) is not None
