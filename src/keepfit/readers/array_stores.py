"""HDF5 files and Zarr folders as partitions: named arrays, read slice by slice."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from keepfit.extras import load_extra
from keepfit.readers.numpy_files import named_piece
from keepfit.readers.part import PIECE_BYTES, Part, Piece


class ArrayStorePart(Part):
    """Named arrays in a file or folder.

    Args:
        path: The file or folder.
        target: Name of the targets; None looks for ``x``, ``y`` and ``sample_weight``.
    """

    def __init__(self, path: Path, target: str | None) -> None:
        self.paths = (path,)
        self.name = str(path)
        self._target = target

    def count(self) -> int:
        """Read a shape."""
        with self._arrays() as arrays:
            return int(next(iter(_checked(arrays, self._target).values())).shape[0])

    def pieces(self) -> Iterator[Piece]:
        """Yield some rows of all arrays at a time."""
        with self._arrays() as opened:
            arrays = _checked(opened, self._target)
            count = next(iter(arrays.values())).shape[0]
            row_bytes = sum(math.prod(array.shape[1:]) * array.dtype.itemsize for array in arrays.values())
            # Whole chunks, since each is read, and decompressed, as one.
            chunk = max([1, *(array.chunks[0] for array in arrays.values() if array.chunks)])
            step = max(1, PIECE_BYTES // max(1, row_bytes) // chunk) * chunk
            for start in range(0, max(count, 1), step):
                rows = {name: array[start : min(start + step, count)] for name, array in arrays.items()}
                yield named_piece(rows, self._target)

    @abstractmethod
    def _arrays(self) -> AbstractContextManager[dict[str, Any]]:
        """Open the store."""


class Hdf5Part(ArrayStorePart):
    """An HDF5 file."""

    def _arrays(self) -> AbstractContextManager[dict[str, Any]]:
        file = load_extra("h5py", extra="hdf5", purpose="An HDF5 file").File(self.paths[0], "r")
        return _Opened(file, {name: item for name, item in file.items() if hasattr(item, "shape")})


class ZarrPart(ArrayStorePart):
    """A Zarr folder: a group of arrays, or one array."""

    def _arrays(self) -> AbstractContextManager[dict[str, Any]]:
        opened = load_extra("zarr", extra="zarr", purpose="A Zarr folder").open(str(self.paths[0]), mode="r")
        return nullcontext({"x": opened} if hasattr(opened, "shape") else dict(opened.arrays()))


class _Opened(AbstractContextManager[dict[str, Any]]):
    """Arrays in a file that is to be closed."""

    def __init__(self, file: Any, arrays: dict[str, Any]) -> None:
        self._file = file
        self._arrays = arrays

    def __enter__(self) -> dict[str, Any]:
        return self._arrays

    def __exit__(self, *raised: object) -> None:
        self._file.close()


def _checked(arrays: dict[str, Any], target: str | None) -> dict[str, Any]:
    named_piece(dict.fromkeys(arrays), target)
    counts = {array.shape[0] for array in arrays.values()}
    if len(counts) > 1:
        raise ValueError(f"its arrays have different numbers of rows: {', '.join(map(str, sorted(counts)))}")
    return arrays
