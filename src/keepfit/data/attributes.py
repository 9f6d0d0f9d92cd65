"""The numbers, lists and arrays in attributes of a data object, which may decide the batches to come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from keepfit.data import draws

# A longer list is data.
_MOST_ITEMS = 100_000
_NUMBERS = (int, float)


def take(roots: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers, lists of numbers or texts and arrays among the attributes of some objects and their parts.

    No truth values: what says that a file is open must not be brought into a
    process where it is closed.

    Args:
        roots: Name -> object.

    Returns:
        Path -> value, as it is and not a copy.
    """
    found = {}
    for path, part in _owners(roots):
        for name, value in vars(part).items():
            if type(value) in _NUMBERS or _is_list(value) or _is_array(value):
                found[f"{path}.{name}"] = value
    return found


def put(roots: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Give attributes the values that `take` found; of objects that are not there any more nothing is done."""
    owners, now = dict(_owners(roots)), take(roots)
    for path, value in values.items():
        owner, _, name = path.rpartition(".")
        if owner in owners and not same(value, now.get(path)):
            _set(vars(owners[owner]), name, value)


def copies(roots: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `take` finds as values that stay as they are."""
    return {path: _copied(value) for path, value in take(roots).items()}


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> set[str]:
    """Return the paths whose values differ."""
    return {path for path in {**before, **now} if not same(before.get(path), now.get(path))}


def same(one: Any, other: Any) -> bool:
    """Return whether two values are the same to the bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return bool(one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes())
    return bool(one == other)


def told(value: Any) -> Any:
    """Return a value as plain data."""
    if isinstance(value, np.ndarray):
        return {"array": [value.dtype.str, list(value.shape), value.tobytes().hex()]}
    return {"float": value.hex()} if isinstance(value, float) else value if isinstance(value, int) else {"list": value}


def read(plain: Any) -> Any:
    """Return the value of which `told` gave this."""
    if not isinstance(plain, Mapping):
        return plain
    ((kind, inner),) = plain.items()
    if kind == "array":
        dtype, shape, text = inner
        return np.frombuffer(bytes.fromhex(text), dtype).reshape(shape).copy()
    return float.fromhex(inner) if kind == "float" else list(inner)


def _owners(roots: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the parts whose attributes count."""
    for path, part in draws.parts_of(dict(roots), functions=False):
        if hasattr(part, "__dict__") and not draws.is_generator(part):
            yield path, part


def _copied(value: Any) -> Any:
    return value.copy() if isinstance(value, (list, np.ndarray)) else value


def _is_list(value: Any) -> bool:
    return type(value) is list and len(value) <= _MOST_ITEMS and all(type(each) in (int, float, str) for each in value)


def _is_array(value: Any) -> bool:
    return type(value) is np.ndarray and value.size <= _MOST_ITEMS and value.dtype.kind in "biufc"


def _set(held: dict[str, Any], name: str, value: Any) -> None:
    now = held.get(name)
    if type(now) is list:
        now[:] = value  # in place: others may hold it
    elif isinstance(now, np.ndarray) and now.shape == value.shape and now.dtype == value.dtype and now.flags.writeable:
        now[...] = value
    else:
        held[name] = _copied(value)
