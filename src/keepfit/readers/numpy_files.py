"""``.npy`` and ``.npz`` files as partitions, read piece by piece."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from keepfit.readers.part import PIECE_BYTES, Part, Piece

_NAMES = ("x", "y", "sample_weight")


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, stream: IO[bytes]) -> _Header:
        version = npy.read_magic(stream)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
        if read is None:
            raise ValueError(f"version {version} of the .npy format is not known")
        shape, is_fortran, dtype = read(stream)
        if dtype.hasobject:
            raise ValueError("it holds Python objects, and reading those would execute code")
        if not shape:
            raise ValueError("it holds a single number, not rows of samples")
        return cls(shape, is_fortran and len(shape) > 1, dtype)

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize


class NpyPart(Part):
    """One or more ``.npy`` files: inputs, and maybe targets and weights.

    Args:
        paths: Files of ``x``, ``y`` and ``sample_weight``, as many as there are.
    """

    def __init__(self, paths: tuple[Path, ...]) -> None:
        self.paths = paths
        self.name = ", ".join(str(path) for path in paths)

    def count(self) -> int:
        """Read the header of the first file."""
        with self.paths[0].open("rb") as file:
            return _Header.of(file).shape[0]

    def pieces(self) -> Iterator[Piece]:
        """Yield rows of all files at a time."""
        with ExitStack() as stack:
            files = [stack.enter_context(path.open("rb")) for path in self.paths]
            for arrays in _pieces_of(files):
                yield named_piece(dict(zip(_NAMES, arrays, strict=False)), None)

    def pieces_into(self, arrays: Sequence[NDArray[Any]]) -> Iterator[Piece]:
        """Read the files into arrays where these are like them, else as `pieces`."""
        with ExitStack() as stack:
            files = [stack.enter_context(path.open("rb")) for path in self.paths]
            headers = [_Header.of(file) for file in files]
            if len(headers) == len(arrays) and all(map(_is_like, arrays, headers)):
                for file, array in zip(files, arrays, strict=True):
                    _read_all(file, array)
                yield named_piece(dict(zip(_NAMES, arrays, strict=False)), None)
                return
        yield from self.pieces()


class NpzPart(Part):
    """An ``.npz`` file.

    Args:
        path: The file.
        target: The name of the array that is ``y``; the others are the inputs. None looks for
            ``x``, ``y`` and ``sample_weight``.
    """

    def __init__(self, path: Path, target: str | None) -> None:
        self.paths = (path,)
        self.name = str(path)
        self._target = target

    def count(self) -> int:
        """Read the header of one array."""
        with zipfile.ZipFile(self.paths[0]) as archive, archive.open(self._members(archive)[0]) as stream:
            return _Header.of(stream).shape[0]

    def pieces(self) -> Iterator[Piece]:
        """Yield rows of all arrays at a time."""
        with ExitStack() as stack:
            archive = stack.enter_context(zipfile.ZipFile(self.paths[0]))
            members = self._members(archive)
            streams = [stack.enter_context(archive.open(member)) for member in members]
            names = [member.removesuffix(".npy") for member in members]
            for arrays in _pieces_of(streams):
                yield named_piece(dict(zip(names, arrays, strict=True)), self._target)

    def _members(self, archive: zipfile.ZipFile) -> list[str]:
        members = [name for name in archive.namelist() if name.endswith(".npy")]
        named_piece({member.removesuffix(".npy"): None for member in members}, self._target)
        return members


def named_piece(arrays: dict[str, Any], target: str | None) -> Piece:
    """Return named arrays as a piece.

    Args:
        arrays: Arrays by name.
        target: The name of the one that is ``y``: ``sample_weight`` are the weights, the others are inputs, a dict
            where there are several. None looks for ``x``, ``y`` and ``sample_weight``; a single array is ``x``.

    Raises:
        ValueError: Nothing says which is which.
    """
    if target is not None:
        if target not in arrays:
            raise ValueError(f"it has no array {target!r}, only {', '.join(sorted(arrays))}")
        inputs = {name: array for name, array in arrays.items() if name not in (target, "sample_weight")}
        x = next(iter(inputs.values())) if len(inputs) == 1 else inputs
        return x, arrays[target], arrays.get("sample_weight")
    if len(arrays) == 1:
        return next(iter(arrays.values())), None, None
    if "x" not in arrays or not set(arrays) <= set(_NAMES):
        raise ValueError(
            f"it holds the arrays {', '.join(sorted(arrays)) or '(none)'}, and nothing says which are the targets: "
            "give target= with the name of one, or name them x, y and sample_weight"
        )
    return arrays["x"], arrays.get("y"), arrays.get("sample_weight")


def _pieces_of(streams: Sequence[IO[bytes]]) -> Iterator[list[NDArray[Any]]]:
    """Yield as many rows of each ``.npy`` stream at a time as make a piece; the next piece overwrites them."""
    headers = [_Header.of(stream) for stream in streams]
    count = headers[0].shape[0]
    other = next((header.shape[0] for header in headers if header.shape[0] != count), None)
    if other is not None:
        raise ValueError(f"its arrays have different numbers of rows: {count} and {other}")
    if any(header.is_fortran for header in headers):
        # In Fortran order the rows of a piece are scattered over the whole file.
        buffers = [np.empty(math.prod(header.shape), header.dtype) for header in headers]
        yield [_read(*each, rows=count) for each in zip(streams, headers, buffers, strict=True)]
        return
    step = max(1, PIECE_BYTES // max(1, sum(header.row_bytes for header in headers)))
    # The same memory for every piece: to get some anew costs as much as to read.
    buffers = [np.empty(min(step, count) * math.prod(header.shape[1:]), header.dtype) for header in headers]
    for start in range(0, max(count, 1), step):
        rows = min(step, count - start)
        yield [_read(*each, rows=rows) for each in zip(streams, headers, buffers, strict=True)]


def _read(stream: IO[bytes], header: _Header, buffer: NDArray[Any], *, rows: int) -> NDArray[Any]:
    flat = buffer[: rows * math.prod(header.shape[1:])]
    _read_all(stream, flat)
    shape = (rows, *header.shape[1:])
    return flat.reshape(shape[::-1]).T if header.is_fortran else flat.reshape(shape)


def _read_all(stream: IO[bytes], array: NDArray[Any]) -> None:
    """Read as many bytes as an array has."""
    wanted, done = array.reshape(-1).view(np.uint8), 0
    while done < len(wanted):
        more = stream.readinto(wanted[done:].data)  # type: ignore[attr-defined]
        if not more:
            raise ValueError(f"it is truncated: {len(wanted) - done} more bytes were expected")
        done += more


def _is_like(array: NDArray[Any], header: _Header) -> bool:
    """Return whether the rows of a file are those of an array, byte by byte."""
    same = array.shape == header.shape and array.dtype == header.dtype
    return same and not header.is_fortran and array.flags.c_contiguous
