"""What every schedule of keepfit is: a rate for the steps since its clock began."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops

from keepfit.errors import InvalidArgument, RateUnknown

# A whole number of steps, or a fraction of the fit.
Length: TypeAlias = "int | float"
CLOCKS = ("fit", "run")


class Schedule(keras.optimizers.schedules.LearningRateSchedule, ABC):
    """A learning rate that follows a clock.

    Args:
        clock: ``"fit"`` begins anew with every fit; ``"run"`` counts the optimizer's steps, as Keras's schedules do.

    Raises:
        InvalidArgument: An argument has no meaning.
    """

    def __init__(self, *, clock: str = "fit") -> None:
        if clock not in CLOCKS:
            raise refused(self, "clock", clock, '"fit" or "run"')
        self.clock = clock
        self._bound: tuple[Any, Any] | None = None

    def __call__(self, step: Any) -> Any:
        """Return the rate after so many steps of the optimizer, as Keras asks for it."""
        if self.clock == "run" or self._bound is None:
            return self.at(ops.cast(step, "float32"), None)
        begin, length = self._bound
        return self.at(ops.maximum(ops.cast(step - begin, "float32"), 0.0), ops.cast(length, "float32"))

    @abstractmethod
    def at(self, elapsed: Any, length: Any) -> Any:
        """Return the rate.

        Args:
            elapsed: Steps since the clock began, 0 or more; float32, a scalar.
            length: Steps of the fit, likewise; None where they are not known.
        """

    def lengths(self) -> dict[str, Length]:
        """Return the schedule's lengths by name: whole numbers are steps, others fractions of the fit."""
        return {}

    @property
    def uses_fractions(self) -> bool:
        """Whether the rate depends on how many steps the fit has."""
        return any(isinstance(length, float) for length in self.lengths().values())

    def check_fit(self, steps: int | None) -> None:
        """Check the schedule against a fit of so many steps, None where nobody knows.

        Raises:
            InvalidArgument: A fraction of it is asked for and it has no known length, or comes to less than a step.
        """
        for name, length in self.lengths().items():
            if not isinstance(length, float):
                continue
            if steps is None:
                raise InvalidArgument(
                    f"{type(self).__name__}({name}={length}) is over a fraction of the fit, and nobody knows how many "
                    "steps that has. Nothing was changed. Give fit steps_per_epoch=, or the schedule a whole number "
                    "of steps.",
                    argument="learning_rate",
                )
            if steps and length * steps < 1:
                raise InvalidArgument(
                    f"{type(self).__name__}({name}={length}) is over zero steps: the fit has {steps}. "
                    "Nothing was changed. Give a larger fraction, or a whole number of steps.",
                    argument="learning_rate",
                    value=length,
                )

    @property
    def bound(self) -> tuple[Any, Any] | None:
        """The variables that hold when the fit began and how many steps it has; None before the first fit."""
        return self._bound

    def bind(self, clock: tuple[Any, Any] | None) -> None:
        """Let variables of an optimizer be the clock of the fit, or none."""
        self._bound = clock

    def unbound(self) -> Schedule:
        """Return a copy that has no clock yet, for another optimizer."""
        twin = copy.copy(self)
        twin._bound = None
        return twin

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {"clock": self.clock}

    def steps_of(self, name: str, given: Length, length: Any) -> Any:
        """Return one of the lengths in steps."""
        if not isinstance(given, float):
            return float(given)
        if length is None:
            raise RateUnknown(
                f"{type(self).__name__}({name}={given}) is over a fraction of the fit, and no fit of keepfit is under "
                "way. Nothing was changed. Train with a keepfit.Run, or give a whole number of steps.",
                argument=name,
            )
        return given * length


def refused(schedule: Any, name: str, value: Any, expected: str) -> InvalidArgument:
    """Return the error for an argument of a schedule."""
    return InvalidArgument(
        f"{type(schedule).__name__} cannot take {name}={value!r}: expected {expected}. Nothing was changed.",
        argument=name,
        value=value,
    )


def checked_rate(schedule: Any, name: str, value: Any) -> float:
    """Return a rate as a float.

    Raises:
        InvalidArgument: It is negative, not finite, or no number.
    """
    if not _is_number(value) or not math.isfinite(value) or value < 0:
        raise refused(schedule, name, value, "a number of 0 or more")
    return float(value)


def checked_length(schedule: Any, name: str, value: Any, *, clock: str) -> Length:
    """Return a length: steps as int, a fraction of the fit as float.

    Raises:
        InvalidArgument: It is no step long, or more than the fit, or a fraction on the run's clock.
    """
    if _is_number(value) and isinstance(value, (int, np.integer)):
        if value < 1:
            raise refused(schedule, name, value, "1 step or more: a schedule over zero steps has no rate")
        return int(value)
    if not _is_number(value) or not 0 < value <= 1:
        expected = "a whole number of steps, 1 or more, or a fraction of the fit above 0 and up to 1.0"
        raise refused(schedule, name, value, expected)
    if clock == "run":
        raise refused(schedule, name, value, "a whole number of steps, since a run has no length (clock='run')")
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
