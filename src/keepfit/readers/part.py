"""One partition: something that gives rows, piece by piece."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

# A piece is large enough to read at full speed, and small enough to stay in the processor's cache.
PIECE_BYTES = 1 << 20
_EDGE_BYTES = 4096

_EXPECTED = "expected x, (x, y) or (x, y, sample_weight), of arrays with a row for each sample"

Piece = tuple[Any, Any, Any]


class Part(ABC):
    """A partition of a data set.

    Attributes:
        name: What messages call it.
        paths: The files it lies in; none for a function.
        is_whole: Whether it comes in one piece, so that reading its beginning reads all of it.
        tells_content: Whether `facts` depend on what is in it.
    """

    name: str
    paths: tuple[Path, ...] = ()
    is_whole: bool = False
    tells_content: bool = True

    @abstractmethod
    def count(self) -> int:
        """Return the number of samples; reads as little as the format allows."""

    @abstractmethod
    def pieces(self) -> Iterator[Piece]:
        """Yield the rows in order, as ``(x, y, sample_weight)`` of some rows each; valid until the next piece."""

    def pieces_into(self, arrays: Sequence[NDArray[Any]]) -> Iterator[Piece]:
        """Yield what `pieces` does; a format that is read as it is may read it into arrays.

        Args:
            arrays: As long as the partition is expected to be, in the order of ``x``, ``y`` and ``sample_weight``.
        """
        del arrays
        return self.pieces()

    def first_pieces(self, rows: int) -> Iterator[Piece]:
        """Yield pieces until they have so many rows together, or all of them."""
        seen = 0
        for piece in self.pieces():
            yield piece
            seen += rows_of(piece)
            if seen >= rows:
                return

    def without_rows(self) -> Part:
        """Return what can be sent to another process where this can: without rows that decide nothing about it."""
        return self

    def facts(self) -> dict[str, Any]:
        """Return what tells whether the files are still the same: sizes and the hash of their edges."""
        if not self.paths:
            return {}
        sizes, digest = [], xxhash.xxh3_64()
        for path in self.paths:
            size = _add_edges(path, digest)
            sizes.append(size)
        return {"bytes": sum(sizes), "edges": digest.hexdigest()}


class FunctionPart(Part):
    """What a function of the user returns.

    Args:
        function: Returns ``x``, ``(x, y)`` or ``(x, y, sample_weight)``.
        name: What messages call it.
        paths: The files that it is known to read.
    """

    is_whole = True

    def __init__(self, function: Callable[[], Any], *, name: str, paths: tuple[Path, ...] = ()) -> None:
        self._function = function
        self.name = name
        self.paths = paths
        self.tells_content = bool(paths)

    def count(self) -> int:
        """Call the function, and count."""
        return rows_of(self._packed())

    def pieces(self) -> Iterator[Piece]:
        """Yield what the function returns."""
        yield self._packed()

    def _packed(self) -> Piece:
        given = self._function()
        packed = given if isinstance(given, tuple) else (given,)
        if not 1 <= len(packed) <= 3:
            raise ValueError(f"it returned a tuple of {len(packed)}, {_EXPECTED}")
        x, y, weights = (*packed, None, None)[:3]
        leaves = list(_leaves(x))
        odd = next((leaf for leaf in _leaves((x, y, weights)) if len(getattr(leaf, "shape", ())) == 0), None)
        if not leaves or odd is not None:
            raise ValueError(f"it returned {'no inputs' if odd is None else f'a {type(odd).__name__}'}, {_EXPECTED}")
        return x, y, weights


def rows_of(piece: Piece) -> int:
    """Return the number of rows in a piece: that of its first array."""
    return int(np.shape(next(_leaves(piece)))[0])


def _leaves(structure: Any) -> Iterator[Any]:
    """Yield what is not None in tuples, lists and dicts, without Keras: a process that reads has none."""
    if isinstance(structure, Mapping):
        structure = list(structure.values())
    if isinstance(structure, (tuple, list)):
        for inner in structure:
            yield from _leaves(inner)
    elif structure is not None:
        yield structure


def _add_edges(path: Path, digest: Any) -> int:
    """Add the first and last bytes of a file, or of the files in a folder, to a hash; return the size."""
    if path.is_dir():
        total = 0
        for inner in sorted(each for each in path.rglob("*") if each.is_file()):
            digest.update(str(inner.relative_to(path)).encode())
            # A store of many chunks is known by their names and sizes, and by what its small files say.
            size = inner.stat().st_size
            digest.update(str(size).encode())
            if size <= _EDGE_BYTES:
                digest.update(inner.read_bytes())
            total += size
        return total
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest.update(file.read(_EDGE_BYTES))
        file.seek(max(0, size - _EDGE_BYTES))
        digest.update(file.read(_EDGE_BYTES))
    return size
