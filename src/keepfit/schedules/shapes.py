"""Straight lines, cosines, cycles and steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keepfit.schedules.base import Length, Schedule, checked_length, checked_rate, refused


class _Between(Schedule):
    """From one rate to another over a length."""

    def __init__(self, start: float, end: float = 0.0, *, over: Length = 1.0, clock: str = "fit") -> None:
        super().__init__(clock=clock)
        self.start = checked_rate(self, "start", start)
        self.end = checked_rate(self, "end", end)
        self.over = checked_length(self, "over", over, clock=clock)

    def lengths(self) -> dict[str, Length]:
        """Return ``over``."""
        return {"over": self.over}

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {"start": self.start, "end": self.end, "over": self.over, **super().get_config()}


@keras.saving.register_keras_serializable(package="keepfit")
class Linear(_Between):
    """From one rate to another in a straight line; after that, the second.

    ``start + (end - start) * min(t / over, 1)``, where *t* counts the steps done.

    Args:
        start: Rate of the first step.
        end: Rate after ``over``.
        over: Steps, or a fraction of the fit.
        clock: See `Schedule`.

    Example:
        >>> schedule = Linear(0.1, 0.0, over=10)
        >>> [round(float(schedule(step)), 3) for step in (0, 5, 10, 20)]
        [0.1, 0.05, 0.0, 0.0]
    """

    def at(self, elapsed: Any, length: Any) -> Any:
        """Return the rate."""
        share = ops.minimum(elapsed / self.steps_of("over", self.over, length), 1.0)
        return self.start + (self.end - self.start) * share


@keras.saving.register_keras_serializable(package="keepfit")
class Cosine(_Between):
    """From one rate to another along half a cosine; after that, the second.

    ``end + (start - end) * (1 + cos(pi * min(t / over, 1))) / 2``, where *t* counts the steps done.

    Args:
        start: Rate of the first step.
        end: Rate after ``over``.
        over: Steps, or a fraction of the fit.
        clock: See `Schedule`.

    References:
        Loshchilov and Hutter, SGDR, 2017, equation 5, without restarts.

    Example:
        >>> schedule = Cosine(0.1, over=10)
        >>> [round(float(schedule(step)), 3) for step in (0, 5, 10, 20)]
        [0.1, 0.05, 0.0, 0.0]
    """

    def at(self, elapsed: Any, length: Any) -> Any:
        """Return the rate."""
        return _half_cosine(self.start, self.end, elapsed / self.steps_of("over", self.over, length))


@keras.saving.register_keras_serializable(package="keepfit")
class OneCycle(Schedule):
    """Up to a peak and down again, each along half a cosine; after that, the last rate.

    The rate alone: momentum stays as it is.

    Args:
        peak: The highest rate.
        start: Rate of the first step; None for a 25th of the peak.
        end: Rate after ``over``; None for a 100,000th of the peak.
        rise: Share of ``over`` that goes up, above 0 and below 1.
        over: Steps, or a fraction of the fit.
        clock: See `Schedule`.

    References:
        Smith and Topin, Super-Convergence, 2018; the shares are those of fastai's ``fit_one_cycle``.

    Example:
        >>> schedule = OneCycle(1.0, over=100)
        >>> [round(float(schedule(step)), 3) for step in (0, 25, 100)]
        [0.04, 1.0, 0.0]
    """

    def __init__(
        self,
        peak: float,
        *,
        start: float | None = None,
        end: float | None = None,
        rise: float = 0.25,
        over: Length = 1.0,
        clock: str = "fit",
    ) -> None:
        super().__init__(clock=clock)
        self.peak = checked_rate(self, "peak", peak)
        self.start = self.peak / 25 if start is None else checked_rate(self, "start", start)
        self.end = self.peak / 100_000 if end is None else checked_rate(self, "end", end)
        if not isinstance(rise, float) or not 0 < rise < 1:
            raise refused(self, "rise", rise, "a fraction above 0 and below 1")
        self.rise = rise
        self.over = checked_length(self, "over", over, clock=clock)

    def at(self, elapsed: Any, length: Any) -> Any:
        """Return the rate."""
        share = elapsed / self.steps_of("over", self.over, length)
        up = _half_cosine(self.start, self.peak, share / self.rise)
        down = _half_cosine(self.peak, self.end, (share - self.rise) / (1 - self.rise))
        return ops.where(share < self.rise, up, down)

    def lengths(self) -> dict[str, Length]:
        """Return ``over``."""
        return {"over": self.over}

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        own = {name: getattr(self, name) for name in ("peak", "start", "end", "rise", "over")}
        return {**own, **super().get_config()}


@keras.saving.register_keras_serializable(package="keepfit")
class Piecewise(Schedule):
    """One rate up to each boundary, and a last one.

    Args:
        boundaries: Steps, or fractions of the fit, each larger than the one before: how many steps are done when the
            next rate begins.
        rates: One more than there are boundaries.
        clock: See `Schedule`.

    Example:
        >>> schedule = Piecewise([2, 4], [0.1, 0.01, 0.001])
        >>> [round(float(schedule(step)), 4) for step in range(6)]
        [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    """

    def __init__(self, boundaries: Sequence[Length], rates: Sequence[float], *, clock: str = "fit") -> None:
        super().__init__(clock=clock)
        self.boundaries = [
            checked_length(self, f"boundaries[{index}]", each, clock=clock) for index, each in enumerate(boundaries)
        ]
        self.rates = [checked_rate(self, f"rates[{index}]", each) for index, each in enumerate(rates)]
        if len(self.rates) != len(self.boundaries) + 1:
            raise refused(self, "rates", rates, f"{len(self.boundaries) + 1} rates for {len(self.boundaries)} borders")
        kinds = {type(each) for each in self.boundaries}
        if len(kinds) > 1 or sorted(set(self.boundaries)) != self.boundaries:
            raise refused(self, "boundaries", boundaries, "steps or fractions, each larger than the one before")

    def at(self, elapsed: Any, length: Any) -> Any:
        """Return the rate."""
        rate = ops.full_like(elapsed, self.rates[0])
        for name, later in zip(self.lengths(), self.rates[1:], strict=True):
            rate = ops.where(elapsed >= self.steps_of(name, self.lengths()[name], length), later, rate)
        return rate

    def lengths(self) -> dict[str, Length]:
        """Return the boundaries."""
        return {f"boundaries[{index}]": each for index, each in enumerate(self.boundaries)}

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {"boundaries": self.boundaries, "rates": self.rates, **super().get_config()}


def _half_cosine(start: float, end: float, share: Any) -> Any:
    share = ops.clip(share, 0.0, 1.0)
    return end + (start - end) * (0.5 * (1.0 + ops.cos(math.pi * share)))
