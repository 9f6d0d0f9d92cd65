"""The clock of a fit, which schedules of `keepfit.schedules` go by.

Two numbers of an optimizer: its step when the fit began, and the steps the fit
has. They are variables, so that a compiled step need not be compiled again for
the next fit, and a checkpoint within a fit holds them.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keepfit import _keras, held
from keepfit.schedules import Schedule

CLOCK = "_keepfit_fit_clock"
# What their names in a checkpoint have in them.
CLOCK_NAME = f"/{CLOCK.lstrip('_')}/"


def clock_of(part: Any) -> dict[str, Any]:
    """Return the variables of an optimizer's clock by name, ``begin`` and ``length``; empty where it has none."""
    found: dict[str, Any] = vars(part).get(CLOCK, {})
    return found


def schedule_of(part: Any) -> Schedule | None:
    """Return the schedule of an optimizer that goes by the clock of the fit, if it has one."""
    rate = _keras.rate_holder(part)
    return rate if isinstance(rate, Schedule) and rate.clock == "fit" else None


def give_clock(part: Any) -> bool:
    """Bind an optimizer's schedule to its clock, made where it has none; returns whether that is so."""
    schedule = schedule_of(part)
    if schedule is None:
        return False
    new = not clock_of(part)
    if new:
        kind = str(part._iterations.dtype)
        vars(part)[CLOCK] = {
            name: keras.Variable(np.zeros((), kind), dtype=kind, trainable=False, name=name)
            for name in ("begin", "length")
        }
    begin, length = clock_of(part).values()
    if schedule.bound is not None and schedule.bound[0] is not begin:  # another optimizer goes on by it
        schedule = schedule.unbound()
        _keras.set_rate(part, schedule)
    schedule.bind((begin, length))
    return new


def take_clock(part: Any) -> None:
    """Let an optimizer have no clock."""
    schedule = schedule_of(part)
    if schedule is not None:
        schedule.bind(None)
    vars(part).pop(CLOCK, None)


def set_clock(part: Any, steps: int | None) -> bool:
    """Let a fit of so many steps begin, as the optimizer's clock has it; return whether it has one."""
    clock = clock_of(part)
    if clock:
        held.assign(clock["begin"], np.asarray(held.value(part._iterations)))
        held.assign(clock["length"], np.asarray(steps or 0, str(clock["length"].dtype)))
    return bool(clock)
