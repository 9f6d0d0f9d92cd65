"""What a person must know of a fit that goes on under other conditions than it began."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras

from keepfit.callbacks import depends_on_epoch_numbers
from keepfit.journal import FitRecord
from keepfit.recipe import learning_rate_config
from keepfit.request import FitRequest

_USED = {True: "kept", False: "not kept"}
_CONDITIONS = ("backend", "plan", "device", "threads", "jax", "tensorflow", "torch", "keras")


def other_conditions(before: dict[str, Any], record: FitRecord, *, resumed: bool = True) -> str | None:
    """Return what to say when a fit runs on something else than the state it begins with, else None.

    Args:
        before: The plan under which that state was reached.
        record: The fit, with its plan.
        resumed: Whether the fit goes on inside, rather than behind another one.
    """
    names: tuple[str, ...] = _CONDITIONS
    changed = []
    cached = [bool((plan.get("prefix") or {}).get("used")) for plan in (before, record.plan)]
    if cached[0] != cached[1]:
        # Another fit may freeze other layers, and with them run by another plan: that is its own affair.
        names = tuple(name for name in names if name != "plan")
        changed += [f"features of frozen layers: {_USED[cached[0]]} before, {_USED[cached[1]]} now"] if resumed else []
    changed += [
        f"{name}: {before[name]} before, {record.plan.get(name)} now"
        for name in names
        if name in before and before[name] != record.plan.get(name)
    ]
    if not changed:
        return None
    return (
        f"Fit {record.number} goes on under other conditions ({'; '.join(changed)}): equal to rounding, not to the bit."
    )


def other_length(model: Any, request: FitRequest, record: FitRecord, callbacks: Iterable[Any]) -> str | None:
    """Return what to say when a fit is asked for more epochs than before, and that may have decided something."""
    depends = [type(c).__name__ for c in callbacks if isinstance(c, keras.callbacks.SwapEMAWeights)]
    rate = learning_rate_config(model.optimizer)
    if isinstance(rate, dict):
        depends.append(str(rate.get("class", "schedule")))
    if not depends:
        return None
    return (
        f"Fit {record.number} is asked for {request.planned_epochs} epochs, not {record.epochs_planned} as before; "
        f"{', '.join(depends)} may depend on the planned length, so the result is not that of one longer fit."
    )


def epoch_numbers(request: FitRequest, record: FitRecord, callbacks: Iterable[Any]) -> str | None:
    """Return what to say where it decides what a callback does that epoch numbers go on over fits."""
    if record.first_epoch == 0 or request.initial_epoch is not None:
        return None
    names = sorted({type(c).__name__ for c in callbacks if depends_on_epoch_numbers(c)})
    if not names:
        return None
    return (
        f"Epoch numbers go on over fits: the first epoch of fit {record.number} is number {record.first_epoch} "
        f"(from 0) for {', '.join(names)}. With initial_epoch=0 numbers begin at 0, as in Keras."
    )


def other_validation(request: FitRequest, facts: Mapping[str, Any], before: Mapping[str, Any]) -> str | None:
    """Return what to say where ``validation_split`` holds back other samples than in the fit before.

    Args:
        request: The call.
        facts: What decides whether the fit continues the one before.
        before: The same of that one.
    """
    now, last = facts.get("validation"), before.get("validation")
    if request.validation_data is not None or not now or not last or not last.get("split"):
        return None
    if now["data"] == last["data"]:
        return None
    return (
        "validation_split over different arrays holds back another validation set in each fit, so that their values do "
        "not compare. Give the same validation_data to all of them, or all arrays at once as "
        "keepfit.partitions(...), whose split is the same in every fit."
    )
