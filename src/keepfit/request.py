"""The arguments of one call of ``fit``, checked before anything changes."""

from __future__ import annotations

import numbers
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras

from keepfit import nested
from keepfit.errors import InvalidArgument, warn
from keepfit.journal import FitRecord
from keepfit.phases import check_rate


@dataclass(frozen=True)
class FitRequest:
    """What one call of ``fit`` asks for; the arguments of ``keras.Model.fit`` with the same meaning.

    Args:
        name: Name of the fit, or None.
        fresh: Callbacks (objects or classes) and ``"optimizer"``: what starts without memory.
        on_change: ``"raise"`` or ``"branch"``.
        train: Which layers train, or None for those that do.
        learning_rate: A number, a schedule, multipliers by layer, a slice, or a pair; None for the rate there is.
        rehearse: Share of earlier fits' samples in every epoch; not None also keeps samples of this fit.
        cache_frozen: Whether what frozen layers give is computed once for each sample, where that can be proven safe.
    """

    x: Any = None
    y: Any = None
    batch_size: int | None = None
    epochs: int = 1
    verbose: Any = "auto"
    callbacks: Any = None
    validation_split: float = 0.0
    validation_data: Any = None
    shuffle: Any = True
    class_weight: Any = None
    sample_weight: Any = None
    initial_epoch: int | None = None
    steps_per_epoch: int | None = None
    validation_steps: int | None = None
    validation_batch_size: int | None = None
    validation_freq: Any = 1
    name: str | None = None
    fresh: Sequence[Any] = field(default_factory=tuple)
    on_change: str = "raise"
    train: Any = None
    learning_rate: Any = None
    rehearse: float | None = None
    cache_frozen: bool = True

    def __post_init__(self) -> None:
        _whole("epochs", self.epochs, least=0)
        for name in ("batch_size", "steps_per_epoch", "validation_steps", "validation_batch_size"):
            if getattr(self, name) is not None:
                _whole(name, getattr(self, name), least=1)
        if self.initial_epoch is not None:
            _whole("initial_epoch", self.initial_epoch, least=0)
        if self.verbose not in ("auto", 0, 1, 2):
            raise _invalid("verbose", 'one of "auto", 0, 1, 2', self.verbose)
        if self.on_change not in ("raise", "branch"):
            raise _invalid("on_change", '"raise" or "branch"', self.on_change)
        if self.name is not None and (not isinstance(self.name, str) or not self.name.strip()):
            raise _invalid("name", "a text that is not empty, or None", self.name)
        if not isinstance(self.validation_split, (int, float)) or not 0 <= self.validation_split < 1:
            raise _invalid("validation_split", "a fraction in [0, 1)", self.validation_split)
        if self.x is None:
            raise _invalid("x", "training data", None)
        for member in nested.flatten(self.callbacks) if self.callbacks else ():
            if not _is_callback(member):
                raise _invalid("callbacks", "objects with the hooks of keras.callbacks.Callback", member)
        if isinstance(self.fresh, str) or not isinstance(self.fresh, Sequence) or not all(map(_may_begin, self.fresh)):
            raise _invalid("fresh", 'a list of callbacks and "optimizer"', self.fresh)
        if isinstance(self.validation_data, (tuple, list)) and len(self.validation_data) not in (1, 2, 3):
            held = f"{type(self.validation_data).__name__} of {len(self.validation_data)}"
            raise _invalid("validation_data", "(x,), (x, y), (x, y, sample_weight) or a data set", held)
        if self.rehearse is not None and not _is_fraction(self.rehearse):
            raise _invalid("rehearse", "a fraction in [0, 1), or None", self.rehearse)
        if not isinstance(self.cache_frozen, bool):
            raise _invalid("cache_frozen", "True or False", self.cache_frozen)
        if self.learning_rate is not None:
            check_rate(self.learning_rate)
        if not _is_frequency(self.validation_freq):
            raise _invalid("validation_freq", "a whole number, 1 or more, or a list of them", self.validation_freq)

    @property
    def planned_epochs(self) -> int:
        """Epochs this call asks for: as in Keras, ``initial_epoch`` counts as done."""
        return max(0, self.epochs - (self.initial_epoch or 0))

    def first_label(self, record: FitRecord) -> int:
        """Return the number that callbacks see for the first epoch of a fit."""
        return record.first_epoch if self.initial_epoch is None else self.initial_epoch


def check_arguments(arguments: dict[str, Any]) -> FitRequest:
    """Return the request that arguments of ``fit`` make.

    Raises:
        InvalidArgument: An argument is unknown, or has no meaning.
    """
    known = FitRequest.__dataclass_fields__
    unknown = [name for name in arguments if name not in known]
    if unknown:
        raise InvalidArgument(
            f"fit() has no argument {unknown[0]!r}. Nothing was changed. "
            "It takes those of keras.Model.fit and name=, fresh=, on_change=, train=, learning_rate=, "
            "rehearse=, cache_frozen=.",
            argument=unknown[0],
        )
    return _capped(FitRequest(**arguments))


def _capped(request: FitRequest) -> FitRequest:
    """Return the request within the limits of ``keras.config``, which are meant for trying things out."""
    epochs, steps = keras.config.max_epochs(), keras.config.max_steps_per_epoch()
    if epochs and epochs < request.epochs:
        warn(f"Limiting epochs to {epochs}", UserWarning)
        request = replace(request, epochs=epochs)
    if steps and (request.steps_per_epoch is None or steps < request.steps_per_epoch):
        warn(f"Limiting steps_per_epoch to {steps}", UserWarning)
        request = replace(request, steps_per_epoch=steps)
    return request


def _whole(name: str, value: Any, *, least: int) -> None:
    if not _is_whole(value, least=least):
        raise _invalid(name, f"a whole number, {least} or more", value)


def _is_whole(value: Any, *, least: int) -> bool:
    try:
        return not isinstance(value, bool) and operator.index(value) >= least
    except TypeError:
        return False


def _is_fraction(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and 0 <= float(value) < 1


def _is_frequency(value: Any) -> bool:
    # As in Keras, a list holds numbers of epochs, counted from 1.
    return all(_is_whole(number, least=1) for number in (value if isinstance(value, list) else [value]))


def _is_callback(value: Any) -> bool:
    return hasattr(value, "on_train_begin") and not isinstance(value, type)


def _may_begin(value: Any) -> bool:
    """Return whether ``fresh`` may name it: a callback, a class of them, or the optimizer."""
    return value == "optimizer" if isinstance(value, str) else hasattr(value, "on_train_begin")


def _invalid(name: str, expected: str, received: Any) -> InvalidArgument:
    shown = repr(received)
    return InvalidArgument(
        f"fit cannot take {name}={shown[:80]}: expected {expected}. Nothing was changed.", argument=name, value=received
    )
