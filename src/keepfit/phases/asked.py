"""What a call of fit says about layers and rates, set before the fit and taken back where it cannot be served."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keepfit import _keras, held
from keepfit.phases.age import MULTIPLIER
from keepfit.phases.rates import set_rate
from keepfit.phases.seat import drop_slots, optimizer_parts, put_slot, settle
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

    def take_back(self) -> None:
        """Let layers and rates be as they were."""
        if self._layers is not None:
            self._layers.restore()
        for part, holder, number, own in self._rates:
            if isinstance(holder, keras.Variable):
                _keras.set_rate(part, float(number))
            elif isinstance(holder, keras.optimizers.schedules.LearningRateSchedule):
                _keras.set_rate(part, holder)
            drop_slots(part, MULTIPLIER, keep=set(own))
            for owner, value in own.values():
                put_slot(part, owner, MULTIPLIER, value)
        if self._rates:
            settle(self._model)
        self._layers, self._rates = None, []
