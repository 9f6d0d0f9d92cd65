"""Where a script stands in its run, and what its next call of ``fit`` means."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from keepfit.clock import Position
from keepfit.ends import Ends
from keepfit.journal import FitRecord
from keepfit.recipe import Comparison, Recipe, compare
from keepfit.recorder import Recorder
from keepfit.snapshot import Snapshot


@dataclass
class OpenFit:
    """A fit that was interrupted in this process and may go on.

    Args:
        record: Its record.
        snapshot: The last finished step; None if the fit had not begun an epoch.
        recipe: What it was asked to do.
        rate: The learning rate's config when it was interrupted.
        values: Name -> the array its variable held then.
    """

    record: FitRecord
    snapshot: Snapshot | None
    recipe: Recipe
    rate: Any
    values: dict[str, Any]

    @property
    def trained_nothing(self) -> bool:
        """Return whether it was left before its first step."""
        return self.snapshot is None or self.snapshot.state["position"]["step"] == self.record.first_step


@dataclass
class Place:
    """The script's place in the run: what it has called so far, whatever the journal knows beyond.

    Args:
        fits: Calls of ``fit`` that have returned, the last number of `FitRecord`.
        position: What is finished as of that place.
        ends: What the last of them left.
        open: The fit that was interrupted in this process, if it was.
        missing: The fit whose result should be in the model but was thinned out, if any.
        unsure: Whether `ends` are those of an earlier fit, so that they do not tell what was set by hand.
    """

    fits: int = 0
    position: Position = field(default_factory=Position)
    ends: Ends = field(default_factory=lambda: Ends(None, Snapshot(), Snapshot()))
    open: OpenFit | None = None
    missing: int | None = None
    unsure: bool = False


@dataclass(frozen=True)
class Decision:
    """What a call of ``fit`` means.

    Args:
        kind: ``"new"``, ``"replay"``, ``"resume"`` or ``"changed"``.
        number: Number of the fit.
        record: Its record, where the journal has one.
        comparison: How its recipe differs from the one given now.
        left_open: An interrupted fit of an earlier process that is to be closed first.
        gives_way: Whether an interrupted fit of that number, which trained nothing, makes room for this one.
    """

    kind: str
    number: int
    record: FitRecord | None = None
    comparison: Comparison = field(default_factory=Comparison)
    left_open: FitRecord | None = None
    gives_way: bool = False


def decide(recorder: Recorder, place: Place, recipe: Recipe, *, mode: str, describe: Any = None) -> Decision:
    """Return what the next call of ``fit`` means: call *k* asks that fit *k* reach its length.

    Args:
        recorder: What the run remembers.
        place: Where the script stands.
        recipe: What the call asks for.
        mode: ``"replay"`` or ``"append"``.
        describe: Says how two fingerprints of data differ.
    """
    fits = recorder.fits
    number = place.fits + 1
    if mode == "append":
        named = next((r for r in fits.values() if recipe.name is not None and r.name == recipe.name), None)
        if named is not None and named.status != "open":
            return _against(named, recipe, fits, describe, relaxed=True)
        number = max(fits, default=0) + 1
        last = fits.get(number - 1)
        if last is not None and last.status == "open":
            found = _against(last, recipe, fits, describe, relaxed=True)
            if found.kind == "resume":
                return found
            if _trained_nothing(recorder, last):
                return Decision("new", last.number, gives_way=True)
            return Decision("new", number, left_open=last)
    record = fits.get(number)
    if record is None:
        return Decision("new", number)
    found = _against(record, recipe, fits, describe, relaxed=place.unsure)
    if found.kind == "changed" and _trained_nothing(recorder, record):
        return Decision("new", number, gives_way=True)
    return found


def number_asked(recorder: Recorder, place: Place, *, name: str | None, mode: str) -> int:
    """Return the number of the fit that a call means, as far as its name and place tell.

    Where an interrupted fit may go on or be closed, it is counted as one before.
    """
    if mode != "append" or place.open is not None:
        return place.fits + 1 + (place.open is not None and not place.open.trained_nothing)
    named = (r.number for r in recorder.fits.values() if name is not None and r.name == name and r.status != "open")
    return next(named, max(recorder.fits, default=0) + 1)


def longer(decision: Decision, recipe: Recipe) -> Decision:
    """Return a decision for a fit whose rates are over fractions of its length: more epochs make another fit of it."""
    record = decision.record
    if decision.kind != "resume" or record is None or not decision.comparison.more_epochs:
        return decision
    before, now = (f"over fractions of {epochs} epochs" for epochs in (record.epochs_planned, recipe.epochs))
    raises = {"epochs": (record.epochs_planned, recipe.epochs), "learning_rate": (before, now)}
    return Decision("changed", decision.number, record, Comparison(raises=raises, warns=decision.comparison.warns))


def _trained_nothing(recorder: Recorder, record: FitRecord) -> bool:
    """Return whether a fit was left open before anything of it was kept: a call that failed, mostly."""
    if record.status != "open" or recorder.epochs.of(record.number):
        return False
    newest = recorder.newest(fit=record.number)
    return newest is None or newest.position.step == record.first_step


def _against(record: FitRecord, recipe: Recipe, fits: Any, describe: Any, *, relaxed: bool) -> Decision:
    recorded = Recipe.from_json(record.recipe)
    comparison = compare(recorded, recipe, describe=describe)
    if relaxed:
        # The model does not hold the state this fit began with, so what it holds says nothing about a change.
        left_aside = ("start", "learning_rate", "trainable")
        kept = {path: pair for path, pair in comparison.raises.items() if path.split(".")[0] not in left_aside}
        comparison = Comparison(raises=kept, warns=comparison.warns, more_epochs=comparison.more_epochs)
    number = record.number
    if not comparison.same:
        return Decision("changed", number, record, comparison)
    if record.status == "open" and number == max(fits):
        return Decision("resume", number, record, comparison)
    if comparison.more_epochs and record.status == "finished":
        if number < max(fits):
            raises = {"epochs": (recorded.epochs, recipe.epochs)}
            return Decision("changed", number, record, Comparison(raises=raises, warns=comparison.warns))
        return Decision("resume", number, record, comparison)
    return Decision("replay", number, record, comparison)
