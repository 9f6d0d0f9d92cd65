"""Plain values as JSON: numbers, text, containers of them, arrays by their hash."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
import math
from typing import Any

import numpy as np
import xxhash

NOT_PLAIN: Any = object()  # what `plain` gives for a value that plain data cannot tell

_WHOLE_BYTES = 64 * 1024  # arrays up to here are hashed whole: 5 us
_SAMPLED_ELEMENTS = 4096
_LONGEST_TEXT = 256
MOST_ITEMS = 64  # of longer containers the hash stands for the value
_DEEPEST = 8


def plain(value: Any, depth: int = 0) -> Any:
    """Return a value as JSON, or `NOT_PLAIN`.

    Numbers, text, enumerations, dataclasses, arrays, and lists, tuples, sets and
    dicts of them are plain. Of long text and arrays the hash stands for the
    value; of arrays beyond 64 KiB, that of 4,096 elements at fixed places.
    """
    if value is None or value is True or value is False or type(value) is int:
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": str(value)}
    if type(value) is str:
        return value if len(value) <= _LONGEST_TEXT else {"text": text_hash(value)}
    return _other(value, depth)


def text_hash(text: str) -> str:
    """Return 32 hex digits that stand for a long text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _other(value: Any, depth: int) -> Any:
    if isinstance(value, enum.Enum):
        return {"enum": f"{type(value).__name__}.{value.name}"}
    if isinstance(value, (bool, int, float, str)):
        base = next(kind for kind in (bool, int, float, str) if isinstance(value, kind))
        return plain(base(value))
    if isinstance(value, (np.generic, np.ndarray)):
        return array_value(value)
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": hashlib.sha256(value).hexdigest()[:32]}
    if isinstance(value, complex):
        return {"complex": [plain(value.real), plain(value.imag)]}
    if depth < _DEEPEST:
        return _container(value, depth + 1)
    return NOT_PLAIN


def _container(value: Any, depth: int) -> Any:
    if isinstance(value, dict):
        pairs = {key_text(key): plain(item, depth) for key, item in value.items()}
        return NOT_PLAIN if any(item is NOT_PLAIN for item in pairs.values()) else _bounded(pairs)
    if isinstance(value, (list, tuple)):
        items = [plain(item, depth) for item in value]
        return NOT_PLAIN if any(item is NOT_PLAIN for item in items) else _bounded(items)
    if isinstance(value, (set, frozenset)):
        items = [plain(item, depth) for item in value]
        return NOT_PLAIN if any(item is NOT_PLAIN for item in items) else _bounded(sorted(items, key=json_text))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain({field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}, depth)
    return NOT_PLAIN


def _bounded(items: Any) -> Any:
    return items if len(items) <= MOST_ITEMS else {"items": len(items), "hash": text_hash(json_text(items))}


def json_text(value: Any) -> str:
    """Return canonical JSON: keys sorted, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def key_text(key: Any) -> str:
    """Return a dict's key as text; numbers as numbers, so that NumPy's and Python's are the same."""
    return str(key.item() if isinstance(key, np.generic) else key)


def array_value(value: Any) -> Any:
    """Return a NumPy scalar or array as JSON: a number where it has no axes, else its hash."""
    array = np.asarray(value)
    if array.ndim == 0:
        item = array.item()
        return plain(item) if isinstance(item, (bool, int, float, complex, str)) else NOT_PLAIN
    if array.dtype.hasobject:
        return NOT_PLAIN
    if array.nbytes > _WHOLE_BYTES:
        places = np.linspace(0, array.size - 1, _SAMPLED_ELEMENTS).astype(np.int64)
        sample = array[np.unravel_index(places, array.shape)]
    else:
        sample = np.ascontiguousarray(array)
    digest = xxhash.xxh3_128_hexdigest(sample.tobytes())
    return {"array": digest, "dtype": array.dtype.name, "shape": list(array.shape)}
