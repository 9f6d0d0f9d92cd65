"""Kept samples in the batch structure of a fit: either side may have weights where the other has none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from numpy.typing import NDArray

from keepfit import nested
from keepfit.data import class_weighted
from keepfit.errors import InvalidData
from keepfit.rehearsal.layout import Layout, difference

if TYPE_CHECKING:
    from keepfit.data import IndexedSource
    from keepfit.rehearsal.kept import Kept
    from keepfit.rehearsal.reservoir import Selection


@dataclass(frozen=True)
class Batch:
    """The batch structure of a fit that rehearses.

    Args:
        x: Inputs of a few samples.
        y: Targets, or None.
        weights: Sample weights, where new or earlier samples have any; else None.
    """

    x: Any
    y: Any
    weights: Any

    @classmethod
    def of(cls, source: IndexedSource, kept: list[Kept]) -> Batch:
        """Return the structure that serves a source and what is kept.

        Raises:
            InvalidData: They are not alike; nothing was changed.
        """
        x, y, weights = keras.utils.unpack_x_y_sample_weight(source.peek())
        layout, (first, *_) = Layout.of(x, y, weights)
        layouts = {each.fit: Layout.from_json(each.layout) for each in kept}
        for fit, theirs in layouts.items():
            lines = difference(theirs, layout)
            if lines is not None:
                raise _not_alike(fit, lines)
        for theirs in layouts.values():
            given = theirs.packed([np.ones((len(first), *shape), dtype) for _, dtype, shape in theirs.leaves])[2]
            weights = given if weights is None else weights
        for fit, theirs in layouts.items():
            given = theirs.packed([np.ones((1, *shape), dtype) for _, dtype, shape in theirs.leaves])[2]
            if given is not None and _row_sizes(given) != _row_sizes(weights):
                shapes = [f"  sample_weight: kept {_row_shapes(given)}, now {_row_shapes(weights)} for each sample"]
                raise _not_alike(fit, "\n".join(shapes))
        return cls(x, y, weights)

    @property
    def like(self) -> Any:
        """A batch of the structure."""
        return keras.utils.pack_x_y_sample_weight(self.x, self.y, self.weights)

    def filled(
        self, selection: Selection, arrays: list[list[NDArray[Any]]], *, classes: Mapping[int, float] | None
    ) -> Any:
        """Return selected samples as one batch.

        Args:
            selection: What is selected.
            arrays: Its arrays, source by source, each in the order of its layout.
            classes: Class number -> weight, which multiplies what weights there are; or None.
        """
        parts = []
        for (kept, _), found in zip(selection, arrays, strict=True):
            x, y, weights = Layout.from_json(kept.layout).packed(list(found))
            parts.append([*nested.flatten((x, y)), *self._weights(weights, y, len(found[0]), classes)])
        leaves = [None if part[0] is None else np.concatenate(part) for part in zip(*parts, strict=True)]
        x, y, weights = nested.pack_sequence_as((self.x, self.y, self.weights), leaves)
        return keras.utils.pack_x_y_sample_weight(x, y, weights)

    def _weights(self, given: Any, y: Any, rows: int, classes: Mapping[int, float] | None) -> list[Any]:
        """Return the weights of one source's samples: ones where it has none."""
        mine = nested.flatten(self.weights)
        if given is None:
            found = [None if leaf is None else np.ones((rows, *leaf.shape[1:]), leaf.dtype) for leaf in mine]
        else:
            found = [
                None if leaf is None else np.asarray(own).reshape(rows, *leaf.shape[1:]).astype(leaf.dtype)
                for own, leaf in zip(nested.flatten(given), mine, strict=True)
            ]
        if classes is None:
            return found
        factors = class_weighted(y, classes)
        return [leaf * factors.reshape(leaf.shape).astype(leaf.dtype) for leaf in found if leaf is not None]


def _row_shapes(weights: Any) -> list[Any]:
    return [None if leaf is None else tuple(leaf.shape[1:]) for leaf in nested.flatten(weights)]


def _row_sizes(weights: Any) -> list[int]:
    return [0 if shape is None else math.prod(shape) for shape in _row_shapes(weights)]


def _not_alike(fit: int, lines: str) -> InvalidData:
    return InvalidData(
        f"The samples that fit {fit} left are not like those of this fit:\n{lines}\n"
        "Nothing was changed. Give data of the same structure, shapes and dtypes, or leave rehearse= out.",
        argument="rehearse",
    )
