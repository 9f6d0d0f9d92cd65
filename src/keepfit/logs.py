"""The logs of an epoch: single numbers, which the journal holds in columns, and arrays, which few metrics give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def numbers(logs: Mapping[str, Any]) -> dict[str, float]:
    """Return the logs that are single numbers, as Python floats."""
    return {name: float(value) for name, value in logs.items() if _is_number(value)}


def arrays(logs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the logs that are arrays, as JSON that `array` reads."""
    found = {}
    for name, value in logs.items():
        if _is_number(value) or value is None or isinstance(value, (str, Mapping)):
            continue
        array = np.asarray(value)
        if array.dtype.kind in "fiub":
            found[name] = {"dtype": array.dtype.str, "shape": list(array.shape), "bytes": array.tobytes().hex()}
    return found


def array(stored: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    """Return an array that `arrays` gave."""
    flat = np.frombuffer(bytes.fromhex(stored["bytes"]), np.dtype(stored["dtype"]))
    return flat.reshape(stored["shape"]).copy()


def _is_number(value: Any) -> bool:
    if isinstance(value, (bool, int, float, np.number)):
        return True
    return getattr(value, "shape", None) == () and getattr(value, "dtype", None) is not None
