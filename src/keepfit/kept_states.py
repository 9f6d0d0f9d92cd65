"""Going back to kept states, and forking a run off from one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keepfit import live
from keepfit.errors import InvalidArgument, NotARun, StateNotKept
from keepfit.journal import CheckpointRecord, Reader
from keepfit.logs import more_is_better
from keepfit.recorder import DiskRecorder
from keepfit.snapshot import parted
from keepfit.standing import kept, restore

if TYPE_CHECKING:
    from keepfit.run import Run


def load(run: Run, fit: int | None, *, best: str | None) -> int:
    """Put a kept state into the model; see `Run.load`."""
    if fit is not None and best is not None:
        raise InvalidArgument("load() takes fit= or best=, not both. Nothing was changed.", argument="best")
    checkpoint = _best(run, best) if best is not None else _end(run, run.place.fits if fit is None else fit)
    result, _ = parted(*run.recorder.load(checkpoint))
    restore(run, result)
    run.recorder.pin(checkpoint.id)
    run.recorder.event("notice", f"The result of fit {checkpoint.fit} was loaded.", fit=checkpoint.fit)
    # What the fits before it ended with may still be unknown, and with it what was set by hand.
    run.place.missing = None
    return checkpoint.fit


def fork(run: Run, directory: Path, *, at: int | None, model: Any) -> Run:
    """Begin or open a fork; see `Run.fork`."""
    if run.directory is None:
        raise InvalidArgument(
            "Only a run with a folder can be forked. Nothing was changed. Give the run a directory.",
            argument="directory",
        )
    number = run.place.fits if at is None else at
    if number < 0 or number > run.place.fits:
        raise InvalidArgument(
            f"fork() at fit {number}: expected a fit that is finished as of here, 0 to {run.place.fits}. "
            "Nothing was changed.",
            argument="at",
        )
    lineage = {"directory": str(run.directory), "run": run.recorder.meta.get("id"), "at": number}
    if not _is_made(run, directory, lineage):
        _make_fork(run, directory, number, lineage)
    carried = ("mode", "on_change", "plan", "checkpoint_share", "keep", "reservoir", "leak_guard")
    settings = {name: getattr(run.settings, name) for name in carried}
    taken = model is None
    attached = taken and live.attached_run(run.model) is run
    target = run.model if taken else model
    if taken:
        run.close()
        run.closed = f"its model went to the fork {directory}"
    forked = type(run)(target, directory, **settings)
    if attached:
        live.bind(forked)
    return forked


def _is_made(run: Run, directory: Path, lineage: dict[str, Any]) -> bool:
    """Return whether a folder holds this fork, whole; one that a crash left half made, or hardly begun, is made anew.

    Raises:
        NotARun: It holds something else.
    """
    if not directory.exists() or not any(directory.iterdir()):
        return False
    with Reader.open(directory) as reader:
        meta, fits = reader.meta(), reader.fits(branch=None)
    found = meta.get("lineage")
    if found is None and "model" not in meta and not fits:
        return False
    if any((found or {}).get(name) != lineage[name] for name in ("at", "run")):
        raise NotARun(
            f"{directory} is a run, but not the fork of {run.directory} after fit {lineage['at']}. "
            "Nothing was changed. Choose another folder."
        )
    return "forked_at" in meta


def _make_fork(run: Run, directory: Path, number: int, lineage: dict[str, Any]) -> None:
    """Write what the fork shares with its parent: the fits before it and the state it begins with."""
    run.recorder.flush()
    checkpoint = _end(run, number)
    tensors, state = run.recorder.load(checkpoint)
    start = run.recorder.newest(kinds=("start",))
    recorder = DiskRecorder.open(directory)
    try:
        recorder.set_meta("lineage", lineage)
        for key in ("model", "seed"):
            recorder.set_meta(key, run.recorder.meta.get(key))
        if start is not None and start.id != checkpoint.id:
            start_tensors, start_state = run.recorder.load(start)
            recorder.checkpoint(
                kind="start", fit=0, position=start.position, tensors=start_tensors, state=start_state, wait=True
            )
        for record in (run.recorder.fits[k] for k in sorted(run.recorder.fits) if k <= number):
            recorder.put_fit(record)
            for epoch in run.recorder.epochs.of(record.number):
                recorder.put_epoch(epoch)
        recorder.event("forked", f"Forked from {run.directory} after fit {number}.", fit=number)
        recorder.checkpoint(
            kind=checkpoint.kind,
            fit=checkpoint.fit,
            position=checkpoint.position,
            tensors=tensors,
            state=state,
            good=checkpoint.good,
            wait=True,
        )
        newest = recorder.newest()
        if newest is not None:
            recorder.pin(newest.id)
        run.past.copy_to(recorder, directory, before=number + 1)
        # The last of all: what has it is whole.
        recorder.set_meta("forked_at", number)
    finally:
        recorder.close()


def _end(run: Run, fit: int) -> CheckpointRecord:
    run.recorder.flush()
    found = run.recorder.end_of(fit) if fit else run.recorder.newest(kinds=("start",))
    if found is None or fit > run.place.fits:
        raise StateNotKept(f"The result of fit {fit} is not kept. Nothing was changed. {kept(run)}", fit=fit)
    return found


def _best(run: Run, metric: str) -> CheckpointRecord:
    run.recorder.flush()
    better = max if more_is_better(metric) else min
    found = {}
    for checkpoint in run.recorder.checkpoints:
        value = run.recorder.epochs.last_logs(checkpoint.fit).get(metric) if checkpoint.kind == "end" else None
        if value is not None and math.isfinite(value) and checkpoint.fit <= run.place.fits:
            found[checkpoint.fit] = (value, checkpoint)
    if not found:
        raise StateNotKept(f"No kept fit has a finite {metric!r}. Nothing was changed. {kept(run)}", metric=metric)
    return found[better(found, key=lambda fit: found[fit][0])][1]
