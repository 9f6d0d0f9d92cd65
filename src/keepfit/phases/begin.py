"""How an optimizer begins: it is built when the first thing that trains knows what trains, and not before.

What it would make before then, it would make for layers that ``train=`` is
about to leave out. So the state before fit 1 may know of no slots; to go back
to it is to be as an optimizer that was just made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

from keepfit import _keras, held
from keepfit.phases.age import OWN
from keepfit.phases.seat import lists_of, note_as_own, note_left_out, optimizer_parts, served
from keepfit.state import variables_of


def begin_optimizer(model: Any) -> bool:
    """Build the optimizer for what trains now, where it is not built; return whether it was not."""
    if not _keras.can_be_built(model.optimizer):
        note_left_out(model)
        return False
    _build(model, model.trainable_variables)
    return True


def begin_as(model: Any, values: Mapping[str, Any]) -> None:
    """Build the optimizer for what a stored state has slots of, where it is not built and the state has any.

    Args:
        model: A built model.
        values: Name -> array of the stored state.
    """
    if not _keras.can_be_built(model.optimizer):
        return
    variables = variables_of(model)
    known = set(variables.names)
    if not any(name.startswith("optimizer/") and name not in known for name in values):
        return
    told = {
        name.partition("/model/")[2].rpartition("/")[0]
        for name in values
        if name.startswith("optimizer") and "/model/" in name and name.rpartition("/")[2] not in OWN
    }
    names = {id(variable): name for name, variable in variables.items()}
    those = [each for each in model.trainable_variables if names[id(each)].removeprefix("model/") in told]
    _build(model, those or model.trainable_variables)


def fresh_values(model: Any, names: Iterable[str]) -> dict[str, Any]:
    """Return what an optimizer that was just made would hold under some names.

    Args:
        model: A model with a built optimizer; some begin with the weights as they are.
        names: Of the optimizer's variables; those that such a one has not are left out, all where none can be made.
    """
    wanted = set(names)
    anew = made_anew(model.optimizer) if wanted and model.optimizer.built else None
    if anew is None:
        return {}
    anew.build(served(model))
    fresh: dict[int, Any] = {}
    for part, other in zip(optimizer_parts(model.optimizer), optimizer_parts(anew), strict=True):
        others = dict(lists_of(other))
        for attribute, members in lists_of(part):
            fresh |= _paired(members, others.get(attribute, ()))
        scalars = {key: value for key, value in vars(part).items() if isinstance(value, keras.Variable)}
        fresh |= _paired(scalars.values(), [vars(other).get(key) for key in scalars])
    return {
        name: np.asarray(held.value(fresh[id(variable)]))
        for name, variable in variables_of(model).items()
        if name in wanted and id(variable) in fresh
    }


def made_anew(optimizer: Any) -> Any | None:
    """Return an optimizer of the same class and config that is not built, None where its class gives no such config."""
    try:
        return type(optimizer).from_config(_keras.optimizer_config(optimizer))
    except Exception:  # noqa: BLE001 - a class of the user's may raise anything
        return None


def _build(model: Any, variables: list[Any]) -> None:
    _keras.build_optimizer(model, variables)
    note_as_own(model)


def _paired(mine: Iterable[Any], others: Iterable[Any]) -> dict[int, Any]:
    """Return id of a variable -> its like."""
    return {id(one): two for one, two in zip(mine, others, strict=False) if one is not None and two is not None}
