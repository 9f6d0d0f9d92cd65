"""Where fits, epochs and events lie on the axis of a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from keepfit.history.history import History
    from keepfit.history.rows import FitRow
    from keepfit.journal.records import EpochRecord, EventRecord

Unit = Literal["epochs", "steps"]

# What the picture marks, in its words. The other kinds of events are for the table.
MARKED = {
    "died": "killed",
    "interrupted": "interrupted",
    "resumed": "resumed",
    "nonfinite": "not finite",
    "branch": "branched",
    "damage": "damage",
}
STOPPED = "stopped early"


@dataclass(frozen=True, slots=True)
class Band:
    """The stretch of the axis that one fit takes."""

    row: FitRow
    left: float
    right: float


@dataclass(frozen=True, slots=True)
class Mark:
    """One thing that happened, at one place of the axis."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """The axis of a picture: finished epochs or steps of the run.

    Attributes:
        unit: What the axis counts.
        starts: Where each epoch begins.
        ends: Where each epoch ends, which is where its metrics are drawn.
        bands: One a fit that has come anywhere, in order.
        marks: What happened, from left to right, each text once at a place.
    """

    unit: Unit
    starts: tuple[float, ...]
    ends: tuple[float, ...]
    bands: tuple[Band, ...]
    marks: tuple[Mark, ...]

    @property
    def left(self) -> float:
        """Where the axis begins."""
        return self.bands[0].left if self.bands else 0.0

    @property
    def right(self) -> float:
        """Where the axis ends."""
        far = [band.right for band in self.bands] + [mark.at for mark in self.marks]
        return max(far, default=self.left + 1.0)


def timeline(history: History, unit: Unit) -> Timeline:
    """Return where everything in a history lies on an axis that counts `unit`."""
    epochs = history.epochs
    place = _places(epochs, unit)
    events = [(place(event), event) for event in history.events if event.kind in MARKED]
    placed = [(at, event) for at, event in events if at is not None]
    bands = _bands(history, unit, placed)
    marks = [Mark(at, MARKED[event.kind]) for at, event in placed]
    marks += [Mark(band.right, STOPPED) for band in bands if band.row.status == "stopped"]
    order = {text: index for index, text in enumerate((*MARKED.values(), STOPPED))}
    return Timeline(
        unit=unit,
        starts=tuple(float(epoch.epoch if unit == "epochs" else epoch.step - epoch.steps) for epoch in epochs),
        ends=tuple(_end(epoch, unit) for epoch in epochs),
        bands=tuple(bands),
        marks=tuple(sorted(set(marks), key=lambda mark: (mark.at, order[mark.text]))),
    )


def _end(epoch: EpochRecord, unit: Unit) -> float:
    return float(epoch.epoch + 1 if unit == "epochs" else epoch.step)


def _places(epochs: Sequence[EpochRecord], unit: Unit) -> Callable[[EventRecord], float | None]:
    # A step inside an epoch lies between that epoch's ends in proportion.
    knots = [(0, 0.0)]
    if epochs:
        first = epochs[0]
        knots = [(first.step - first.steps, float(first.epoch)), *((e.step, float(e.epoch + 1)) for e in epochs)]

    def place(event: EventRecord) -> float | None:
        if unit == "steps" and event.step is not None:
            return float(event.step)
        if event.step is not None and len(knots) > 1:
            return _interpolated(event.step, knots)
        if event.epoch is None:
            return None
        if unit == "epochs":
            return float(event.epoch)
        return next((float(step) for step, epoch in knots if epoch >= event.epoch), float(knots[-1][0]))

    return place


def _interpolated(step: int, knots: Sequence[tuple[int, float]]) -> float:
    for (left_step, left), (right_step, right) in pairwise(knots):
        if step <= right_step:
            share = (step - left_step) / max(right_step - left_step, 1)
            return left + max(share, 0.0) * (right - left)
    (before_step, _), (last_step, last) = knots[-2], knots[-1]
    # An epoch under way is never drawn as a finished one.
    return last + min((step - last_step) / max(last_step - before_step, 1), 0.95)


def _bands(history: History, unit: Unit, placed: Iterable[tuple[float, EventRecord]]) -> list[Band]:
    ends = {epoch.fit: _end(epoch, unit) for epoch in history.epochs}
    reached = dict(ends)
    for at, event in placed:
        if event.fit is not None:
            reached[event.fit] = max(at, reached.get(event.fit, at))
    bands = []
    for row in history.fits:
        left = float(row.first_epoch if unit == "epochs" else row.first_step)
        # An unfinished fit goes as far as the last thing known of it.
        right = (reached if row.status == "open" else ends).get(row.number, left)
        if right > left:
            bands.append(Band(row, left, right))
    return bands
