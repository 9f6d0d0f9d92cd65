"""What a call of fit says about layers and rates, set before the fit and taken back where it cannot be served."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keepfit import _keras, held
from keepfit.phases.age import MULTIPLIER
from keepfit.phases.clock import clock_of, give_clock, schedule_of, take_clock
from keepfit.phases.rates import set_rate
from keepfit.phases.seat import drop_slots, list_besides, optimizer_parts, put_slot, settle
from keepfit.phases.selection import Trainability, train_only
from keepfit.state import slots


class Asked:
    """Layers and rates of a model as they were, for a call that is refused after all.

    Args:
        model: The model.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._layers: Trainability | None = None
        self._rates: list[tuple[Any, Any, Any, dict[int, tuple[Any, Any]]]] = []
        self._clocks: list[Any] = []

    def train(self, selector: Any) -> None:
        """Let the layers train that a selector means; see `train_only`."""
        self._layers = Trainability(self._model)
        train_only(self._model, selector)

    def rate(self, value: Any) -> None:
        """Set the rate; see `set_rate`."""
        for part in optimizer_parts(self._model.optimizer):
            holder = _keras.rate_holder(part)
            number = np.array(held.value(holder)) if isinstance(holder, keras.Variable) else None
            own = {
                id(slot.owner): (slot.owner, np.array(held.value(slot.variable)))
                for slot in slots(part).values()
                if slot.name == MULTIPLIER
            }
            self._rates.append((part, holder, number, own))
        set_rate(self._model, value)

    def number(self, value: float) -> None:
        """Set the rate that `rate` has set to a number, once more."""
        for part, *_ in self._rates:
            if not _keras.inner_optimizers(part):
                _keras.set_rate(part, value)

    def clock(self, steps: int | None) -> bool:
        """Give optimizers whose schedule goes by the steps of the fit a clock; return whether that is new.

        Args:
            steps: How many the fit has, None where nobody knows.

        Raises:
            InvalidArgument: A schedule cannot be over such a fit; nothing was changed.
        """
        parts = optimizer_parts(self._model.optimizer)
        for schedule in filter(None, map(schedule_of, parts)):
            schedule.check_fit(steps)
        self._clocks = [part for part in parts if give_clock(part)]
        for part in self._clocks:
            list_besides(part)
        if self._clocks:
            settle(self._model)
        return bool(self._clocks)

    def take_back(self) -> None:
        """Let layers and rates be as they were."""
        if self._layers is not None:
            self._layers.restore()
        for part in self._clocks:
            leaving = set(map(id, clock_of(part).values()))
            take_clock(part)
            list_besides(part, leaving=leaving)
        for part, holder, number, own in self._rates:
            if isinstance(holder, keras.Variable):
                _keras.set_rate(part, float(number))
            elif isinstance(holder, keras.optimizers.schedules.LearningRateSchedule):
                _keras.set_rate(part, holder)
            drop_slots(part, MULTIPLIER, keep=set(own))
            for owner, value in own.values():
                put_slot(part, owner, MULTIPLIER, value)
        if self._rates or self._clocks:
            settle(self._model)
        self._layers, self._rates, self._clocks = None, [], []
