"""Rates that a script sets itself: ``model.optimizer.learning_rate = …`` between two fits."""

from __future__ import annotations

from typing import Any

from keepfit import _keras, live
from keepfit.errors import FitUnderWay
from keepfit.phases.seat import optimizer_parts


def let_rates_be_set() -> None:
    """Let numbers and schedules follow one another in the optimizers of open runs, in any order.

    Keras refuses a number where a schedule was. While a fit is under way it
    still does, since the steps of that fit are compiled; a schedule, which would
    be ignored then, is refused too.
    """
    _keras.free_rates(_is_between_fits)


def _is_between_fits(optimizer: Any, rate: Any) -> bool:
    run = next((run for run in live.open_runs() if _serves(run.model, optimizer)), None)
    if run is None or not run.is_fitting:
        return run is not None
    if _keras.is_schedule(rate):
        raise FitUnderWay(
            "optimizer.learning_rate was set to a schedule while a fit is under way, whose compiled steps would go on "
            "with the rate there was. Nothing was changed. Set a number, or set the schedule before fit().",
        )
    return False


def _serves(model: Any, optimizer: Any) -> bool:
    own = getattr(model, "optimizer", None)
    return own is not None and any(part is optimizer for part in optimizer_parts(own))
