"""A partition in memory: its rows as the model gets them, filled piece by piece."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keepfit import _keras, nested
from keepfit.aligned import aligned_empty
from keepfit.data.checks import check_array_like, check_rows, named_leaves
from keepfit.data.columns import check_dtype, host_array, model_dtype
from keepfit.errors import InvalidData
from keepfit.readers.part import Piece

Arrays = list[NDArray[Any]]


@dataclass(frozen=True)
class Layout:
    """What the rows of all partitions have in common.

    Args:
        structure: ``(x, y, sample_weight)``, in place of each array its name.
        shapes: Shape of a row, array by array.
        given: Dtypes as the partitions have them.
        dtypes: Dtypes as the model gets them.
    """

    structure: Any
    shapes: tuple[tuple[int, ...], ...]
    given: tuple[np.dtype[Any], ...]
    dtypes: tuple[np.dtype[Any], ...]

    @classmethod
    def of(cls, piece: Piece) -> Layout:
        """Return the layout of a piece.

        Raises:
            InvalidData: It holds something that is no dense array, or no model takes.
        """
        x, y, weights = piece
        leaves = named_leaves(x=x, y=y, sample_weight=weights)
        check_array_like(leaves)
        check_rows(leaves)
        for name, leaf in leaves:
            if _keras.is_sparse_or_ragged(leaf):
                raise InvalidData(
                    f"{name} is sparse or ragged, which partitions cannot be. Give dense arrays.", name=name
                )
        names = iter(name for name, _ in leaves)
        structure = nested.map_structure(lambda _: next(names), piece, none_is_leaf=False)
        arrays = [host_array(leaf) for _, leaf in leaves]
        for (name, _), array in zip(leaves, arrays, strict=True):
            check_dtype(array.dtype, name)
        return cls(
            structure,
            tuple(array.shape[1:] for array in arrays),
            tuple(array.dtype for array in arrays),
            # In the byte order of this machine, whatever the partition has.
            tuple(model_dtype(array.dtype).newbyteorder("=") for array in arrays),
        )

    @property
    def row_bytes(self) -> int:
        """Size of a sample as the model gets it."""
        pairs = zip(self.shapes, self.dtypes, strict=True)
        return sum(math.prod(shape) * dtype.itemsize for shape, dtype in pairs)

    @property
    def given_row_bytes(self) -> int:
        """Size of a sample as a partition has it."""
        pairs = zip(self.shapes, self.given, strict=True)
        return sum(math.prod(shape) * dtype.itemsize for shape, dtype in pairs)

    @property
    def names(self) -> list[str]:
        """Name of each array."""
        return [name for name in nested.flatten(self.structure) if name is not None]

    def empty(self, count: int) -> list[NDArray[Any]]:
        """Return arrays for ``count`` rows, not initialised, which a device can read as they are."""
        return [aligned_empty((count, *shape), dtype) for shape, dtype in zip(self.shapes, self.dtypes, strict=True)]

    def packed(self, arrays: list[NDArray[Any]]) -> Any:
        """Return arrays as ``(x, y, sample_weight)``."""
        found = iter(arrays)
        return nested.map_structure(lambda _: next(found), self.structure, none_is_leaf=False)

    def difference(self, other: Layout) -> str | None:
        """Return in what the layout of another partition differs, or None."""
        mine, theirs = (
            dict(zip(each.names, zip(each.given, each.shapes, strict=True), strict=True)) for each in (self, other)
        )
        for name in dict.fromkeys([*mine, *theirs]):
            if name not in theirs:
                return f"{name} is missing"
            if name not in mine:
                return f"{name} is new"
            for what, expected, received in zip(("dtype", "rows of shape"), mine[name], theirs[name], strict=True):
                if expected != received:
                    return f"{name} has {what} {received}, expected {expected}"
        return None

    def facts(self) -> dict[str, Any]:
        """Return the layout as plain data."""
        return {
            name: {"dtype": str(dtype), "shape": list(shape)}
            for name, dtype, shape in zip(self.names, self.given, self.shapes, strict=True)
        }


class OtherContentError(ValueError):
    """What a partition holds is not what was expected of it; never seen outside the package."""


def fill(arrays: Arrays, pieces: Iterable[Piece], layout: Layout) -> None:
    """Fill arrays with all rows of a partition, in the dtypes that the model gets.

    Beside the rows, one piece of them lies in memory.

    Args:
        arrays: As long as the partition is expected to be.
        pieces: Its rows.
        layout: What they are expected to be like.

    Raises:
        OtherContentError: Their number or layout is another one.
    """
    count, filled = len(arrays[0]), 0
    for piece in pieces:
        found = Layout.of(piece)
        if difference := layout.difference(found):
            raise OtherContentError(difference)
        leaves = [host_array(leaf) for leaf in nested.flatten(piece) if leaf is not None]
        rows = len(leaves[0])
        for array, leaf in zip(arrays, leaves, strict=True):
            # What was read into the array is there already.
            if leaf is not array:
                array[filled : filled + rows] = leaf[: count - filled]
        filled += rows
    if filled != count:
        raise OtherContentError(f"it has {filled} rows, expected {count}")


def first_rows(pieces: Iterable[Piece], most: int) -> tuple[Layout, list[NDArray[Any]]] | None:
    """Return the layout and at most so many first rows of a partition; None if it is empty.

    Args:
        pieces: Its first pieces, which are all read: a process that gives them is free again after the last one.
        most: Rows to return.
    """
    layout: Layout | None = None
    taken: list[list[NDArray[Any]]] = []
    count = 0
    for piece in pieces:
        found = Layout.of(piece)
        layout = layout or found
        leaves = [host_array(leaf)[: most - count] for leaf in keras.tree.flatten(piece) if leaf is not None]
        taken.append([leaf.astype(dtype, copy=True) for leaf, dtype in zip(leaves, layout.dtypes, strict=True)])
        count += len(leaves[0])
    if layout is None or count == 0:
        return None
    return layout, [np.concatenate(parts) for parts in zip(*taken, strict=True)]
