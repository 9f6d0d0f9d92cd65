"""Whole states compared bit for bit."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keepfit.state import variables_of


def state_bits(model: Any) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Return name -> dtype, shape and bytes of every variable of model, optimizers and metrics."""
    values = {name: np.asarray(value) for name, value in variables_of(model).values().items()}
    return {name: (str(array.dtype), array.shape, array.tobytes()) for name, array in values.items()}


def dense(array: Any) -> Any:
    """Return an array of any library as NumPy, sparse ones of SciPy, JAX and TensorFlow too."""
    if hasattr(array, "todense"):
        return np.asarray(array.todense())
    return np.asarray(keras.ops.convert_to_numpy(array)) if hasattr(array, "dense_shape") else np.asarray(array)


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return the names under which two states differ."""
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


def joined_history(histories: list[Any]) -> dict[str, list[Any]]:
    """Return the logs and epoch numbers of several fits as if they were one."""
    joined: dict[str, list[Any]] = {"epoch": []}
    for history in histories:
        joined["epoch"] += history.epoch
        for name, values in history.history.items():
            joined.setdefault(name, []).extend(values)
    return joined
