"""Which callback is which, over fits and processes."""

from __future__ import annotations

import inspect
import json
import weakref
from collections.abc import Sequence
from typing import Any

import keras

_OUTPUT = ("verbose", "filepath", "filename", "log_dir", "backup_dir", "path", "root", "directory")
_SEEN: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


def callback_keys(callbacks: Sequence[Any]) -> list[str]:
    """Return a key for each callback: its class, its config, and its occurrence among equals.

    The config is what the constructor was given, read when an object is first
    seen, so that a setting that is annealed later does not change the key.
    Places of output and ``verbose`` are left out. Another process gives equal
    callbacks equal keys.
    """
    counts: dict[str, int] = {}
    keys = []
    for callback in callbacks:
        base = _base(callback)
        count = counts.get(base, 0)
        counts[base] = count + 1
        keys.append(f"{base}#{count}")
    return keys


def _base(callback: Any) -> str:
    try:
        known = _SEEN.get(callback)
    except TypeError:  # cannot be referred to weakly, or has no hash
        return _described(callback)
    if known is None:
        known = _SEEN[callback] = _described(callback)
    return known


def _described(callback: Any) -> str:
    kind = type(callback)
    name = f"{'keras.' if is_stock(callback) else kind.__module__ + '.'}{kind.__qualname__}"
    if kind.__module__ == "__main__":
        name = kind.__qualname__
    return f"{name}({json.dumps(_config(callback), sort_keys=True)})"


def _config(callback: Any) -> dict[str, Any]:
    config = {}
    for name in constructor_names(type(callback)):
        value = getattr(callback, name, None)
        if name in _OUTPUT:
            continue
        if name == "min_delta" and isinstance(value, (int, float)):
            value = abs(value)  # Keras turns its sign while training
        if isinstance(value, (bool, int, float, str, type(None))):
            config[name] = value
        elif callable(value):
            config[name] = getattr(value, "__qualname__", type(value).__qualname__)
    return config


def constructor_names(kind: type) -> list[str]:
    """Return the names of the arguments that a callback's class takes."""
    try:
        parameters = inspect.signature(kind).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]


def is_stock(callback: Any) -> bool:
    """Return whether a callback's class is Keras's own."""
    return type(callback).__module__.split(".")[0] == "keras" and isinstance(callback, keras.callbacks.Callback)
