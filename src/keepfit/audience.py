"""Who hears of a fit: callbacks, the History, and the person who watches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keepfit import _keras
from keepfit.callbacks import Progress, make_progress
from keepfit.journal import FitRecord
from keepfit.logs import merged
from keepfit.recorder import Recorder
from keepfit.request import FitRequest


def callback_list(
    model: Any, request: FitRequest, callbacks: Sequence[Any], record: FitRecord, *, steps: int | None
) -> Any:
    """Return the ``keras.callbacks.CallbackList`` of a fit, a History with it.

    Args:
        model: The model.
        request: What was asked.
        callbacks: Those of the call.
        record: The fit.
        steps: Steps in an epoch, where that is known.
    """
    found = keras.callbacks.CallbackList(
        list(callbacks),
        add_history=True,
        model=model,
        verbose=request.verbose,
        epochs=request.first_label(record) + request.planned_epochs,
        steps=steps,
    )
    _keras.call_without_threads(found)
    return found


def fill_history(callbacks: Any, recorder: Recorder, record: FitRecord) -> Any:
    """Fill the History of a callback list with the epochs of a fit that are done, and return it."""
    history = next(c for c in callbacks.callbacks if isinstance(c, keras.callbacks.History))
    epochs = recorder.epochs.of(record.number)
    history.epoch = [epoch.label for epoch in epochs]
    history.history = {}
    for epoch in epochs:
        stored = record.detail.get("array_logs", {}).get(str(epoch.epoch), {})
        for name, value in merged(epoch.logs, stored).items():
            history.history.setdefault(name, []).append(value)
    if callbacks.model.history is not history:
        callbacks.model.history = history
    return history


def progress_of(request: FitRequest, record: FitRecord, *, steps: int | None) -> Progress:
    """Return what shows a fit to a person."""
    return make_progress(
        request.verbose,
        fit=record.number,
        name=record.name,
        epochs=record.epochs_planned,
        first_epoch=request.first_label(record),
        steps=steps,
    )
