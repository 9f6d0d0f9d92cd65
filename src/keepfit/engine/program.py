"""What a compiled program depends on besides the shapes of its arguments."""

from __future__ import annotations

import functools
import inspect
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import keras

from keepfit import _keras, nested
from keepfit.state import other_optimizers

# A script may go back and forth between a few sets of trained layers; one that gives every fit a schedule of its own
# would keep a program for each.
_KEPT_KEYS = 8
_ATOMS: frozenset[type] = frozenset((int, float, str, bool, type(None)))
_PLAIN: tuple[type, ...] = (*_ATOMS, tuple)
_WITH_SETTINGS = (keras.Regularizer, keras.constraints.Constraint)


class ProgramKey:
    """Identity of what a traced step closes over.

    Two keys are equal while the same objects are there with the same plain
    settings; the key holds the objects, so that no id is used twice.
    """

    __slots__ = ("_facts", "_hash", "_objects")

    def __init__(self, objects: tuple[Any, ...], plain: tuple[Any, ...]) -> None:
        self._objects = objects
        self._facts = (tuple(map(id, objects)), plain)
        self._hash = hash(self._facts)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, ProgramKey) and self._hash == other._hash and self._facts == other._facts

    def has_other_settings(self, other: ProgramKey) -> bool:
        """Return whether another key is of the same objects, with other plain settings."""
        return self._facts[0] == other._facts[0] and self._facts[1] != other._facts[1]


def programs_of(key: ProgramKey, kept: OrderedDict[ProgramKey, dict[Any, Any]]) -> dict[Any, Any]:
    """Return the programs that were compiled for a key, and let go of those that were not used for longest.

    Args:
        key: The model as it is.
        kept: Key -> programs, the last used last; changed in place.
    """
    found = kept.setdefault(key, {})
    kept.move_to_end(key)
    while len(kept) > _KEPT_KEYS:
        kept.popitem(last=False)
    return found


def program_key(model: Any) -> ProgramKey:
    """Return what the model's step functions depend on, as it is now.

    Compiling the model again, another optimizer (one of its step's own too), another schedule (or one of
    Keras's that was changed), another set of trainable variables or of metrics,
    or a changed plain setting of a layer or optimizer (``dropout.rate``,
    ``optimizer.clipnorm``) gives another key. A number given to
    ``optimizer.learning_rate`` does not: it is a variable.
    """
    optimizer = model.optimizer
    objects: list[Any] = [_keras.compile_marker(model), optimizer, *model.trainable_variables, *model.metrics_variables]
    plain: list[Any] = [bool(model.run_eagerly), bool(model.jit_compile), keras.config.floatx()]
    for part in (*_optimizers(optimizer), *_own_optimizers(model)):
        rate = _keras.rate_holder(part)
        if told := _told_schedule(rate):
            plain.append(told)
        else:
            objects.append(rate)
        objects.extend(part.variables)
        plain.extend(_plain_settings(part))
        # See `keepfit.phases.age`.
        plain.append(getattr(vars(part).get("_backend_update_step"), "groups", None))
    for layer in _keras.all_layers(model):
        plain.extend(_plain_settings(layer))
    return ProgramKey(tuple(objects), tuple(plain))


def _told_schedule(rate: Any) -> str | None:
    """Return what one of Keras's own schedules does, None for anything else: equal ones share a program."""
    if not isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        return None
    if getattr(keras.optimizers.schedules, type(rate).__name__, None) is not type(rate):
        return None
    config = {name: value for name, value in rate.get_config().items() if name != "name"}
    if not all(isinstance(each, _PLAIN) for value in config.values() for each in nested.flatten(value)):
        return None
    return f"{type(rate).__name__}{sorted(config.items())}"


def _optimizers(optimizer: Any) -> Iterator[Any]:
    if optimizer is None:
        return
    yield optimizer
    inner = getattr(optimizer, "inner_optimizer", None)
    yield from _optimizers(inner)
    for member in getattr(optimizer, "optimizers", ()) or ():
        yield from _optimizers(member)


def _own_optimizers(model: Any) -> Iterator[Any]:
    """Yield the optimizers that a training step of the model's own may use beside the compiled one."""
    if _keras.has_own_train_step(model):
        for _, each in other_optimizers(model):
            yield from _optimizers(each)


def _plain_settings(part: Any) -> list[Any]:
    """Return the values of a constructor's arguments that are plain, as the attributes of the same names hold them."""
    setting = vars(part).get
    kind: Any = type(part)
    values = [setting(name) for name in _constructor_names(kind)]
    for inner in [value for value in values if isinstance(value, _WITH_SETTINGS)]:
        values += _plain_settings(inner)
    return [value for value in values if type(value) in _ATOMS or (isinstance(value, _PLAIN) and _is_hashable(value))]


def own_settings(part: Any) -> list[str]:
    """Return the names of a layer's attributes that its constructor has arguments for."""
    kind: Any = type(part)
    return [name for name in _constructor_names(kind) if name in vars(part)]


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


@functools.lru_cache(maxsize=4096)
def _constructor_names(kind: Any) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for base in kind.__mro__:
        initialiser = vars(base).get("__init__")
        if initialiser is not None and base is not object:
            with suppress(ValueError, TypeError):  # C code need not tell
                names.update(dict.fromkeys(inspect.signature(initialiser).parameters))
    return tuple(name for name in names if name not in ("self", "args", "kwargs", "name"))
