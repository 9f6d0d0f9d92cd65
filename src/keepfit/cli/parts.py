"""What `keepfit show` says of data in partitions: what they are, and where the run stands in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from keepfit.history.table import counted

if TYPE_CHECKING:
    from keepfit.journal import CheckpointRecord, FitRecord

_MOST_NAMED = 6


def partition_lines(fits: Iterable[FitRecord], checkpoints: Sequence[CheckpointRecord]) -> list[str]:
    """Return lines on the partitions of the newest fit that trained on such; none where no fit did.

    Args:
        fits: In their order.
        checkpoints: Those that are kept.
    """
    found = [(fit, data) for fit in fits if (data := _partitions(fit)) is not None]
    if not found:
        return []
    fit, data = found[-1]
    sizes, names = data["sizes"], data["names"]
    lines = [
        f"fit {fit.number}: {counted(len(sizes), 'partition')} with {counted(sum(sizes), 'sample')}, "
        f"{data['window']} mixed at once"
    ]
    shown = list(zip(names, sizes, strict=True))[:_MOST_NAMED]
    lines += [f"  {name}: {counted(size, 'sample')}" for name, size in shown]
    if len(names) > len(shown):
        lines.append(f"  and {len(names) - len(shown)} more, the last one {names[-1]}")
    place = _place(fit, sum(sizes), checkpoints)
    return [*lines, place] if place else lines


def _partitions(fit: FitRecord) -> Mapping[str, Any] | None:
    data = fit.recipe.get("strict", {}).get("data", {}).get("items", {}).get("x", {})
    return data if data.get("kind") == "partitions" else None


def _place(fit: FitRecord, count: int, checkpoints: Sequence[CheckpointRecord]) -> str | None:
    kept = [point for point in checkpoints if point.branch == 0 and point.fit == fit.number]
    if not kept:
        return None
    state = kept[-1].state
    cursor = state.get("resume", state).get("cursor")
    size = fit.recipe["strict"].get("batch_size")
    if not cursor or not size:
        return None
    done = min(count, int(cursor["offset"]) * int(size))
    passes = int(cursor["passes"])
    return (
        f"position at checkpoint {kept[-1].id}: {passes} whole {'pass' if passes == 1 else 'passes'} and "
        f"{done:,} of {counted(count, 'sample')}"
    )
