"""Where a run stands: bring the model to the end of a fit, and know what is kept."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from keepfit import randomness
from keepfit.clock import Position
from keepfit.ends import Ends
from keepfit.errors import StateNotKept
from keepfit.phases import CLOCK_NAME, begin_as, fresh_values, match, settle, untrained
from keepfit.place import OpenFit, Place
from keepfit.recipe import Recipe
from keepfit.snapshot import Snapshot, parted

if TYPE_CHECKING:
    from keepfit.journal import FitRecord
    from keepfit.run import Run


def restore(run: Run, snapshot: Snapshot) -> None:
    """Put variables and global generators as a snapshot has them."""
    run.attributes.put_back(snapshot.state.get("attributes", {}))
    values = snapshot.variables()
    begin_as(run.model, values)
    if run.model.optimizer is not None and run.model.optimizer.built:
        match(run.model, values)
    run.inventory.list_anew()
    variables = run.engine.variables
    # Compiled metrics get their variables with the first batch; what was kept of them waits for it.
    run.inventory.pending = {name: value for name, value in values.items() if name not in set(variables.names)}
    if any(name.startswith("metrics/") and name not in values for name in variables.names):
        run.model.reset_metrics()
    unassigned = variables.assign(values)
    # A state of before an optimizer was built: it begins anew, with the weights that are there now.
    fresh = fresh_values(run.model, untrained(unassigned, values))
    if fresh:
        variables.assign(fresh, skip=lambda name: name not in fresh)
        unassigned = [name for name in unassigned if name not in fresh]
    settle(run.model)
    # A fit sets its clock as it begins.
    missing = [name for name in unassigned if not name.startswith("metrics/") and CLOCK_NAME not in name]
    if missing:
        run.notice(
            f"{len(missing)} variables have no value in the kept state and stay as they are, {missing[0]} among them."
        )
    if "randomness" in snapshot.state:
        randomness.restore(snapshot.state["randomness"])


def stand_at(run: Run, fit: int, *, must: bool = False) -> Snapshot | None:
    """Bring the model to the recorded end of a fit.

    Args:
        run: The run.
        fit: Its number; 0 for the start.
        must: Raise where that state is not kept, instead of leaving the model as it is.

    Returns:
        The result that the model now holds, None where it is not kept.
    """
    checkpoint = run.recorder.end_of(fit) if fit else run.recorder.newest(kinds=("start",))
    if checkpoint is None:
        if must:
            raise StateNotKept(f"The result of fit {fit} is not kept. Nothing was changed. {kept(run)}", fit=fit)
        _stand_without_state(run, fit)
        return None
    result, resume = parted(*run.recorder.load(checkpoint))
    restore(run, result)
    record = run.recorder.fits.get(fit)
    values = run.engine.variables.values()
    _move(
        run.place,
        fits=fit,
        position=checkpoint.position,
        # The arrays in the variables stand for the result's from now on, so that a change by hand shows.
        ends=Ends(
            record,
            Snapshot({**result.tensors, **values}, result.state),
            _relinked(resume, result, values),
            values,
            batches=result.state.get("batches", 0),
        ),
        missing=None,
        unsure=False,
    )
    return result


def _stand_without_state(run: Run, fit: int) -> None:
    nearest = min((c.fit for c in run.recorder.checkpoints if c.kind == "end" and c.fit > fit), default=None)
    then = "" if nearest is None else f" until fit {nearest}"
    run.say_once(
        "state not kept",
        f"The results of earlier fits were thinned out. {kept(run)} The model keeps the state it has{then}.",
    )
    record = run.recorder.fits[fit]
    last = run.recorder.epochs.of(fit)
    position = (
        Position(fit, last[-1].epoch + 1, last[-1].step, last[-1].samples)
        if last
        else Position(fit, record.first_epoch, record.first_step, record.first_samples)
    )
    _move(run.place, fits=fit, position=position, missing=fit, unsure=True)


def close_interrupted(run: Run, left: OpenFit) -> None:
    """Close a fit that was interrupted in this process, as it stands."""
    assert left.snapshot is not None
    record = replace(left.record, status="closed")
    run.recorder.put_fit(record)
    snapshot = Snapshot({**left.snapshot.tensors, **run.engine.variables.values()}, left.snapshot.state)
    position = replace(Position.from_json(left.snapshot.state["position"]), fit=record.number)
    run.recorder.checkpoint(
        kind="end", fit=record.number, position=position, tensors=snapshot.tensors, state=snapshot.state
    )
    message = (
        f"Fit {record.number} was interrupted and is closed as it stands; this call begins fit {record.number + 1}."
    )
    run.recorder.event("closed", message, fit=record.number)
    run.place.fits = record.number
    run.place.position = position
    run.place.open = None
    run.place.ends = Ends(record, snapshot, snapshot, left.values)


def close_left_open(run: Run, record: FitRecord) -> bool:
    """Close a fit that an earlier process left open, as its newest checkpoint has it.

    Returns:
        Whether there was anything of it; where not, its number is free.
    """
    checkpoint = run.recorder.newest(fit=record.number)
    if checkpoint is None:
        return False
    snapshot = parted(*run.recorder.load(checkpoint))[1]
    restore(run, snapshot)
    left = OpenFit(record, snapshot, Recipe.from_json(record.recipe), None, run.engine.variables.values())
    close_interrupted(run, left)
    message = f"Fit {record.number} was interrupted in an earlier process and is closed as it stands."
    run.notice(message, fit=record.number)
    return True


def kept(run: Run) -> str:
    """Say which results are kept."""
    fits = sorted({c.fit for c in run.recorder.checkpoints if c.kind == "end"})
    return f"Kept are the results of fits {', '.join(map(str, fits))}." if fits else "No result is kept."


def state_not_kept(run: Run, verb: str) -> StateNotKept:
    """Return the error for a call that needs the state at the script's place, which the model does not hold."""
    return StateNotKept(
        f"{verb}() needs the result of fit {run.place.missing}, which was thinned out. Nothing was changed. "
        f"{kept(run)} Name fits whose state a script reads (name=...), or raise keep=.",
        fit=run.place.missing,
    )


def _move(place: Place, **changes: Any) -> None:
    """Change a place where it stands, since others hold it."""
    for name, value in changes.items():
        setattr(place, name, value)


def _relinked(resume: Snapshot, result: Snapshot, values: dict[str, Any]) -> Snapshot:
    """Return a resume point that shares with the result what was stored once, now that variables hold it."""
    tensors = {
        name: values.get(name, value) if result.tensors.get(name) is value else value
        for name, value in resume.tensors.items()
    }
    return Snapshot(tensors, resume.state)
