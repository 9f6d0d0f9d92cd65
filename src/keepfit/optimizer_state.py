"""Optimizer state over a changed set of trained variables, and over a new ``compile()``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from keepfit import _keras, held
from keepfit.errors import InvalidArgument
from keepfit.state import variables_of

_PREFIX = "optimizer/"


def optimizer_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that belong to ``model.optimizer``, by structural name."""
    return {name: value for name, value in values.items() if name.startswith(_PREFIX)}


def has_trained(values: Mapping[str, Any]) -> bool:
    """Return whether an optimizer with these values has made a step."""
    return any(int(np.asarray(value)) > 0 for name, value in values.items() if name.endswith("/iterations"))


def is_seated(model: Any) -> bool:
    """Return whether the optimizer serves the variables that train now, or is not built for any yet."""
    served = _keras.optimizer_variables(model.optimizer)
    return not model.optimizer.built or [id(v) for v in served] == [id(v) for v in model.trainable_variables]


def reseat(model: Any, before: Mapping[str, Any]) -> None:
    """Make the optimizer serve the variables that train now; the object stays the same.

    Keras builds an optimizer for one set of variables. Where layers were frozen
    or unfrozen since, it is built anew for the new set: what keeps training
    keeps its state, by name, and what begins to train begins fresh.

    Args:
        model: A built model with a built optimizer.
        before: Name -> array of the optimizer's variables.

    Raises:
        InvalidArgument: The optimizer cannot be made from its config; nothing was changed.
    """
    optimizer = model.optimizer
    try:
        _keras.rebuild_optimizer(optimizer, list(model.trainable_variables))
    except Exception as error:
        raise InvalidArgument(
            f"Other layers train than before, and {type(optimizer).__name__} could not be made anew for them: {error}. "
            "Nothing was changed. Call model.compile() with a new optimizer.",
        ) from error
    carry(model, before, rate=True)


def carry(model: Any, before: Mapping[str, Any], *, rate: bool) -> list[str]:
    """Give the optimizer's variables the values they had under the same names.

    Args:
        model: The model, its optimizer built.
        before: Name -> array.
        rate: Whether the learning rate is carried, too; a newly compiled one wins otherwise.

    Returns:
        The names that were given a value.
    """
    carried = []
    for name, variable in variables_of(model).items():
        value = before.get(name)
        if not name.startswith(_PREFIX) or value is None or tuple(value.shape) != tuple(variable.shape):
            continue
        if not rate and name.endswith("/learning_rate"):
            continue
        held.assign(variable, value)
        carried.append(name)
    return carried
