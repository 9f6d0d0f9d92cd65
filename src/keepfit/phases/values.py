"""Values of an optimizer's variables, and how a newly compiled one takes them over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from keepfit import held
from keepfit.phases.seat import match, settle
from keepfit.state import variables_of

_PREFIX = "optimizer/"
_PREFIXES = (_PREFIX, "optimizers/")


def optimizer_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that belong to ``model.optimizer``, by structural name."""
    return {name: value for name, value in values.items() if name.startswith(_PREFIX)}


def has_trained(values: Mapping[str, Any]) -> bool:
    """Return whether an optimizer with these values has made a step."""
    return any(int(np.asarray(value)) > 0 for name, value in values.items() if name.endswith("/iterations"))


def untrained(names: Iterable[str], values: Mapping[str, Any]) -> list[str]:
    """Return which of some names are of optimizers that had made no step.

    Args:
        names: Of variables.
        values: Name -> array of the state that tells.
    """
    stepped = [
        name.removesuffix("iterations")
        for name, value in values.items()
        if name.endswith("/iterations") and int(np.asarray(value)) > 0
    ]
    return [name for name in names if name.startswith(_PREFIXES) and not name.startswith(tuple(stepped))]


def carry(model: Any, before: Mapping[str, Any]) -> list[str]:
    """Give a newly compiled optimizer the state of the last one, under the same names; its rate stays its own.

    Args:
        model: The model, its optimizer built.
        before: Name -> array of the last optimizer's variables.

    Returns:
        The names that were given a value.
    """
    match(model, before)
    carried = []
    for name, variable in variables_of(model).items():
        value = before.get(name)
        if not name.startswith(_PREFIX) or value is None or tuple(value.shape) != tuple(variable.shape):
            continue
        if name.endswith("/learning_rate"):
            continue
        held.assign(variable, value)
        carried.append(name)
    settle(model)
    return carried
