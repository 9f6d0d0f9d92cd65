"""The variables that an optimizer serves, and what it keeps for those it served before.

Keras builds an optimizer for one set of variables. Here it gets another set and
stays the same object: what keeps training keeps its slots, what is frozen
leaves them behind, and what returns finds them. A variable that begins late
begins fresh, and its bias correction counts its own steps: see `keepfit.phases.age`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from keepfit import _keras, held
from keepfit.errors import InvalidArgument
from keepfit.phases.age import (
    AGE,
    BORN,
    MULTIPLIER,
    OWN,
    PRODUCT,
    GroupedDecay,
    GroupedUpdate,
    Groups,
    PlainSaving,
    has_product,
)
from keepfit.phases.clock import clock_of, schedule_of, set_clock
from keepfit.state import SLOTS, Slot, slots, variables_of

_BOOKS = ("_trainable_variables", "_trainable_variables_indices", "_var_to_optimizer_idx", "built")
_MAY_HOLD = (keras.optimizers.Optimizer, list, tuple)


# The id of the optimizer and those of what trained when it was first seen, and was not its own.
_LEFT_OUT = "_keepfit_left_out"


def note_left_out(model: Any) -> None:
    """Note once what the optimizer, as its script built it, leaves to others: one of several in a step of their own."""
    optimizer = model.optimizer
    if optimizer is None or not optimizer.built or not _keras.has_own_train_step(model):
        return
    if _left_out(optimizer) is not None:
        return
    its = {id(variable) for variable in served(model)}
    left_out = frozenset(id(variable) for variable in model.trainable_variables if id(variable) not in its)
    vars(optimizer)[_LEFT_OUT] = (id(optimizer), left_out)


def note_as_own(model: Any) -> None:
    """Note that an optimizer leaves nothing to others: its script did not build it."""
    if _keras.has_own_train_step(model):
        vars(model.optimizer)[_LEFT_OUT] = (id(model.optimizer), frozenset())


def _left_out(optimizer: Any) -> frozenset[int] | None:
    """Return what was noted of this very optimizer; a copy has copied the note."""
    key, found = vars(optimizer).get(_LEFT_OUT, (None, None))
    return found if key == id(optimizer) else None


def is_seated(model: Any) -> bool:
    """Return whether the optimizer serves those of its variables that train now, or is not built for any yet."""
    if model.optimizer is None:
        return True
    now, wanted = ([id(variable) for variable in found] for found in (served(model), _wanted(model)))
    # A step of its own may have built its optimizer in an order of its own.
    same = set(now) == set(wanted) if _keras.has_own_train_step(model) else now == wanted
    return not model.optimizer.built or same


def _wanted(model: Any) -> list[Any]:
    """Return the variables that the optimizer is to serve: what trains now, but for what was never its own."""
    left_out = _left_out(model.optimizer) or frozenset()
    return [variable for variable in model.trainable_variables if id(variable) not in left_out]


def served(model: Any) -> list[Any]:
    """Return the variables that the optimizer serves, in its order."""
    return _keras.optimizer_variables(model.optimizer)


def seat_as_before(model: Any, variables: list[Any]) -> None:
    """Let the optimizer serve what it served before; a state that is put back then tells the rest, see `match`."""
    if [id(v) for v in served(model)] != [id(v) for v in variables]:
        _serve(model.optimizer, variables)
        settle(model)


def reseat(model: Any) -> None:
    """Make the optimizer serve the variables that train now.

    Raises:
        InvalidArgument: The optimizer cannot be made from its config; nothing was changed.
    """
    optimizer = model.optimizer
    try:
        _serve(optimizer, _wanted(model))
    except Exception as error:
        raise InvalidArgument(
            f"Other layers train than before, and {type(optimizer).__name__} could not be made anew for them: {error}. "
            "Nothing was changed. Call model.compile() with a new optimizer.",
        ) from error
    forget_gone(model)


def forget_gone(model: Any) -> None:
    """Let the optimizer forget what it keeps for variables that the model has no more."""
    there = {id(variable) for variable in model.variables}
    if any(id(variable) not in there for variable in served(model)):
        _serve(model.optimizer, [variable for variable in served(model) if id(variable) in there])
    for part in optimizer_parts(model.optimizer):
        there_still = {key: slot for key, slot in slots(part).items() if key[0] in there}
        if len(there_still) < len(slots(part)):
            _keep(part, there_still)
    settle(model)


def settle(model: Any) -> None:
    """Let the optimizer update apart what is of another age or rate, as the values in its slots are now."""
    apart: list[Any] = []
    for part in optimizer_parts(model.optimizer):
        groups, attributes = Groups(part), vars(part)
        apart += _besides(part)
        if groups.needed():
            attributes["_backend_update_step"] = GroupedUpdate(part, groups)
            attributes["_apply_weight_decay"] = GroupedDecay(part, groups)
        else:
            attributes.pop("_backend_update_step", None)
            attributes.pop("_apply_weight_decay", None)
    if apart:
        vars(model.optimizer)["save_own_variables"] = PlainSaving(model.optimizer, apart)
    elif model.optimizer is not None:
        vars(model.optimizer).pop("save_own_variables", None)


def optimizer_parts(optimizer: Any) -> list[Any]:
    """Return an optimizer and those inside it; none where a model is compiled without one."""
    return [part for _, part in _parts(optimizer, "")]


def begin_clocks(optimizer: Any, steps: int | None) -> bool:
    """Let a fit of so many steps begin for the clocks of an optimizer and those inside it; return if there are any."""
    begun = [set_clock(part, steps) for part in optimizer_parts(optimizer)]
    return any(begun)


def goes_by_fractions(optimizer: Any) -> bool:
    """Return whether a schedule of an optimizer is over fractions of the fit."""
    return any(found.uses_fractions for found in map(schedule_of, optimizer_parts(optimizer)) if found is not None)


def put_slot(part: Any, owner: Any, name: str, value: Any) -> None:
    """Let an optimizer hold a number for a variable; `settle` follows."""
    known = dict(slots(part))
    _note(known, owner, name, value)
    _keep(part, known)


def drop_slots(part: Any, name: str, *, keep: set[int]) -> None:
    """Let an optimizer forget slots of a name, but for the owners with these ids; `settle` follows."""
    _keep(part, {key: slot for key, slot in slots(part).items() if slot.name != name or key[0] in keep})


def match(model: Any, values: Mapping[str, Any]) -> None:
    """Let the optimizer keep what a stored state tells of, so that every value there finds its variable.

    Slots of variables that do not train now are made or dropped; ages too. With the values given, `settle` follows.

    Args:
        model: A model with a built optimizer.
        values: Name -> array of the stored state.
    """
    _leave_unknown(model, values)
    found = variables_of(model)
    owners = {name: variable for name, variable in found.items() if name.startswith("model/")}
    for path, part in _parts(model.optimizer, "optimizer"):
        names = {id(variable): name for name, variable in owners.items()}
        kept = {}
        served = {id(variable) for variable in _keras.optimizer_variables(part)}
        for key, slot in slots(part).items():
            name = f"{path}/{names.get(id(slot.owner))}/{slot.name}"
            if name in values or (id(slot.owner) in served and slot.name not in OWN):
                kept[key] = slot
        of_lists = {attribute.lstrip("_") for attribute, _ in lists_of(part)}
        for name, value in values.items():
            owner, _, slot_name = name.removeprefix(f"{path}/").rpartition("/")
            if not name.startswith(f"{path}/model/") or owner not in owners:
                continue
            key = (id(owners[owner]), slot_name)
            if key not in kept and (slot_name in OWN or (slot_name in of_lists and key[0] not in served)):
                kept[key] = Slot(owners[owner], slot_name, _variable(np.asarray(value)))
        _keep(part, kept)


def lists_of(part: Any) -> Iterator[tuple[str, list[Any]]]:
    """Yield the attributes that hold a slot for each served variable."""
    served = len(_keras.optimizer_variables(part))
    for attribute, value in vars(part).items():
        if attribute in ("_variables", "_trainable_variables") or not isinstance(value, (list, tuple)):
            continue
        if len(value) == served and any(isinstance(member, keras.Variable) for member in value):
            yield attribute, list(value)


# --- inside ---


def _leave_unknown(model: Any, values: Mapping[str, Any]) -> None:
    """Let the optimizer leave variables that a stored state has no slots for: they begin fresh when they train."""
    names = {id(variable): name for name, variable in variables_of(model).items()}
    slotted = [slot for _, part in _parts(model.optimizer, "optimizer") for slot in _seated_slots(part).values()]
    told = {id(slot.owner) for slot in slotted if names.get(id(slot.variable)) in values}
    unknown = {id(slot.owner) for slot in slotted} - told
    if not unknown or not told:
        return
    _serve(model.optimizer, [v for v in _keras.optimizer_variables(model.optimizer) if id(v) not in unknown])
    for _, part in _parts(model.optimizer, "optimizer"):
        _keep(part, {key: slot for key, slot in slots(part).items() if key[0] not in unknown})


def _serve(optimizer: Any, variables: list[Any]) -> None:
    anew = type(optimizer).from_config(_keras.optimizer_config(optimizer))
    anew.build(variables)
    _transplant(optimizer, anew)


def _parts(optimizer: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield an optimizer and those inside it, each with the path of its names."""
    if optimizer is None:
        return
    yield path, optimizer
    # A fit of one batch asks several times: one look at most attributes, and none into lists of slots.
    for attribute, value in [item for item in vars(optimizer).items() if isinstance(item[1], _MAY_HOLD)]:
        if isinstance(value, keras.optimizers.Optimizer):
            yield from _parts(value, f"{path}/{attribute.lstrip('_')}")
        elif value and not isinstance(value[0], keras.Variable):
            for index, member in enumerate(value):
                if isinstance(member, keras.optimizers.Optimizer):
                    yield from _parts(member, f"{path}/{attribute.lstrip('_')}/{index}")


def _transplant(part: Any, anew: Any) -> None:
    """Give an optimizer the lists of one that was built for other variables, with the slots it has already."""
    known = {**_seated_slots(part), **slots(part)}
    step = _steps(part)
    before = {id(variable): variable for variable in _keras.optimizer_variables(part)}
    replaced: dict[int, Any] = {}
    fresh: dict[int, Any] = {}
    owners = _keras.optimizer_variables(anew)
    for attribute, values in lists_of(anew):
        for index, owner in enumerate(owners):
            made, name = values[index], attribute.lstrip("_")
            if made is None:
                continue
            slot = known.get((id(owner), name))
            if slot is None:
                known[id(owner), name] = Slot(owner, name, made)
                fresh[id(owner)] = owner
            else:
                replaced[id(made)] = values[index] = slot.variable
        vars(part)[attribute] = values
    for attribute, value in list(vars(anew).items()):
        mine = vars(part).get(attribute)
        if isinstance(value, keras.Variable) and isinstance(mine, keras.Variable):
            replaced[id(value)] = mine  # iterations, rate and the like go on
        elif isinstance(value, keras.optimizers.Optimizer):
            _transplant(mine, value)
        elif attribute == "_inner_optimizers":
            for inner, other in zip(mine or (), value, strict=True):
                _transplant(inner, other)
        elif attribute in _BOOKS:
            vars(part)[attribute] = value
    # A schedule has no variable of its own, and one given since has taken its place.
    made_rate = vars(anew).get("_learning_rate")
    listed = [replaced.get(id(variable), variable) for variable in vars(anew)["_variables"]]
    _keras.list_optimizer_variables(part, (variable for variable in listed if variable is not made_rate))
    _age(part, known, before=before, owners=owners, step=step)
    if step:
        _begin_averages(part, fresh)
    _keep(part, known)


def _seated_slots(part: Any) -> dict[tuple[int, str], Slot]:
    owners = _keras.optimizer_variables(part)
    return {
        (id(owner), attribute.lstrip("_")): Slot(owner, attribute.lstrip("_"), variable)
        for attribute, values in lists_of(part)
        for owner, variable in zip(owners, values, strict=True)
        if variable is not None
    }


def _age(
    part: Any, known: dict[tuple[int, str], Slot], *, before: Mapping[int, Any], owners: Iterable[Any], step: int
) -> None:
    """Note the age of what leaves, and when what comes was born."""
    now = {id(owner): owner for owner in owners}
    for key, owner in before.items():
        if key in now:
            continue
        born, product = known.get((key, BORN)), known.get((key, PRODUCT))
        age = step - (0 if born is None else _number(born))
        if age == 0:  # it never trained, and need not be remembered
            for name in [name for found, name in known if found == key and name != MULTIPLIER]:
                del known[key, name]
            continue
        _note(known, owner, AGE, age)
        if has_product(part) and product is None:
            _note(known, owner, PRODUCT, held.value(vars(part)["_u_product"]))
    for key, owner in now.items():
        if key in before:
            continue
        aged = known.pop((key, AGE), None)
        age = 0 if aged is None else _number(aged)
        every = part.gradient_accumulation_steps or 1
        born_at = (step - age) // every * every
        if born_at > 0:
            _note(known, owner, BORN, born_at)
            if has_product(part) and (key, PRODUCT) not in known:
                _note(known, owner, PRODUCT, np.ones((), np.float32))
        elif (product := known.pop((key, PRODUCT), None)) is not None:
            held.assign(vars(part)["_u_product"], held.value(product.variable))


def _note(known: dict[tuple[int, str], Slot], owner: Any, name: str, value: Any) -> None:
    """Note a number; in the variable of last time where there is one, which compiled programs know."""
    slot = known.get((id(owner), name))
    if slot is None:
        known[id(owner), name] = Slot(owner, name, _variable(np.asarray(value)))
    else:
        held.assign(slot.variable, np.asarray(value).astype(str(slot.variable.dtype)))


def _keep(part: Any, known: Mapping[tuple[int, str], Slot]) -> None:
    """Let an optimizer keep these slots; ages and multipliers of what it serves are among its variables."""
    earlier = {id(slot.variable) for slot in slots(part).values() if slot.name in OWN}
    if known:
        vars(part)[SLOTS] = dict(known)
    else:
        vars(part).pop(SLOTS, None)
    list_besides(part, leaving=earlier)


def list_besides(part: Any, *, leaving: set[int] = frozenset()) -> None:  # type: ignore[assignment]
    """Let what a step reads besides Keras's own be among an optimizer's variables, at their end.

    Args:
        part: The optimizer.
        leaving: Ids of variables that may be there from before and need not stay.
    """
    besides = _besides(part)
    gone = leaving | set(map(id, besides))
    listed = [variable for variable in vars(part)["_variables"] if id(variable) not in gone]
    _keras.list_optimizer_variables(part, (*listed, *besides))


def _besides(part: Any) -> list[Any]:
    """Return the variables that a step reads besides Keras's own: of what it serves, and the clock of the fit."""
    served = {id(owner) for owner in _keras.optimizer_variables(part)}
    names = (BORN, PRODUCT, MULTIPLIER)
    mine = [slot for slot in slots(part).values() if slot.name in names and id(slot.owner) in served]
    return [*(slot.variable for slot in mine), *clock_of(part).values()]


def _begin_averages(part: Any, fresh: Mapping[int, Any]) -> None:
    """Begin the moving average of what starts late with its value: Keras begins with zero, but at step 0."""
    averages = vars(part).get("_model_variables_moving_average") or ()
    for owner, average in zip(_keras.optimizer_variables(part), averages, strict=False):
        if average is not None and id(owner) in fresh:
            held.assign(average, held.value(owner))


def _steps(part: Any) -> int:
    iterations = vars(part).get("_iterations")
    return 0 if iterations is None else int(np.asarray(held.value(iterations)))


def _number(slot: Slot) -> int:
    return int(np.asarray(held.value(slot.variable)))


def _variable(value: Any) -> Any:
    kind = "int32" if value.dtype.kind in "iu" else str(value.dtype)
    return keras.Variable(value.astype(kind), dtype=kind, trainable=False, name="keepfit")
