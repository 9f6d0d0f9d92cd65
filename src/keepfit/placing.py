"""Bring the data of a fit to where the run stands in it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from keepfit import randomness
from keepfit.data import Source, StreamSource
from keepfit.ends import Ends
from keepfit.feed import Cursor
from keepfit.journal import FitRecord
from keepfit.snapshot import Snapshot, source_state_of

if TYPE_CHECKING:
    from keepfit.run import Run


def cursor_at(point: Snapshot, ends: Ends, record: FitRecord, *, resumed: bool) -> Cursor:
    """Return where a fit begins in its data; other data, batch size or shuffle begin a new pass.

    Args:
        point: The state the fit begins with.
        ends: What the fit before left.
        record: The fit.
        resumed: Whether it goes on inside.
    """
    found = point.state.get("cursor") or ends.resume.state.get("cursor")
    if not found:
        return Cursor()
    cursor = Cursor.from_json(found)
    same = ends.record is not None and ends.record.detail.get("feed") == record.detail.get("feed")
    if resumed or cursor.offset == 0 or same:
        return cursor
    return Cursor(cursor.passes + 1, 0)


def pay(run: Run, source: Source, data: Any) -> None:
    """Bring a stream to where replayed fits left it, before something else than a fit reads on in it."""
    if not isinstance(source, StreamSource) or source.begins_anew:
        return
    before = randomness.take()
    for part in ("source", "validation"):
        bring(source, Snapshot(), owed=run.debts.take(data, part), drawn=before, resumed=False, part=part)


def bring(
    source: Source,
    point: Snapshot,
    *,
    owed: Snapshot,
    drawn: randomness.State | None,
    resumed: bool,
    part: str = "source",
) -> str | None:
    """Bring a source to where the run stands in it.

    Args:
        source: It.
        point: The state the fit begins with.
        owed: Where replayed fits left the data, which is still at its beginning in this process.
        drawn: The global generators before anything was taken from a stream.
        resumed: Whether the fit goes on inside.
        part: ``"source"``, or ``"validation"`` for what the fit validates on.

    Returns:
        What is not exact about that, if anything.
    """
    again = (
        "was reached by going through it again, which is exact where it gives the same each time: "
        "seed what shuffles or draws in it"
    )
    hidden = "may differ: workers or iterators that it holds go on by themselves, and no state tells where they are"
    where = point if resumed else owed
    # What the script has set for the fit that begins is as it is; one that goes on inside has what it had there.
    with nullcontext() if resumed else source.as_set():
        if isinstance(source, StreamSource):
            before, wanted = source.consumed, where.state.get(part) or {}
            if resumed and before > (taken := int(wanted.get("consumed", before))):
                return f"is {before - taken} batches further on than it was, and it cannot go back"
            how = source.go_to(wanted)
            if source.consumed != before:
                randomness.restore(point.state["randomness"] if resumed else drawn or {})
            return {"exact": None, "replay": again, "approximate": hidden}[how]
        state = source_state_of(where, part)
        if state is not None:
            source.set_state(state)
        elif not resumed:
            return None
        return {"exact": None, "replay": again, "approximate": "may differ, for its items are random"}[source.exactness]
