"""The learning rate of a fit: a number, a schedule, or rates that differ from layer to layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keepfit import _keras, held
from keepfit.errors import InvalidArgument
from keepfit.phases.age import MULTIPLIER
from keepfit.phases.seat import optimizer_parts, put_slot, settle
from keepfit.phases.selection import layer_paths, select
from keepfit.state import slots


def current_rate(model: Any, known: held.Known | None = None) -> float | None:
    """Return the rate an optimizer would use now, None where it has none of its own.

    Args:
        model: The model.
        known: What its variables are known to hold.
    """
    rate = getattr(model.optimizer, "learning_rate", None)
    if rate is None:
        return None
    try:
        if known is not None and isinstance(rate, keras.Variable):
            return float(np.asarray(known.value(rate)))
        return float(rate)
    except (TypeError, ValueError):
        return None


def check_rate(value: Any) -> None:
    """Check a ``learning_rate=`` of fit as far as that goes without a model.

    Raises:
        InvalidArgument: It is negative, not finite, or of another kind.
    """
    if isinstance(value, keras.optimizers.schedules.LearningRateSchedule):
        return
    if isinstance(value, Mapping):
        for selector, multiplier in value.items():
            _check_number(multiplier, f"the multiplier of {selector!r}")
    elif isinstance(value, slice):
        for end in (value.start, value.stop):
            _check_number(end, "an end of the slice")
            if not end > 0:
                raise _refused("an end of the slice", end, "a number above 0")
    elif isinstance(value, tuple):
        if len(value) != 2 or isinstance(value[0], (Mapping, slice)) or not isinstance(value[1], (Mapping, slice)):
            raise _refused("learning_rate", value, "a rate or schedule, and a mapping or slice that multiplies it")
        for member in value:
            check_rate(member)
    else:
        _check_number(value, "learning_rate")


def set_rate(model: Any, value: Any) -> None:
    """Set the optimizer's rate: a number or a schedule; or multipliers of it by layer; or both.

    Args:
        model: A built model with a built optimizer.
        value: A number, a ``LearningRateSchedule``, a mapping from selectors to multipliers of the rate that is set,
            or ``slice(lowest, highest)``: from the first layer with weights to the last, geometrically. Or a pair: a
            number or schedule, and a mapping or slice of what it is multiplied with.

    Raises:
        InvalidArgument: A selector means no layer, or two mean the same one; nothing was changed.
    """
    if isinstance(value, tuple):
        base, by_layer = value
        _multiply(model, _by_depth(model, by_layer) if isinstance(by_layer, slice) else _by_layer(model, by_layer))
        _set_base(model, base)
    elif isinstance(value, slice):
        _multiply(model, _by_depth(model, slice(value.start / value.stop, 1.0)))
        _set_base(model, value.stop)
    elif isinstance(value, Mapping):
        _multiply(model, _by_layer(model, value))
    else:
        _set_base(model, value)


def multipliers(model: Any, names: Mapping[int, str]) -> dict[str, float]:
    """Return name -> multiplier of the variables whose rate is not the optimizer's.

    Args:
        model: The model.
        names: Id of a variable -> its name.
    """
    return {
        names[id(slot.owner)]: float(np.asarray(held.value(slot.variable)))
        for part in optimizer_parts(model.optimizer)
        for slot in slots(part).values()
        if slot.name == MULTIPLIER and id(slot.owner) in names
    }


def is_zero_throughout(optimizer: Any, steps: int | None, *, known: held.Known) -> bool:
    """Return whether the rate is zero at every one of the next steps, as far as they are known.

    Args:
        optimizer: The optimizer, if there is one; one with several inside is not looked into.
        steps: Steps to come; None looks at the next one alone.
        known: What its variables are known to hold.
    """
    parts = optimizer_parts(optimizer)
    for part in parts:
        if _is_multiplied_by_zero(part):
            continue
        holder = _keras.rate_holder(part)
        if isinstance(holder, keras.Variable):
            if _holds_rate(part) and float(np.asarray(known.value(holder))) != 0:
                return False
        elif isinstance(holder, keras.optimizers.schedules.LearningRateSchedule):
            first = int(np.asarray(known.value(part._iterations)))
            places = np.unique(np.linspace(first, first + max(1, steps or 1) - 1, num=9).astype(int))
            if any(float(np.asarray(keras.ops.convert_to_numpy(holder(int(place))))) != 0 for place in places):
                return False
        else:
            return False
    return bool(parts)


def own_weights(layer: Any) -> list[Any]:
    """Return the weights that a layer itself has, not those of the layers in it."""
    return [variable for variable in _keras.layer_parts(layer)[0] if _keras.is_weight(layer, variable)]


# --- inside ---


def _check_number(value: Any, name: str) -> None:
    is_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < 0:
        raise _refused(name, value, "a number of 0 or more")


def _refused(name: str, value: Any, expected: str) -> InvalidArgument:
    return InvalidArgument(
        f"fit cannot take learning_rate=...: {name} is {value!r}, expected {expected}. Nothing was changed. Give a "
        "number, a LearningRateSchedule, a mapping from layers to multipliers, slice(lowest, highest), or a pair of a "
        "rate and a mapping or slice.",
        argument="learning_rate",
        value=value,
    )


def _holds_rate(part: Any) -> bool:
    # One that stands around others has a rate of its own that nothing uses.
    return not _keras.inner_optimizers(part)


def _is_multiplied_by_zero(part: Any) -> bool:
    """Return whether every variable that an optimizer trains has zero as its multiplier."""
    kept = slots(part)
    if not kept:  # most often
        return False
    found = [kept.get((id(owner), MULTIPLIER)) for owner in _keras.optimizer_variables(part)]
    return bool(found) and all(slot is not None and not float(np.asarray(held.value(slot.variable))) for slot in found)


def _set_base(model: Any, value: Any) -> None:
    for part in optimizer_parts(model.optimizer):
        if _holds_rate(part):
            _keras.set_rate(part, value)


def _by_depth(model: Any, ends: slice) -> dict[int, float]:
    """Return id of layer -> multiplier, from the first layer with weights to the last, geometrically."""
    groups = [layer for layer in layer_paths(model).values() if own_weights(layer)]
    ratio, last = ends.start / ends.stop, max(1, len(groups) - 1)
    return {id(layer): ends.stop * ratio ** ((last - i) / last) for i, layer in enumerate(groups)}


def _by_layer(model: Any, rates: Mapping[Any, float]) -> dict[int, float]:
    """Return id of layer -> multiplier, after checking that no layer is meant twice."""
    found: dict[int, float] = {}
    chosen_by: dict[int, Any] = {}
    for selector, multiplier in rates.items():
        for layer in select(model, selector, argument="learning_rate"):
            if id(layer) in found:
                raise InvalidArgument(
                    f"learning_rate= means {layer.name!r} twice: by {chosen_by[id(layer)]!r} and by {selector!r}. "
                    "Nothing was changed. Let each layer be meant once.",
                    argument="learning_rate",
                )
            found[id(layer)], chosen_by[id(layer)] = float(multiplier), selector
    return found


def _multiply(model: Any, rates: Mapping[int, float]) -> None:
    wanted = {
        id(variable): (variable, rates.get(id(layer), 1.0))
        for layer in layer_paths(model).values()
        for variable in own_weights(layer)
    }
    for part in optimizer_parts(model.optimizer):
        for owner, multiplier in wanted.values():
            if multiplier != 1.0 or (id(owner), MULTIPLIER) in slots(part):
                put_slot(part, owner, MULTIPLIER, np.float32(multiplier))
    settle(model)
