"""One row a fit: what the table of a run shows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keepfit.journal.records import EpochRecord, FitRecord


@dataclass(frozen=True, slots=True)
class FitRow:
    """What one fit came to.

    Args:
        number: Number of the fit within the run, from 1.
        name: Name that it was given, or None.
        status: ``open``, ``finished``, ``stopped`` or ``closed``.
        phase: ``first``, ``continues``, ``new``, or None where it was not decided.
        phase_reason: Why it is this phase.
        epochs: Epochs finished in this fit.
        planned: Epochs it was asked for.
        steps: Steps trained in its finished epochs.
        samples: Samples trained on in its finished epochs.
        first_epoch: Epochs of the run finished before it.
        first_step: Steps of the run finished before it.
        learning_rate: Rate at its start, or None where it is not one number.
        logs: Metrics of its last finished epoch; empty where there is none.
        started: Unix time in seconds.
        ended: Unix time in seconds, or None while it is open.
        seconds: Time spent in its finished epochs.
        approximate: What of it is not exact, one sentence each.
        branch: 0 for the run's timeline, more for a closed branch.
        trained: Names of the variables that it trained; empty where that was not recorded.
        rate: The rate it was asked for: a number, or the config of a schedule with its ``class``.
        multipliers: Name of a variable -> what its rate was multiplied with, of those that had a rate of their own.
        variables: Name -> [shape, dtype] of variables that were not the model's at the start of the run, None for those
            that are not there any more.
    """

    number: int
    name: str | None
    status: str
    phase: str | None
    phase_reason: str | None
    epochs: int
    planned: int
    steps: int
    samples: int
    first_epoch: int
    first_step: int
    learning_rate: float | None
    logs: Mapping[str, float]
    started: float
    ended: float | None
    seconds: float
    approximate: tuple[str, ...]
    branch: int
    trained: tuple[str, ...] = ()
    rate: object = None
    multipliers: Mapping[str, float] = field(default_factory=dict)
    variables: Mapping[str, object] = field(default_factory=dict)


def fit_row(fit: FitRecord, epochs: Iterable[EpochRecord]) -> FitRow:
    """Return the row of one fit.

    Args:
        fit: What the journal has on the fit.
        epochs: The finished epochs of this fit and of no other, oldest first.
    """
    own = list(epochs)
    last = own[-1] if own else None
    strict = fit.recipe.get("strict", {})
    return FitRow(
        number=fit.number,
        name=fit.name,
        status=fit.status,
        phase=fit.phase,
        phase_reason=fit.phase_reason,
        epochs=fit.epochs_done,
        planned=fit.epochs_planned,
        steps=sum(epoch.steps for epoch in own),
        samples=last.samples - fit.first_samples if last else 0,
        first_epoch=fit.first_epoch,
        first_step=fit.first_step,
        learning_rate=fit.learning_rate,
        logs=dict(last.logs) if last else {},
        started=fit.started,
        ended=fit.ended,
        seconds=math.fsum(epoch.seconds for epoch in own),
        approximate=tuple(fit.approximate),
        branch=fit.branch,
        trained=tuple(strict.get("trainable") or ()),
        rate=strict.get("learning_rate"),
        multipliers=dict(strict.get("rate_multipliers") or {}),
        variables=dict(strict.get("variables") or {}),
    )


def fit_rows(fits: Iterable[FitRecord], epochs: Iterable[EpochRecord]) -> tuple[FitRow, ...]:
    """Return one row a fit, by branch and number.

    Args:
        fits: Fits of any branches.
        epochs: Epochs of any branches, oldest first within a fit; those of other fits are left out.
    """
    of_fit: dict[tuple[int, int], list[EpochRecord]] = {}
    for epoch in epochs:
        of_fit.setdefault((epoch.branch, epoch.fit), []).append(epoch)
    ordered = sorted(fits, key=lambda fit: (fit.branch, fit.number))
    return tuple(fit_row(fit, of_fit.get((fit.branch, fit.number), ())) for fit in ordered)
