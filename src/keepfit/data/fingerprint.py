"""What identifies data from one process to the next, without reading all of it.

Of every array: shape, dtype, the hash of rows at fixed places (the same at
every size, so that data which has grown is told from data which has changed),
and up to 4 MB the hash of the whole. A change in place to other rows of a
larger array escapes.
"""

from __future__ import annotations

import itertools
import math
import types
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import xxhash

from keepfit import _keras, nested
from keepfit.data.columns import host_array, is_jax, is_pandas, is_store, stored_rows
from keepfit.data.draws import generators_of, undrawn
from keepfit.data.partitioned import Partitions
from keepfit.data.partitioned.told import partition_differences
from keepfit.data.pydataset import told_length
from keepfit.data.samples import gives_samples

if TYPE_CHECKING:
    from numpy.typing import NDArray

WHOLE_BYTES = 4_000_000
_MOST_ROWS = 64
_MOST_SAMPLES = 8  # of an object that makes each when it is asked
_FACTS = {
    "class": "another class",
    "num_batches": "another number of batches",
    "dtype": "another dtype",
    "columns": "other columns",
}
_MOST_TOLD = 3  # differing leaves in one sentence


def fingerprint(tree: Any) -> dict[str, Any]:
    """Return what identifies data: plain data of a few kB.

    Args:
        tree: Arrays or data sets, or a nested structure of them, such as
            ``{"x": x, "y": y}``; the keys are the names in `describe_difference`.

    Returns:
        JSON-able facts of the same structure. A PyDataset is identified by its
        class and length, a generator not at all.
    """
    if isinstance(tree, dict):
        return {"kind": "dict", "items": {str(key): fingerprint(tree[key]) for key in sorted(tree, key=str)}}
    if isinstance(tree, (list, tuple)):
        items = {str(place): fingerprint(item) for place, item in enumerate(tree)}
        return {"kind": "list" if isinstance(tree, list) else "tuple", "items": items}
    if tree is None:
        return {"kind": "none"}
    if isinstance(tree, Partitions):
        return tree.fingerprint()
    if isinstance(tree, types.GeneratorType):
        return {"kind": "generator"}
    if isinstance(tree, keras.utils.PyDataset):
        return {"kind": "PyDataset", "class": _class_name(tree), "num_batches": told_length(tree)}
    if _keras.is_sparse_or_ragged(tree):
        return _sparse(tree)
    if _keras.is_array_like(tree) or is_store(tree):
        return _dense(tree)
    facts = {"kind": "object", "class": _class_name(tree)}
    if gives_samples(tree) and not _keras.is_foreign_data(tree):
        return {**facts, "shape": [len(tree)], "rows": _sample_hashes(tree)}
    return facts


def describe_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """Return in one sentence what changed between two fingerprints, or None.

    Args:
        old: What `fingerprint` gave before.
        new: What it gives now.

    Example:
        >>> describe_difference(fingerprint({"x": np.arange(5)}), fingerprint({"x": np.arange(7)}))
        'x has grown from 5 to 7 rows with the same first rows'
    """
    found = list(_differences(old, new, ""))
    if not found:
        return None
    told = "; ".join(found[:_MOST_TOLD])
    return told if len(found) <= _MOST_TOLD else f"{told}; and {len(found) - _MOST_TOLD} more"


def fixed_rows(count: int) -> NDArray[np.int64]:
    """Return the rows that are hashed of ``count``: 0, 1, 2, 3, 5, 8, …, as far as they go."""
    rows: list[int] = []
    row, following = 0, 1
    while row < count and len(rows) < _MOST_ROWS:
        rows.append(row)
        row, following = (following, row + following) if row else (1, 2)
    return np.array(rows, dtype=np.int64)


def _dense(array: Any) -> dict[str, Any]:
    shape = [int(length) for length in array.shape]
    facts: dict[str, Any] = {"kind": "array", "shape": shape, "dtype": _dtype_name(array)}
    if is_pandas(array) and array.ndim == 2:
        facts["columns"] = [str(label) for label in array.columns]
    if not shape:
        return {**facts, "rows": [], "whole": _hash(host_array(array))}
    rows = fixed_rows(shape[0])
    taken = _rows(array, rows)
    facts["rows"] = [_hash(row) for row in taken]
    if taken.dtype != object and math.prod(shape) * taken.dtype.itemsize <= WHOLE_BYTES:
        facts["whole"] = _hash(host_array(array))
    return facts


def _sample_hashes(data: Any) -> list[str]:
    rows = fixed_rows(len(data))[:_MOST_SAMPLES].tolist()
    with undrawn(generators_of(data)) as drawn:
        hashes = ["".join(_hash(leaf) for leaf in nested.flatten(data[row]) if leaf is not None) for row in rows]
    return [] if drawn else hashes  # random ones are others each time


def _rows(array: Any, rows: NDArray[np.int64]) -> NDArray[Any]:
    if is_pandas(array):
        return host_array(array.iloc[rows])
    if isinstance(array, np.ndarray):
        return np.asarray(array)[rows]
    if is_store(array):
        return stored_rows(array, rows)
    if _keras.is_torch_tensor(array) or is_jax(array):
        # Taken on the device: only these rows travel.
        return host_array(array[rows])
    return host_array(array)[rows]


def _sparse(array: Any) -> dict[str, Any]:
    shape = [-1 if length is None else int(length) for length in array.shape]
    facts: dict[str, Any] = {"kind": "sparse", "shape": shape, "dtype": _dtype_name(array)}
    if hasattr(array, "row_splits"):
        values, lengths = np.asarray(array.flat_values), np.asarray(array.row_splits)
        return {**facts, "kind": "ragged", "rows": [], "whole": _hash(values) + _hash(lengths)}
    places, values = _coordinates(array)
    order = np.lexsort(places.T[::-1])
    places, values = places[order], values[order]
    starts = np.searchsorted(places[:, 0], np.arange(2)[None, :] + fixed_rows(shape[0])[:, None])
    facts["rows"] = [_hash(places[start:stop, 1:]) + _hash(values[start:stop]) for start, stop in starts]
    if places.nbytes + values.nbytes <= WHOLE_BYTES:
        facts["whole"] = _hash(places) + _hash(values)
    return facts


def _coordinates(array: Any) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return the places of what is stored, shape ``(stored, axes)``, and the values."""
    if hasattr(array, "tocoo"):
        stored = array.tocoo()
        return np.stack([stored.row, stored.col], axis=1).astype(np.int64), np.asarray(stored.data)
    if hasattr(array, "to_bcoo"):
        array = array.to_bcoo()
    values = np.asarray(array.data if hasattr(array, "data") else array.values)
    return np.asarray(array.indices).astype(np.int64), values


def _hash(array: Any) -> str:
    array = np.asarray(array)
    if array.dtype == object:
        text = "\0".join(str(item) for item in array.flat if isinstance(item, (str, bytes, int, float)))
        return xxhash.xxh3_128_hexdigest(text.encode("utf-8", "surrogatepass"))
    # As bytes: some dtypes (bfloat16) are no buffers of their own.
    return xxhash.xxh3_128_hexdigest(array.tobytes())


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], name: str) -> Iterator[str]:
    if old["kind"] != new["kind"]:
        yield f"{name or 'the data'} was {_kind(old)} and is now {_kind(new)}"
    elif old["kind"] == "partitions":
        yield from (f"{name or 'the data'}: {told}" for told in partition_differences(old, new))
    elif "items" in old:
        yield from _item_differences(old, new, name)
    elif old != new:
        yield f"{name or 'the data'} {_leaf_difference(old, new)}"


def _item_differences(old: Mapping[str, Any], new: Mapping[str, Any], name: str) -> Iterator[str]:
    def full(key: str) -> str:
        if not name:
            return key if old["kind"] == "dict" else f"[{key}]"
        return f"{name}[{key!r}]" if old["kind"] == "dict" else f"{name}[{key}]"

    for key in dict.fromkeys(itertools.chain(old["items"], new["items"])):
        if key not in new["items"]:
            yield f"{full(key)} is gone"
        elif key not in old["items"]:
            yield f"{full(key)} is new"
        else:
            yield from _differences(old["items"][key], new["items"][key], full(key))


def _leaf_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    for fact, words in _FACTS.items():
        if old.get(fact) != new.get(fact):
            return f"has {words}: {old.get(fact)}, now {new.get(fact)}"
    before, now = old["shape"], new["shape"]
    if before[1:] != now[1:] or len(before) != len(now):
        return f"has another shape: {tuple(before)}, now {tuple(now)}"
    compared = min(len(old["rows"]), len(new["rows"]))
    other = sum(mine != theirs for mine, theirs in zip(old["rows"], new["rows"], strict=False))
    values = f"{other} of {compared} compared rows differ" if other else "with the same first rows"
    if before != now:
        change = "grown" if now[0] > before[0] else "shrunk"
        return f"has {change} from {before[0]} to {now[0]} rows{'; ' if other else ' '}{values}"
    return f"has other values: {values}" if other else "has other values in some rows"


def _kind(facts: Mapping[str, Any]) -> str:
    return {"none": "None", "array": "an array", "sparse": "a sparse array"}.get(facts["kind"], f"a {facts['kind']}")


def _dtype_name(array: Any) -> str:
    if is_pandas(array):
        dtypes = [str(dtype) for dtype in array.dtypes] if array.ndim == 2 else [str(array.dtype)]
        return ", ".join(dtypes) if len(set(dtypes)) > 1 else dtypes[0]
    return str(array.dtype).removeprefix("torch.").removeprefix("<dtype: '").removesuffix("'>")


def _class_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
