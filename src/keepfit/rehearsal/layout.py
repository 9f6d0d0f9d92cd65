"""How the arrays of samples lie in ``x``, ``y`` and ``sample_weight``, as plain data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepfit.store import dtype_named

Leaf = tuple[str, str, tuple[int, ...]]
PARTS = ("x", "y", "sample_weight")


@dataclass(frozen=True)
class Layout:
    """What arrays samples consist of.

    Args:
        structure: Nested plain data with ``"leaf"`` where an array lies.
        leaves: Name, dtype and shape without the axis of samples of each array, in order.
    """

    structure: Any
    leaves: tuple[Leaf, ...]

    @classmethod
    def of(cls, x: Any, y: Any, weights: Any) -> tuple[Layout, list[NDArray[Any]]]:
        """Return the layout of samples, and their arrays in its order."""
        names: list[str] = []
        arrays: list[NDArray[Any]] = []
        structure = [_described(part, name, names, arrays) for name, part in zip(PARTS, (x, y, weights), strict=True)]
        leaves = [
            (name, str(array.dtype.name), tuple(array.shape[1:])) for name, array in zip(names, arrays, strict=True)
        ]
        return cls(structure, tuple(leaves)), arrays

    def packed(self, arrays: list[Any]) -> tuple[Any, Any, Any]:
        """Return ``x``, ``y`` and ``sample_weight`` of arrays in the layout's order."""
        rest = iter(arrays)
        x, y, weights = (_filled(part, rest) for part in self.structure)
        return x, y, weights

    @property
    def row_bytes(self) -> int:
        """Bytes of one sample."""
        return sum(math.prod(shape) * dtype_named(dtype).itemsize for _, dtype, shape in self.leaves)

    @property
    def data_leaves(self) -> tuple[Leaf, ...]:
        """The leaves of inputs and targets."""
        return tuple(leaf for leaf in self.leaves if not leaf[0].startswith(PARTS[2]))

    def to_json(self) -> dict[str, Any]:
        """Return the layout as plain data."""
        leaves = [[name, dtype, list(shape)] for name, dtype, shape in self.leaves]
        return {"structure": self.structure, "leaves": leaves}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Layout:
        """Return the layout that `to_json` gave."""
        leaves = tuple((str(name), str(dtype), tuple(shape)) for name, dtype, shape in data["leaves"])
        return cls(data["structure"], leaves)


def difference(kept: Layout, now: Layout) -> str | None:
    """Return in lines how the inputs and targets of two layouts differ, None where they do not."""
    one, other = ({name: (dtype, shape) for name, dtype, shape in each.data_leaves} for each in (kept, now))
    if one == other:
        return None
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    return "\n".join(f"  {name}: kept {_told(one.get(name))}, now {_told(other.get(name))}" for name in names)


def _told(kind: tuple[str, tuple[int, ...]] | None) -> str:
    return "not there" if kind is None else f"{kind[0]} {kind[1]}"


def _described(value: Any, name: str, names: list[str], arrays: list[NDArray[Any]]) -> Any:
    if value is None:
        return None
    if isinstance(value, Mapping):
        keys = sorted(value, key=str)
        return {"dict": [[key, _described(value[key], f"{name}[{key!r}]", names, arrays)] for key in keys]}
    if isinstance(value, (list, tuple)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_described(part, f"{name}[{place}]", names, arrays) for place, part in enumerate(value)]}
    names.append(name)
    arrays.append(np.asarray(value))
    return "leaf"


def _filled(structure: Any, arrays: Iterator[Any]) -> Any:
    if structure is None:
        return None
    if structure == "leaf":
        return next(arrays)
    ((kind, parts),) = structure.items()
    if kind == "dict":
        return {key: _filled(part, arrays) for key, part in parts}
    filled = [_filled(part, arrays) for part in parts]
    return tuple(filled) if kind == "tuple" else filled
