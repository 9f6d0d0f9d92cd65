"""How an optimizer begins: it is built when the first thing that trains knows what trains, and not before.

What it would make before then, it would make for layers that ``train=`` is
about to leave out. So the state before fit 1 may know of no slots; to go back
to it is to be as an optimizer that was just made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from keepfit import _keras, held
from keepfit.phases.age import OWN
from keepfit.phases.seat import lists_of, note_as_own, note_left_out, optimizer_parts
from keepfit.state import other_optimizers, variables_of


def begin_optimizer(model: Any) -> bool:
    """Build the optimizer for what trains now, where it is not built; return whether it was not."""
    if not _keras.can_be_built(model.optimizer):
        note_left_out(model)
        return False
    _build(model, model.trainable_variables)
    return True


def begin_as(model: Any, values: Mapping[str, Any]) -> None:
    """Build optimizers for what a stored state has slots of, where they are not built and the state has any.

    Args:
        model: A built model.
        values: Name -> array of the stored state.
    """
    waiting = [(path, each) for path, each in _optimizers(model) if _keras.can_be_built(each)]
    if not waiting:
        return
    variables = variables_of(model)
    known = set(variables.names)
    names = {id(variable): name for name, variable in variables.items()}
    for path, optimizer in waiting:
        of_it = [name for name in values if name.startswith(f"{path}/")]
        told = {
            name.partition("/model/")[2].rpartition("/")[0]
            for name in of_it
            if "/model/" in name and name.rpartition("/")[2] not in OWN
        }
        those = [each for each in model.trainable_variables if names[id(each)].removeprefix("model/") in told]
        if optimizer is not model.optimizer:
            if those:
                optimizer.build(those)
        elif any(name not in known for name in of_it):
            _build(model, those or model.trainable_variables)


def fresh_values(model: Any, names: Iterable[str]) -> dict[str, Any]:
    """Return what optimizers that were just made would hold under some names.

    Args:
        model: A model; some optimizers begin with its weights as they are.
        names: Of the variables of its built optimizers; those that such a one has not are left out, all where none can
            be made.
    """
    wanted = set(names)
    if not wanted:
        return {}
    fresh: dict[int, Any] = {}
    for path, optimizer in _optimizers(model):
        if optimizer.built and any(name.startswith(f"{path}/") for name in wanted):
            fresh |= _fresh(optimizer)
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


def _optimizers(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield the optimizers of a model, each with the path of its names."""
    if model.optimizer is not None:
        yield "optimizer", model.optimizer
    yield from other_optimizers(model)


def _fresh(optimizer: Any) -> dict[int, Any]:
    """Return id of a built optimizer's variable -> its like in one that was just made; empty where none can be made."""
    anew = made_anew(optimizer)
    if anew is None:
        return {}
    anew.build(_keras.optimizer_variables(optimizer))
    fresh: dict[int, Any] = {}
    for part, other in zip(optimizer_parts(optimizer), optimizer_parts(anew), strict=True):
        others = dict(lists_of(other))
        for attribute, members in lists_of(part):
            fresh |= _paired(members, others.get(attribute, ()))
        scalars = {key: value for key, value in vars(part).items() if isinstance(value, keras.Variable)}
        fresh |= _paired(scalars.values(), [vars(other).get(key) for key in scalars])
    return fresh


def _build(model: Any, variables: list[Any]) -> None:
    _keras.build_optimizer(model, variables)
    note_as_own(model)


def _paired(mine: Iterable[Any], others: Iterable[Any]) -> dict[int, Any]:
    """Return id of a variable -> its like."""
    return {id(one): two for one, two in zip(mine, others, strict=False) if one is not None and two is not None}
