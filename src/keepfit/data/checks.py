"""What is wrong with data or with how it was given, said before anything changes."""

from __future__ import annotations

import operator
from typing import Any

import keras
import numpy as np

from keepfit import nested
from keepfit.data.columns import check_dtype, is_rows
from keepfit.errors import InvalidArgument, InvalidData

_TAKES = (
    "NumPy arrays, tensors, pandas frames, sparse matrices and lists, tuples or dicts of them, "
    "keras.utils.PyDataset, Python generators, tf.data datasets, torch DataLoaders and Grain datasets"
)


def named_leaves(**structures: Any) -> list[tuple[str, Any]]:
    """Return ``(name, leaf)`` of every leaf that is not None, named like ``x``, ``x[0]`` or ``x['age']``."""
    leaves = []
    for name, structure in structures.items():
        for path, leaf in nested.flatten_with_path(structure):
            if leaf is not None:
                leaves.append((name + "".join(f"[{key!r}]" for key in path), leaf))
    return leaves


def check_array_like(leaves: list[tuple[str, Any]]) -> None:
    """Check that every leaf is something that Keras takes as an array.

    Raises:
        InvalidData: A leaf is not; names it.
    """
    for name, leaf in leaves:
        if np.ma.is_masked(leaf):
            raise InvalidData(
                f"{name} is a masked array with masked values, whose mask a model does not see. Nothing was changed. "
                "Give array.filled(value), and a mask or a sample_weight beside it.",
                name=name,
            )
        if is_rows(leaf):
            continue
        if isinstance(leaf, (bool, int, float, str)):
            raise InvalidData(
                f"{name} is a plain {type(leaf).__name__}; a list counts as several arrays, not as one. "
                "Nothing was changed. Give numpy.array(...) of the list.",
                name=name,
            )
        raise unrecognised(name, leaf)


def check_rows(leaves: list[tuple[str, Any]]) -> int:
    """Return the number of samples, after checking that all arrays have as many.

    Raises:
        InvalidData: There is no array, one has no axis or no rows, or lengths differ.
    """
    if not any(name.startswith("x") for name, _ in leaves):
        raise InvalidData(
            "There is no data: x is None or has no arrays in it. Nothing was changed. Give an array as x."
        )
    for name, leaf in leaves:
        if not tuple(getattr(leaf, "shape", ())):
            raise InvalidData(
                f"{name} has no axes; the first axis of an array counts samples. Nothing was changed. "
                "Give an array of shape (samples, ...), for example numpy.array([value]).",
                name=name,
            )
    return check_lengths(leaves)


def check_count(value: Any, name: str) -> int | None:
    """Return an optional count as an int of 1 or more.

    Raises:
        InvalidArgument: It is something else.
    """
    if value is None:
        return None
    try:
        count = operator.index(value)
    except TypeError:
        count = 0
    if count < 1 or isinstance(value, bool):
        raise InvalidArgument(f"{name} must be an integer of 1 or more, got {value!r}. Nothing was changed.")
    return count


def check_shuffle(shuffle: Any) -> bool | str:
    """Return ``shuffle`` as True, False or ``"batch"``.

    Raises:
        InvalidArgument: It is another text.
    """
    if isinstance(shuffle, str):
        if shuffle != "batch":
            raise InvalidArgument(f'shuffle must be True, False or "batch", got {shuffle!r}. Nothing was changed.')
        return shuffle
    return bool(shuffle)


def check_alone(kind: str, *, y: Any, sample_weight: Any, batch_size: Any = None) -> None:
    """Check that nothing was given beside a data set that makes whole batches.

    Raises:
        InvalidData: ``y`` or ``sample_weight`` was given.
        InvalidArgument: ``batch_size`` was given.
    """
    for name, value, what in (("y", y, "the targets"), ("sample_weight", sample_weight, "the sample weights")):
        if value is not None:
            raise InvalidData(
                f"{name} was given beside a {kind}, which makes whole batches. Nothing was changed. "
                f"Leave {name} out and make {what} part of the batches: (x, y) or (x, y, sample_weight).",
                name=name,
            )
    if batch_size is not None:
        raise InvalidArgument(
            f"batch_size={batch_size} was given beside a {kind}, which makes its own batches. Nothing was changed. "
            f"Leave batch_size out, and set it where the {kind} is made."
        )


def check_batch(batch: Any, kind: str) -> None:
    """Check that a batch which a data set made has arrays that a model can be given.

    Raises:
        InvalidData: A leaf is none; says where in the batch.
    """
    for name, leaf in named_leaves(**{f"the first batch of the {kind}": batch}):
        if not hasattr(leaf, "shape"):
            raise InvalidData(f"{name} is a {type(leaf).__name__}, not an array. Nothing was changed.", name=name)
        if len(leaf.shape) < 1:
            raise InvalidData(
                f"{name} has no axes; the first axis of an array counts samples. Nothing was changed. "
                "Give arrays of shape (samples, ...).",
                name=name,
            )
        if not _is_text_for_tensorflow(leaf):
            check_dtype(leaf.dtype, name)


def check_lengths(leaves: list[tuple[str, Any]]) -> int:
    """Return the number of samples, after checking that all arrays have as many.

    Args:
        leaves: Name and array, each with an axis of samples; one or more.

    Raises:
        InvalidData: There are no samples, or numbers of them differ.
    """
    lengths = {name: int(leaf.shape[0]) for name, leaf in leaves}
    if len(set(lengths.values())) > 1:
        width = max(map(len, lengths)) + 1
        lines = "\n".join(f"  {name + ':':{width}} {length} samples" for name, length in lengths.items())
        raise InvalidData(
            # The first sentence is Keras's, which people search for.
            f"Data cardinality is ambiguous. The arrays have different numbers of samples:\n{lines}\n"
            "Nothing was changed. Give arrays of the same length along their first axis.",
            lengths=lengths,
        )
    name, count = next(iter(lengths.items()))
    if count == 0:
        raise InvalidData(
            f"{name} is empty: it has 0 samples. Nothing was changed. Give at least one sample.", name=name
        )
    return count


def _is_text_for_tensorflow(leaf: Any) -> bool:
    if keras.backend.backend() != "tensorflow":
        return False
    return getattr(leaf.dtype, "name", "") == "string" or getattr(leaf.dtype, "kind", "-") in "OSU"


def unrecognised(name: str, value: Any) -> InvalidData:
    """Return the error for a type that is no data."""
    hint = ""
    if hasattr(value, "__next__") or hasattr(value, "__iter__"):
        hint = " An iterable of batches becomes a generator with (batch for batch in it)."
    return InvalidData(
        f"Unrecognized data type: {name} is a {type(value).__module__}.{type(value).__qualname__}. "
        f"Nothing was changed. keepfit takes {_TAKES}.{hint}",
        name=name,
    )


def unnamed_target(table: Any) -> InvalidData:
    """Return the error for a table of which nobody said which column is the target."""
    columns = ", ".join(str(name) for name in table.column_names)[:200]
    return InvalidData(
        f"x is a {type(table).__name__}, a table, and nothing says which of its columns is the target: {columns}. "
        'Nothing was changed. Give keepfit.partitions([table], target="label"), with the name of that column; '
        "without target= all columns are inputs.",
        name="x",
    )
