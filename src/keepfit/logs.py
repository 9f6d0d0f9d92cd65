"""The logs of an epoch: single numbers, which the journal holds in columns, and arrays, which few metrics give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

_MORE_IS_BETTER = ("acc", "auc", "precision", "recall", "f1", "iou", "r2", "score", "cosine", "coefficient")


def more_is_better(metric: str) -> bool:
    """Return whether a metric is better where it is higher, as its name tells.

    Example:
        >>> more_is_better("val_accuracy"), more_is_better("loss")
        (True, False)
    """
    return any(part in metric for part in _MORE_IS_BETTER)


def flat(logs: Mapping[str, Any]) -> dict[str, Any]:
    """Return logs as Keras does: sorted by name, and what lies in a dict, as some metrics give, under its own name.

    Example:
        >>> flat({"loss": 2.0, "counts": {"right": 3, "all": 4}})
        {'all': 4, 'right': 3, 'loss': 2.0}
    """
    found: dict[str, Any] = {}
    for name, value in sorted(logs.items()):
        found.update(flat(value) if isinstance(value, dict) else {name: value})
    return found


def loss_in(logs: Any) -> Any:
    """Return the loss in what a step returned: what is called so, else the first value; 0.0 where there is none."""
    while isinstance(logs, dict):
        logs = logs["loss"] if "loss" in logs else next(iter(logs.values()), 0.0)
    return logs


def numbers(logs: Mapping[str, Any]) -> dict[str, float]:
    """Return the logs that are single numbers, as Python floats."""
    return {name: float(value) for name, value in logs.items() if _is_number(value)}


def arrays(logs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the logs that are arrays, as JSON that `merged` reads; each with its place among the logs."""
    found = {}
    for place, (name, value) in enumerate(logs.items()):
        if _is_number(value) or value is None or isinstance(value, (str, Mapping)):
            continue
        array = np.asarray(value)
        if array.dtype.kind in "fiub":
            stored = {"dtype": array.dtype.str, "shape": list(array.shape), "bytes": array.tobytes().hex()}
            found[name] = {**stored, "place": place}
    return found


def merged(plain: Mapping[str, float], stored: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the logs that `numbers` and `arrays` took apart, in the order they had."""
    items: list[tuple[str, Any]] = list(plain.items())
    for name, found in stored.items():
        items.insert(found.get("place", len(items)), (name, _array(found)))
    return dict(items)


def _array(stored: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    flat = np.frombuffer(bytes.fromhex(stored["bytes"]), np.dtype(stored["dtype"]))
    return flat.reshape(stored["shape"]).copy()


def _is_number(value: Any) -> bool:
    if isinstance(value, (bool, int, float, np.number)):
        return True
    return getattr(value, "shape", None) == () and getattr(value, "dtype", None) is not None
