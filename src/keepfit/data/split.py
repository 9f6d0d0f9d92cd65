"""The part of the training data that is held back for validation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keepfit import _keras
from keepfit.data.checks import check_alone, check_array_like, check_rows, named_leaves, unnamed_target
from keepfit.data.columns import StoreRows, host_array, is_mapped, is_pandas, is_store
from keepfit.data.partitioned import Partitions, is_table, rows_of_side
from keepfit.data.samples import SampleRows, gives_samples
from keepfit.errors import InvalidArgument, InvalidData

if TYPE_CHECKING:
    from numpy.typing import NDArray

Data = tuple[Any, Any, Any]


def split_validation(x: Any, y: Any, sample_weight: Any, validation_split: float) -> tuple[Data, Data]:
    """Return the data without the part that is held back, and that part.

    Of arrays the last fraction is held back, as Keras does. Of data that Keras does not split,
    which often is sorted and which grows, samples are held back by a hash of their place: the
    same ones in every fit, whatever the seed, and none changes sides when the data grows.

    Args:
        x: Inputs: arrays or nested structures of them; or, held back by a hash, partitions, stored
            arrays (HDF5, Zarr; one among the arrays decides for all) and objects that give samples.
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
    if is_table(x) and (y is None or not _keras.is_array_like(x)):
        raise unnamed_target(x)
    if _gives_samples(x):
        check_alone(type(x).__name__, y=y, sample_weight=sample_weight)
        train, held_back = (
            SampleRows(x, rows, fraction=validation_split, held_back=back)
            for back, rows in zip((False, True), _sides(len(x), validation_split), strict=True)
        )
        return (train, None, None), (held_back, None, None)
    leaves = named_leaves(x=x, y=y, sample_weight=sample_weight)
    if any(is_store(leaf) for _, leaf in leaves):
        check_array_like(leaves)
        train_rows, held_rows = _sides(check_rows(leaves), validation_split)
        data = (x, y, sample_weight)
        return _chosen(data, train_rows), _chosen(data, held_rows)
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
        raise _one_side_empty(count, validation_split)
    data = (x, y, sample_weight)
    return _part(data, slice(0, split_at)), _part(data, slice(split_at, count))


def _gives_samples(x: Any) -> bool:
    """Return whether the data is an object that gives one sample for an index, as the adapters tell them."""
    if keras.tree.is_nested(x) or is_store(x) or not gives_samples(x) or _keras.is_array_like(x):
        return False
    return not isinstance(x, keras.utils.PyDataset) and not _keras.is_foreign_data(x)


def _sides(count: int, fraction: float) -> list[NDArray[np.int64]]:
    """Return the rows to train on and those that are held back."""
    # A store is one partition: its samples are on the sides that they would be on as the first file of partitions.
    sides = [rows_of_side(0, count, fraction, held_back=held_back) for held_back in (False, True)]
    if not all(map(len, sides)):
        raise _one_side_empty(count, fraction)
    return sides


def _one_side_empty(count: int, fraction: float) -> InvalidData:
    return InvalidData(
        f"validation_split={fraction} of {count} samples leaves one side empty. Nothing was changed. "
        "Give more samples or another fraction."
    )


def _chosen(data: Data, rows: NDArray[np.int64]) -> Data:
    chosen: Data = keras.tree.map_structure(lambda leaf: _chosen_rows(leaf, rows), data, none_is_leaf=False)
    return chosen


def _chosen_rows(leaf: Any, rows: NDArray[np.int64]) -> Any:
    """Return some rows: of what is on disk without reading them, of what is in memory a copy."""
    if is_store(leaf) or (isinstance(leaf, np.ndarray) and is_mapped(leaf)):
        return StoreRows(leaf, rows)
    if is_pandas(leaf):
        return leaf.iloc[rows]
    if _keras.is_sparse_or_ragged(leaf):
        return _keras.native_rows(leaf, rows)
    return host_array(leaf)[rows]


def _part(data: Data, rows: slice) -> Data:
    part: Data = keras.tree.map_structure(lambda leaf: _sliced(leaf, rows), data, none_is_leaf=False)
    return part


def _sliced(leaf: Any, rows: slice) -> Any:
    if is_pandas(leaf):
        return leaf.iloc[rows]
    if _keras.is_sparse_or_ragged(leaf):
        return _keras.native_rows(leaf, rows)
    return leaf[rows] if hasattr(leaf, "__getitem__") else np.asarray(leaf)[rows]
