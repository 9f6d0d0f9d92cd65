"""What happens to a run's record when a process opens it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from keepfit.errors import DamagedObject
from keepfit.journal import (
    FILE_NAME,
    CheckpointRecord,
    EpochRecord,
    EventRecord,
    FitRecord,
    SessionRecord,
    Writer,
    check_journal,
    not_a_run,
)
from keepfit.recorder.mirror import Mirror
from keepfit.store import Damage, Process, Store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

OBJECTS = "objects"
LOCK = "lock"
_RECENT_EVENTS = 200


@dataclass(frozen=True, slots=True)
class Opened:
    """A run as a new process found it.

    Args:
        mirror: Its rows, back at the newest checkpoint that can be read.
        session: Number of this process's session.
        verified: The checkpoint that was read whole, if there is one.
        damages: One sentence for each checkpoint that could not be.
    """

    mirror: Mirror
    session: int
    verified: int | None
    damages: list[str]


def refuse_other_folder(directory: Path) -> None:
    """Return if a folder is missing, empty or a run.

    Raises:
        NotARun, FormatTooNew: It holds something else.
    """
    journal = directory / FILE_NAME
    if directory.exists() and not directory.is_dir():
        raise not_a_run(journal, "it is a file")
    if not directory.is_dir():
        return
    if journal.is_dir():
        raise not_a_run(journal, "its run.sqlite is a folder")
    if journal.exists():
        check_journal(journal)
        return
    names = [item.name for item in directory.iterdir() if not item.name.startswith(".")]
    others = sorted(set(names) - {LOCK, OBJECTS})
    if others:
        raise not_a_run(journal, f"it holds {', '.join(others[:5])}{' and more' if len(others) > 5 else ''}")
    if OBJECTS in names and any((directory / OBJECTS).iterdir()):
        raise not_a_run(journal, "it holds stored objects, but their journal (run.sqlite) is missing")


def opened(writer: Writer, store: Store, directory: Path) -> Opened:
    """Go back to the newest readable checkpoint and begin a session.

    Rows beyond that checkpoint are work to be done again, and are removed. What
    was found is told by events. Files that a crash left are removed.

    Raises:
        DamagedObject: There are checkpoints, and none of them can be read.
    """
    now = time.time()
    damaged, checkpoint = _newest_readable(writer, store, directory)
    events: list[dict[str, Any]] = [
        {"kind": "damage", "message": message, "fit": item.fit, "data": {"checkpoint": item.id}}
        for item, message in damaged
    ]
    died = [session for session in writer.reader.sessions() if session.how == "open"]
    fits, epochs = writer.reader.fits(), writer.reader.epochs()
    last_sign = _last_sign(writer, epochs)
    if died:
        events.append(_died_event(died[-1], fits, epochs, last_sign))
    events += _trim_events(checkpoint, fits, epochs)
    me = Process.current()
    with writer.transaction(durable=True):
        for item, _message in damaged:
            writer.mark_damaged(item.id)
        for session in died:
            writer.end_session(session.id, ended=max(last_sign, session.started), how="died")
        _trim(writer, checkpoint, fits)
        session_id = writer.begin_session(pid=me.pid, host=me.host, started=now)
        message = f"Opened by process {me.pid} on {me.host}."
        for event in (*events, {"kind": "opened", "message": message, "data": {"pid": me.pid, "host": me.host}}):
            writer.put_event(EventRecord(time=now, session=session_id, **event))
    _remove_leftovers(writer, store)
    return Opened(
        _mirror(writer), session_id, None if checkpoint is None else checkpoint.id, [text for _, text in damaged]
    )


def damage_message(record: CheckpointRecord, damages: Sequence[Damage]) -> str:
    """Return the sentence that says what of a checkpoint cannot be read."""
    first = damages[0]
    names = ", ".join(first.tensors[:3]) + (" and more" if len(first.tensors) > 3 else "")
    return (
        f"Checkpoint {record.id} (fit {record.fit}, epoch {record.position.epoch}, step {record.position.step}) is "
        f"damaged and is passed over: {first.file}: {first.reason} ({names})."
    )


def _newest_readable(
    writer: Writer, store: Store, directory: Path
) -> tuple[list[tuple[CheckpointRecord, str]], CheckpointRecord | None]:
    """Return the checkpoints that are newly found damaged, with messages, and the newest good one."""
    damaged: list[tuple[CheckpointRecord, str]] = []
    candidates = writer.reader.checkpoints()
    for record in reversed(candidates):
        if record.damaged:
            continue
        damages = store.verify(record.manifest)
        if not damages:
            return damaged, record
        damaged.append((record, damage_message(record, damages)))
    if candidates:
        raise DamagedObject(
            f"No checkpoint of the run in {directory} can be read.\n"
            + "\n".join(f"  {message}" for _, message in damaged[:5])
            + "\nNothing was changed. Bring the files in objects/ back from a copy, or begin a run in another folder.",
            path=directory,
        )
    return [], None


def _bounds(checkpoint: CheckpointRecord | None) -> tuple[int, int]:
    """Return the last fit and the number of epochs that a checkpoint covers."""
    return (0, 0) if checkpoint is None else (checkpoint.fit, checkpoint.position.epoch)


def _trim(writer: Writer, checkpoint: CheckpointRecord | None, fits: Sequence[FitRecord]) -> None:
    fit, epoch = _bounds(checkpoint)
    writer.cut(fit=fit, epoch=epoch)
    if checkpoint is not None and checkpoint.fit:
        now = next((item for item in fits if item.number == checkpoint.fit), None)
        record = _fit_as_of(checkpoint, writer.reader.fit_at(checkpoint.id), now)
        if record is not None:
            writer.put_fit(record)


def _fit_as_of(checkpoint: CheckpointRecord, then: FitRecord | None, now: FitRecord | None) -> FitRecord | None:
    """Return the record of a checkpoint's fit as the checkpoint knows it.

    Args:
        checkpoint: The checkpoint.
        then: The fit when the checkpoint was taken.
        now: The fit as it was recorded last.
    """
    if checkpoint.kind == "end":
        # Its last word may have been recorded just behind the checkpoint.
        return now if then is None or (then.status == "open" and now and now.status != "open") else then
    record = then or now
    if record is None:
        return None
    done = checkpoint.position.epoch - record.first_epoch
    return replace(record, status="open", epochs_done=done, ended=None, stop_training=False)


def _trim_events(
    checkpoint: CheckpointRecord | None, fits: Sequence[FitRecord], epochs: Sequence[EpochRecord]
) -> list[dict[str, Any]]:
    fit, epoch = _bounds(checkpoint)
    fits = [item for item in fits if item.number > fit]
    epochs = [item for item in epochs if item.fit > fit or item.epoch >= epoch]
    if not fits and not epochs:
        return []
    place = "the beginning" if checkpoint is None else f"checkpoint {checkpoint.id} (fit {fit}, epoch {epoch})"
    return [
        {
            "kind": "notice",
            "message": f"The record goes back to {place}; what came after it is to be done again "
            f"(epochs: {len(epochs)}, fits: {len(fits)}).",
            "fit": fit,
            "epoch": epoch,
            "step": 0 if checkpoint is None else checkpoint.position.step,
            "data": {"epochs": len(epochs), "fits": len(fits)},
        }
    ]


def _died_event(
    session: SessionRecord, fits: Sequence[FitRecord], epochs: Sequence[EpochRecord], last_sign: float
) -> dict[str, Any]:
    return {
        "kind": "died",
        "message": f"Process {session.pid} on {session.host} ended without closing the run.",
        "fit": fits[-1].number if fits else None,
        "epoch": epochs[-1].epoch + 1 if epochs else None,
        "step": epochs[-1].step if epochs else None,
        "data": {"pid": session.pid, "host": session.host, "last_sign": last_sign},
    }


def _last_sign(writer: Writer, epochs: Sequence[EpochRecord]) -> float:
    """Return the wall clock of the newest row."""
    events, checkpoints = writer.reader.events(last=1), writer.reader.checkpoints()
    times = [item.ended for item in epochs[-1:]] + [item.time for item in events]
    return max([*times, *(item.created for item in checkpoints[-1:])], default=0.0)


def _remove_leftovers(writer: Writer, store: Store) -> None:
    used = {name for item in writer.reader.checkpoints(branch=None) for name in store.files(item.manifest)}
    left = set(writer.reader.files()) - used
    if left:
        store.delete(left)
        store.sync()
        with writer.transaction(durable=False):
            writer.forget(left)


def _mirror(writer: Writer) -> Mirror:
    reader, mirror = writer.reader, Mirror()
    mirror.meta = reader.meta()
    fits = reader.fits(branch=None)
    for record in fits:
        if record.branch == 0:
            mirror.fits.put(record)
    mirror.closed_fits = [record for record in fits if record.branch]
    for epoch in reader.epochs():
        mirror.epochs.put(epoch)
    mirror.events.extend(reader.events(last=_RECENT_EVENTS))
    mirror.checkpoints = [item for item in reader.checkpoints(branch=None) if not item.damaged]
    branches = [item.branch for item in fits] + [item.branch for item in mirror.checkpoints]
    mirror.branches = max(branches, default=0)
    return mirror
