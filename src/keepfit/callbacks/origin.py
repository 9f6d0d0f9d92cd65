"""What a callback was when this process first saw it: what its script gave it."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import keras
import numpy as np
import xxhash

from keepfit.callbacks.attributes import attributes_of
from keepfit.callbacks.identity import IdentityMap

# What a callback writes and says is not what it does.
OUTPUTS = frozenset({"verbose", "filepath", "filename", "log_dir", "backup_dir", "directory", "path", "root"})
# An array from here on is likelier data that the script gives than something learnt.
LARGE_BYTES = 1 << 20
# Beyond this, rows spread over an array stand for it.
_WHOLE_BYTES = 64 << 20
_ROWS = 1024


@dataclass(frozen=True)
class Origin:
    """What a callback was made with.

    Args:
        described: Its class and config: the key without the occurrence.
        texts: Attribute -> text or path.
        large: Attribute -> hash of the large arrays in it.
    """

    described: str
    texts: Mapping[str, Any]
    large: Mapping[str, str]


_SEEN: IdentityMap[Origin] = IdentityMap()


def origin_of(callback: Any) -> Origin:
    """Return what a callback was when it was first asked for here."""
    origin = _SEEN.get(callback)
    if origin is None:
        origin = _read(callback)
        _SEEN.put(callback, origin)
    return origin


def callback_keys(callbacks: Sequence[Any]) -> list[str]:
    """Return a key for each callback: its class, its config, and its occurrence among equals.

    The config is what the constructor was given, as it was when the object was
    first seen, so that a setting that is annealed later does not change the
    key. Places of output and ``verbose`` are left out, functions count by
    their qualified names. Another process gives equal callbacks equal keys.
    """
    counts: dict[str, int] = {}
    keys = []
    for callback in callbacks:
        described = origin_of(callback).described
        counts[described] = count = counts.get(described, -1) + 1
        keys.append(f"{described}#{count}")
    return keys


def settings_of(callback: Any) -> frozenset[str]:
    """Return the names of the arguments of a callback's class, those it passes on to its bases included."""
    kind: Any = type(callback)
    return _settings(kind)


def is_stock(callback: Any) -> bool:
    """Return whether a callback's class is Keras's own."""
    return type(callback).__module__.split(".")[0] == "keras" and isinstance(callback, keras.callbacks.Callback)


def class_name(callback: Any) -> str:
    """Return the qualified name of a callback's class; a script's own classes have the same one wherever it is run."""
    kind = type(callback)
    if is_stock(callback):
        return f"keras.{kind.__qualname__}"
    return kind.__qualname__ if kind.__module__ == "__main__" else f"{kind.__module__}.{kind.__qualname__}"


def large_hash(value: Any) -> str | None:
    """Return a hash of the arrays in a value, None where they are small or it has none."""
    arrays = list(_arrays(value))
    if sum(array.nbytes for array in arrays) < LARGE_BYTES:
        return None
    state = xxhash.xxh3_128()
    for array in arrays:
        if array.nbytes > _WHOLE_BYTES and array.ndim:
            array = array[np.linspace(0, len(array) - 1, _ROWS, dtype=np.int64)]
        state.update(f"{array.dtype.name}{array.shape}".encode())
        state.update(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
    return state.hexdigest()


def _read(callback: Any) -> Origin:
    held = attributes_of(callback)
    described = f"{class_name(callback)}({json.dumps(_config(callback, held), sort_keys=True)})"
    if is_stock(callback):
        return Origin(described, {}, {})
    texts = {name: value for name, value in held.items() if isinstance(value, (str, PurePath))}
    hashes = {name: large_hash(value) for name, value in held.items()}
    return Origin(described, texts, {name: found for name, found in hashes.items() if found is not None})


@functools.lru_cache(maxsize=256)
def _settings(kind: Any) -> frozenset[str]:
    names: set[str] = set()
    for base in kind.__mro__:
        if "__init__" not in vars(base) or base in (keras.callbacks.Callback, object):
            continue
        parameters = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
        names.update(p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL))
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return frozenset(names)


def _config(callback: Any, held: Mapping[str, Any]) -> dict[str, Any]:
    config = {}
    for name in sorted(settings_of(callback)):
        if name in OUTPUTS or name not in held:
            continue
        value = held[name]
        if name == "min_delta" and "monitor_op" in held and isinstance(value, (int, float)):
            value = abs(value)  # Keras turns its sign when it learns what improvement means
        plain = _plain(value)
        if plain is not None:
            config[name] = plain
    return config


def _plain(value: Any) -> Any:
    """Return a setting as JSON; None for what is not one, and for None."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((_plain(item) for item in value), key=repr)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if callable(value):
        return getattr(value, "__qualname__", type(value).__qualname__)
    return None


def _arrays(value: Any, depth: int = 0) -> Any:
    if type(value) is np.ndarray:
        if not value.dtype.hasobject:
            yield value
    elif isinstance(value, (list, tuple, dict)) and depth < 4 and len(value) <= 64:
        for item in value.values() if isinstance(value, dict) else value:
            yield from _arrays(item, depth + 1)
    elif hasattr(value, "nbytes") and keras.ops.is_tensor(value) and value.nbytes >= LARGE_BYTES:
        yield np.asarray(keras.ops.convert_to_numpy(value))
