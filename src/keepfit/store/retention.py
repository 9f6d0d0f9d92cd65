"""Which checkpoints are kept."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


class Checkpoint(Protocol):
    """What retention needs to know of a checkpoint; see the journal's record."""

    @property
    def id(self) -> int: ...  # noqa: D102 (the record documents them)
    @property
    def branch(self) -> int: ...  # noqa: D102
    @property
    def fit(self) -> int: ...  # noqa: D102
    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def good(self) -> bool: ...  # noqa: D102
    @property
    def pinned(self) -> bool: ...  # noqa: D102


def kept(
    checkpoints: Collection[Checkpoint],
    *,
    named: Collection[int],
    keep: int,
    final_logs: Mapping[int, Mapping[str, float]],
) -> set[int]:
    """Return the numbers of the checkpoints that are kept.

    In the current branch: the state before fit 1, ends of named fits, the end
    of the best fit, ends of the last ``keep`` fits that have one, the newest
    two inside the newest fit, the newest good one, the newest and the one
    before it (in case the newest is damaged). In a closed branch: the newest
    end, or the newest where no fit reached its end. Pinned ones everywhere.

    Args:
        checkpoints: All of the run, in any order.
        named: Fits of the current branch that have a name.
        keep: How many ends of fits are kept, 1 or more.
        final_logs: Fit -> its last logs, at least for fits whose end is in ``checkpoints``.

    Returns:
        Numbers (``id``) of those to keep; the others can go.
    """
    ordered = sorted(checkpoints, key=lambda item: item.id)
    keepers = {item.id for item in ordered if item.pinned}
    current = [item for item in ordered if item.branch == 0]
    keepers |= {item.id for item in current if item.kind == "start"}
    ends = {item.fit: item.id for item in current if item.kind == "end"}  # a longer one replaces a shorter one
    keepers |= {number for fit, number in ends.items() if fit in named}
    keepers |= {ends[fit] for fit in (*sorted(ends)[-keep:], *_best(ends, final_logs))}
    inside = [item.id for item in current if item.kind == "inside" and item.fit == current[-1].fit]
    good = [item.id for item in current if item.good]
    keepers.update(inside[-2:], good[-1:], (item.id for item in current[-2:]))
    for branch in {item.branch for item in ordered} - {0}:
        closed = [item for item in ordered if item.branch == branch]
        keepers.add(max((item.id for item in closed if item.kind == "end"), default=closed[-1].id))
    return keepers


def _best(fits: Collection[int], final_logs: Mapping[int, Mapping[str, float]]) -> list[int]:
    """Return the fit with the lowest finite final validation loss, else loss, in a list or none."""
    for key in ("val_loss", "loss"):
        scores = {fit: final_logs[fit][key] for fit in fits if key in final_logs.get(fit, {})}
        finite = {fit: score for fit, score in scores.items() if isfinite(score)}
        if finite:
            return [min(finite, key=lambda fit: finite[fit])]
    return []
