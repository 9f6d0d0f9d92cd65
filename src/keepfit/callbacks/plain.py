"""Plain data and arrays as JSON and tensors, exactly and without executing code when read."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

# Small arrays are cheaper in JSON than as a tensor of their own; all go to tensors to keep one way.
_MOST_DEPTH = 12


class NotPlain(Exception):  # noqa: N818 - says what a value is
    """A value that is neither plain data nor an array."""


def encode(value: Any, path: str, tensors: dict[str, Any], depth: int = 0) -> Any:
    """Return JSON for a value; its arrays go to ``tensors`` under names that begin with ``path``.

    Types come back exactly: a tuple stays a tuple, integer keys stay integers,
    a NumPy scalar keeps its dtype, and NaN and infinities survive.

    Raises:
        NotPlain: The value holds something else.
    """
    if depth > _MOST_DEPTH:
        raise NotPlain(path)
    if value is None or isinstance(value, (bool, str)) or type(value) is int:
        return value
    if type(value) is float:
        return {"float": value.hex()}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, np.generic) and value.dtype.kind in "fiub":
        return {"scalar": value.tobytes().hex(), "dtype": value.dtype.str}
    if isinstance(value, np.ndarray) or (hasattr(value, "__array__") and hasattr(value, "dtype") and hasattr(value, "shape")):
        # A copy: what the callback does to its array afterwards must not reach the snapshot.
        array = np.array(value)
        if array.dtype.hasobject or array.dtype.kind in "USV":
            raise NotPlain(path)
        tensors[path] = array
        return {"array": path}
    return _container(value, path, tensors, depth + 1)


def _container(value: Any, path: str, tensors: dict[str, Any], depth: int) -> Any:
    kinds: dict[type, str] = {list: "list", tuple: "tuple", set: "set", frozenset: "frozenset", deque: "deque"}
    if isinstance(value, Mapping) and type(value) in (dict,) or type(value).__name__ in ("OrderedDict", "defaultdict"):
        items = [
            [encode(key, f"{path}/{index}k", tensors, depth), encode(item, f"{path}/{index}", tensors, depth)]
            for index, (key, item) in enumerate(value.items())
        ]
        return {"dict": items}
    if type(value) not in kinds:
        raise NotPlain(path)
    members = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
    encoded = [encode(item, f"{path}/{index}", tensors, depth) for index, item in enumerate(members)]
    result: dict[str, Any] = {kinds[type(value)]: encoded}
    if isinstance(value, deque):
        result["maxlen"] = value.maxlen
    return result


def decode(value: Any, tensors: Mapping[str, Any]) -> Any:
    """Return what `encode` was given."""
    if not isinstance(value, Mapping):
        return value
    kind = next(iter(value))
    inner = value[kind]
    if kind == "float":
        return float.fromhex(inner)
    if kind == "bytes":
        return bytes.fromhex(inner)
    if kind == "scalar":
        return np.frombuffer(bytes.fromhex(inner), np.dtype(value["dtype"]))[0]
    if kind == "array":
        return np.array(tensors[inner])
    if kind == "dict":
        return {decode(key, tensors): decode(item, tensors) for key, item in inner}
    members = [decode(item, tensors) for item in inner]
    if kind == "deque":
        return deque(members, value["maxlen"])
    return {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[kind](members)
