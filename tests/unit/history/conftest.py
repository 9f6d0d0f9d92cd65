"""Histories made from records, without a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from keepfit.history import History
from keepfit.journal import EpochRecord, EventRecord, FitRecord

STEPS = 10
BATCH = 8


def make_history(
    lengths: Sequence[int],
    *,
    names: Sequence[str | None] | None = None,
    statuses: Sequence[str] | None = None,
    rates: Sequence[float | None] | None = None,
    logs: Callable[[int, int], dict[str, float]] | None = None,
    events: Sequence[tuple[str, int | None, int | None, int | None]] = (),
    **more: Any,
) -> History:
    """Return a history of fits of 10 steps an epoch and 8 samples a step.

    Args:
        lengths: Finished epochs of each fit.
        names: Their names.
        statuses: Their statuses, finished by default.
        rates: Their learning rates, 0.001 by default.
        logs: (fit, epoch of the run) -> metrics.
        events: (kind, fit, epoch, step) of each event.
        more: Further arguments of `History`.
    """
    fits, epochs = [], []
    done = 0
    for number, length in enumerate(lengths, 1):
        rate = rates[number - 1] if rates else 1e-3
        status = statuses[number - 1] if statuses else "finished"
        fits.append(
            FitRecord(
                number=number,
                name=names[number - 1] if names else None,
                status=status,
                phase="first" if number == 1 else "continues",
                epochs_planned=length if status == "finished" else length + 2,
                epochs_done=length,
                first_epoch=done,
                first_step=done * STEPS,
                first_samples=done * STEPS * BATCH,
                started=1.79e9 + done,
                learning_rate=rate,
            )
        )
        for _ in range(length):
            values = logs(number, done) if logs else {"loss": 2.0 / (done + 1), "val_loss": 2.5 / (done + 1)}
            done += 1
            epochs.append(
                EpochRecord(
                    fit=number,
                    epoch=done - 1,
                    label=done - 1,
                    logs=values,
                    learning_rate=rate,
                    steps=STEPS,
                    step=done * STEPS,
                    samples=done * STEPS * BATCH,
                    seconds=0.5,
                )
            )
    happened = [
        EventRecord(time=1.79e9, kind=kind, message=kind, fit=fit, epoch=epoch, step=step)
        for kind, fit, epoch, step in events
    ]
    return History(fits, epochs, happened, **more)


@pytest.fixture(name="make_history")
def make_history_fixture() -> Callable[..., History]:
    return make_history
