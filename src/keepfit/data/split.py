"""The part of the training data that is held back for validation."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from keepfit import _keras
from keepfit.data.checks import check_rows, named_leaves
from keepfit.data.columns import is_pandas
from keepfit.data.partitioned import Partitions
from keepfit.errors import InvalidArgument, InvalidData

Data = tuple[Any, Any, Any]


def split_validation(x: Any, y: Any, sample_weight: Any, validation_split: float) -> tuple[Data, Data]:
    """Return the data without its last fraction, and that fraction, as Keras splits it.

    Args:
        x: Inputs: arrays or nested structures of them, or partitions, whose samples are held back by
            a hash of their place, the same in every fit.
        y: Targets, or None.
        sample_weight: Weights, or None.
        validation_split: Fraction to hold back, greater than 0 and less than 1.

    Returns:
        ``(x, y, sample_weight)`` to train on and to validate on; dense arrays are views.

    Raises:
        InvalidArgument: The fraction is out of range.
        InvalidData: The data cannot be split, or one side would be empty.

    Example:
        >>> (x, _, _), (held_back, _, _) = split_validation(np.arange(10), None, None, 0.2)
        >>> x.tolist(), held_back.tolist()
        ([0, 1, 2, 3, 4, 5, 6, 7], [8, 9])
    """
    if not 0 < validation_split < 1:
        raise InvalidArgument(
            f"validation_split must be greater than 0 and less than 1, got {validation_split}. Nothing was changed."
        )
    if isinstance(x, Partitions):
        sides = x.split(validation_split)
        return (sides[0], y, sample_weight), (sides[1], None, None)
    leaves = named_leaves(x=x, y=y, sample_weight=sample_weight)
    for name, leaf in leaves:
        if not _keras.is_array_like(leaf):
            raise InvalidData(
                f"validation_split needs arrays, but {name} is a {type(leaf).__name__}. Nothing was changed. "
                "Give validation_data=... instead.",
                name=name,
            )
    count = check_rows(leaves)
    split_at = math.floor(count * (1.0 - validation_split))
    if split_at in (0, count):
        raise InvalidData(
            f"validation_split={validation_split} of {count} samples leaves one side empty. Nothing was changed. "
            "Give more samples or another fraction."
        )
    data = (x, y, sample_weight)
    return _part(data, slice(0, split_at)), _part(data, slice(split_at, count))


def _part(data: Data, rows: slice) -> Data:
    part: Data = keras.tree.map_structure(lambda leaf: _sliced(leaf, rows), data, none_is_leaf=False)
    return part


def _sliced(leaf: Any, rows: slice) -> Any:
    if is_pandas(leaf):
        return leaf.iloc[rows]
    if _keras.is_sparse_or_ragged(leaf):
        return _keras.native_rows(leaf, rows)
    return leaf[rows] if hasattr(leaf, "__getitem__") else np.asarray(leaf)[rows]
