"""Schedules made of others: a warm-up before one, and any of Keras's on the clock of the fit."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keepfit.schedules.base import Length, Schedule, checked_length, checked_rate, refused

_Keras = keras.optimizers.schedules.LearningRateSchedule


@keras.saving.register_keras_serializable(package="keepfit")
class WarmUp(Schedule):
    """Up to a rate in a straight line, and then that rate, or a schedule from its beginning.

    With *r* the first rate of what follows: ``start + (r - start) * t / over`` until ``t`` reaches ``over``.
    Fractions in what follows are of the steps that are left.

    Args:
        then: A rate, or a schedule; one of keepfit must have the same clock.
        over: Steps, or a fraction of the fit.
        start: Rate of the first step.
        clock: See `Schedule`.

    References:
        Goyal and others, Accurate, Large Minibatch SGD, 2017, section 2.2.

    Example:
        >>> from keepfit.schedules import Cosine, WarmUp
        >>> schedule = WarmUp(Cosine(0.1, over=10), over=4)
        >>> [round(float(schedule(step)), 3) for step in (0, 2, 4, 9, 14)]
        [0.0, 0.05, 0.1, 0.05, 0.0]
    """

    def __init__(self, then: Any, *, over: Length = 0.1, start: float = 0.0, clock: str = "fit") -> None:
        super().__init__(clock=clock)
        self.then = then if isinstance(then, _Keras) else checked_rate(self, "then", then)
        if isinstance(then, Schedule) and then.clock != clock:
            raise refused(self, "then", then, f"a schedule with clock={clock!r}, as this one's")
        self.over = checked_length(self, "over", over, clock=clock)
        self.start = checked_rate(self, "start", start)
        if self.over == 1.0 and isinstance(self.over, float):
            raise refused(self, "over", over, "a fraction below 1.0, so that steps are left for what follows")

    def at(self, elapsed: Any, length: Any) -> Any:
        """Return the rate."""
        steps = self.steps_of("over", self.over, length)
        left = None if length is None else ops.maximum(length - steps, 1.0)
        first = self._then(ops.zeros_like(elapsed), left)
        rising = self.start + (first - self.start) * (elapsed / steps)
        return ops.where(elapsed < steps, rising, self._then(ops.maximum(elapsed - steps, 0.0), left))

    def _then(self, elapsed: Any, length: Any) -> Any:
        if isinstance(self.then, Schedule):
            return self.then.at(elapsed, length)
        return self.then(elapsed) if isinstance(self.then, _Keras) else ops.full_like(elapsed, self.then)

    def lengths(self) -> dict[str, Length]:
        """Return ``over`` and the lengths of what follows."""
        inner = self.then.lengths() if isinstance(self.then, Schedule) else {}
        return {"over": self.over, **{f"then.{name}": length for name, length in inner.items()}}

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        own = {"then": _serialized(self.then), "over": self.over, "start": self.start}
        return {**own, **super().get_config()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> WarmUp:
        """Return the schedule that `get_config` told of."""
        return cls(**{**config, "then": _deserialized(config["then"])})


@keras.saving.register_keras_serializable(package="keepfit")
class PerFit(Schedule):
    """Any Keras schedule, begun anew with every fit.

    Args:
        schedule: A schedule that counts the optimizer's steps.

    Example:
        >>> schedule = PerFit(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5))
        >>> round(float(schedule(10)), 3)
        0.05
    """

    def __init__(self, schedule: Any) -> None:
        super().__init__(clock="fit")
        if not isinstance(schedule, _Keras) or isinstance(schedule, Schedule):
            raise refused(self, "schedule", schedule, "a schedule of Keras; those of keepfit take clock='fit'")
        self.schedule = schedule

    def at(self, elapsed: Any, length: Any) -> Any:
        """Return the rate."""
        del length
        return self.schedule(elapsed)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {"schedule": _serialized(self.schedule)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> PerFit:
        """Return the schedule that `get_config` told of."""
        return cls(_deserialized(config["schedule"]))


def _serialized(value: Any) -> Any:
    return keras.saving.serialize_keras_object(value) if isinstance(value, _Keras) else value


def _deserialized(value: Any) -> Any:
    return keras.saving.deserialize_keras_object(value) if isinstance(value, dict) else value
