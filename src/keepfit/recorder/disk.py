"""A run in a folder."""

from __future__ import annotations

import atexit
import copy
import os
import sqlite3
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keepfit.errors import DamagedObject, InvalidArgument, KeepfitError, StateNotKept, warn
from keepfit.journal import CheckpointKind, CheckpointRecord, EpochRecord, EventRecord, FitRecord, Writer
from keepfit.recorder.background import Background
from keepfit.recorder.budget import Budget, Share
from keepfit.recorder.failures import failure
from keepfit.recorder.mirror import Mirrored, branch_message
from keepfit.recorder.opening import LOCK, OBJECTS, Opened, damage_message, opened, refuse_other_folder
from keepfit.recorder.requests import Request, Waiting
from keepfit.recorder.snapshot import Snapshot
from keepfit.recorder.work import Work
from keepfit.store import Disk, RunLock, Store

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from keepfit.clock import Position


class DiskRecorder(Mirrored):
    """Records a run in a folder: rows in SQLite, tensors as files, behind the caller.

    Use `open`. What it promises is written at `Recorder`.
    """

    durable = True

    def __init__(
        self, *, directory: Path, found: Opened, work: Work, budget: Budget, gate: threading.Condition
    ) -> None:
        super().__init__(found.mirror)
        self.directory = directory
        self.session = found.session
        self._work = work
        self._budget = budget
        self._gate = gate
        self._background = Background(work=work, budget=budget, gate=gate, directory=directory)
        self._verified = {found.verified}  # read whole when the run was opened
        self._closed = False
        self._pid = os.getpid()

    @classmethod
    def open(
        cls, directory: Path | str, *, keep: int = 10, share: Share = 0.02, disk: Disk | None = None
    ) -> DiskRecorder:
        """Open the run in a folder for writing; make it where there is none.

        The record goes back to the newest checkpoint that can be read: what lies
        beyond it is to be done again, and an event says so.

        Args:
            directory: Missing, empty, or a run.
            keep: How many ends of fits are kept, 1 or more.
            share: Share of the time that checkpoints may cost, or ``"each"``
                for one at the end of every fit.
            disk: What touches the files; for tests.

        Raises:
            NotARun, FormatTooNew, RunLocked, RunReadOnly: Nothing was changed.
            DamagedObject: None of its checkpoints can be read; nothing was changed.
            StoreFull, StoreFailed: It could not be written.
        """
        if not isinstance(keep, int) or isinstance(keep, bool) or keep < 1:
            raise InvalidArgument(f"keep: expected a whole number, 1 or more, received {keep!r}. Nothing was changed.")
        budget = Budget(share)
        directory, disk = Path(directory).absolute(), disk or Disk()
        try:
            refuse_other_folder(directory)
            disk.mkdir(directory)
            lock = RunLock.take(directory / LOCK)
            try:
                recorder = cls._opened(directory, lock, disk, keep=keep, budget=budget)
            except BaseException:
                lock.release()
                raise
        except (OSError, sqlite3.Error) as error:
            problem = failure(error, directory, opening=True)
            if problem is error:
                raise
            raise problem from error
        recorder._background.start()
        atexit.register(recorder.close)
        return recorder

    @classmethod
    def _opened(cls, directory: Path, lock: RunLock, disk: Disk, *, keep: int, budget: Budget) -> DiskRecorder:
        writer = Writer.open(directory, on_commit=disk.committed)
        try:
            disk.sync_directory(directory)
            store = Store(directory / OBJECTS, disk)
            found = opened(writer, store, directory)
        except BaseException:
            writer.close()
            raise
        for message in found.damages:
            warn(message)
        gate = threading.Condition()
        work = Work(
            store=store,
            writer=writer,
            lock=lock,
            mirror=found.mirror,
            gate=gate,
            files=set(writer.reader.files()),
            last_id=writer.reader.last_checkpoint_id(),
            keep=keep,
        )
        return cls(directory=directory, found=found, work=work, budget=budget, gate=gate)

    def set_meta(self, key: str, value: Any) -> None:
        """Remember a JSON-able fact about the whole run."""
        with self._gate:
            self._background.change(partial(Writer.set_meta, key=key, value=value))
            self._mirror.meta[key] = value

    def put_fit(self, record: FitRecord) -> None:
        """Insert the record of a fit, or replace the one with its number."""
        with self._gate:
            self._background.change(partial(Writer.put_fit, record=record))
            self._mirror.fits.put(record)

    def put_epoch(self, record: EpochRecord) -> None:
        """Append a finished epoch; recorded ones from its index on are replaced."""
        with self._gate:
            self._background.change(partial(Writer.put_epoch, record=record))
            self._mirror.epochs.put(record)

    def event(
        self,
        kind: str,
        message: str,
        *,
        fit: int | None = None,
        epoch: int | None = None,
        step: int | None = None,
        **data: Any,
    ) -> None:
        """Record that something happened, now."""
        record = EventRecord(
            time=time.time(),
            kind=kind,
            message=message,
            fit=fit,
            epoch=epoch,
            step=step,
            data=data,
            session=self.session,
        )
        with self._gate:
            self._background.change(partial(Writer.put_event, record=record))
            self._mirror.events.append(record)

    def checkpoint(
        self,
        *,
        kind: CheckpointKind,
        fit: int,
        position: Position,
        tensors: Mapping[str, Any],
        state: Mapping[str, Any],
        good: bool = True,
        wait: bool = False,
        now: bool = False,
    ) -> None:
        """Keep a whole state of the run; see `Recorder.checkpoint`.

        Written whatever the budget says, and never replaced by a newer one: the
        state before fit 1, ends of named fits, with ``share="each"`` the end of
        every fit, and with ``wait``.
        """
        snapshot = Snapshot(state)
        waiting = Waiting() if wait else None
        with self._gate:
            record = self._mirror.fits.get(fit)
            named = kind == "end" and (self._budget.each or (record is not None and bool(record.name)))
            request = Request(
                kind=kind,
                fit=fit,
                position=position,
                tensors=dict(tensors),
                state=snapshot,
                good=good,
                fit_record=record,
                created=time.time(),
                order=self._background.order(),
                must=wait or named or kind == "start",
                now=now,
                waiting=waiting,
            )
            self._background.request(request)
        if waiting is not None:
            self._background.wait(waiting)

    def due(self) -> bool:
        """Return whether a checkpoint inside a fit fits the budget now; cheap."""
        known = self._mirror.checkpoints
        return self._background.due(known[-1].size_bytes if known else 0)

    def load(self, checkpoint: CheckpointRecord) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the tensors and the state of a checkpoint.

        Raises:
            DamagedObject: Stored bytes do not match their hash, or are missing.
            StateNotKept: Retention has removed it.
        """
        with self._work.reading:
            if all(item.id != checkpoint.id for item in self._mirror.checkpoints):
                raise StateNotKept(
                    f"Checkpoint {checkpoint.id} (fit {checkpoint.fit}) is not kept any more. Nothing was changed. "
                    "Name a fit (name=...) or raise keep= to keep more states.",
                    checkpoint=checkpoint.id,
                    fit=checkpoint.fit,
                )
            try:
                tensors = self._work.store.read(checkpoint.manifest)
            except DamagedObject as error:
                self._pass_over(checkpoint, str(error))
                raise
        return dict(tensors), copy.deepcopy(checkpoint.state)

    def newest(self, fit: int | None = None, kinds: Collection[str] | None = None) -> CheckpointRecord | None:
        """Return the newest readable checkpoint of the current branch; see `Recorder.newest`."""
        self._settle()
        for record in reversed(self._mirror.current()):
            if (fit is None or record.fit == fit) and (kinds is None or record.kind in kinds) and self._reads(record):
                return record
        return None

    def end_of(self, fit: int) -> CheckpointRecord | None:
        """Return the readable checkpoint at the end of a fit, None if it is not kept."""
        return self.newest(fit, kinds=("end",))

    def pin(self, checkpoint_id: int) -> None:
        """Keep a checkpoint whatever retention says.

        Raises:
            StateNotKept: There is no such checkpoint (any more).
        """
        self._settle()
        with self._gate:
            self._mirror.pin(checkpoint_id)
            self._background.change(partial(Writer.pin, checkpoint_id=checkpoint_id))

    def branch(self, after: int) -> None:
        """Close the fits after number ``after`` as a branch of their own."""
        with self._gate:
            number = self._mirror.close_branch(after)
            if number is None:
                return
            self._background.rebranch(after=after, number=number)
            self._background.change(partial(Writer.close_branch, after=after, number=number))
        self.event("branch", branch_message(after, number), fit=after, branch=number)

    def check(self) -> None:
        """Raise what went wrong in the background since the last call, once."""
        self._background.check()

    def flush(self) -> None:
        """Return when all that was recorded is written, durably."""
        self._background.flush()

    def close(self) -> None:
        """Write what is left and let the folder go; a second call does nothing.

        Raises:
            StoreFull, StoreFailed: Something could not be written; the folder was let go.
        """
        if self._closed or os.getpid() != self._pid:  # a forked child has no part in it
            return
        self._closed = True
        atexit.unregister(self.close)
        self.event("closed", f"Closed by process {self._pid}.")
        self._background.change(partial(Writer.end_session, session=self.session, ended=time.time(), how="closed"))
        try:
            self._background.stop()
        finally:
            self._work.close()
            self._work.lock.release()

    def _settle(self) -> None:
        """Write what waits, so that it can be found; if it cannot be, `check` will say so."""
        if self._background.busy():
            try:
                self._background.flush()
            except KeepfitError as error:
                self._background.note(error)

    def _reads(self, record: CheckpointRecord) -> bool:
        if record.id in self._verified:
            return True
        with self._work.reading:
            damages = self._work.store.verify(record.manifest)
        if damages:
            message = damage_message(record, damages)
            self._pass_over(record, message)
            warn(message)
        return not damages

    def _pass_over(self, record: CheckpointRecord, message: str) -> None:
        """Leave a damaged checkpoint out from now on.

        Raises:
            RunGone: The whole folder is not where it was, which says nothing about the checkpoint.
        """
        self._work.lock.stand()
        self._verified.discard(record.id)
        with self._gate:
            self._mirror.checkpoints = [item for item in self._mirror.checkpoints if item.id != record.id]
            if not self._closed:
                self._background.change(partial(Writer.mark_damaged, checkpoint_id=record.id))
                self.event("damage", message, fit=record.fit, checkpoint=record.id)
