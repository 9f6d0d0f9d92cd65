"""The order in which a run reaches the disk."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from keepfit.journal import CheckpointRecord, Writer
from keepfit.store import Batch, RunLock, Store, kept

if TYPE_CHECKING:
    from keepfit.recorder.mirror import Mirror
    from keepfit.recorder.requests import Request

Change = Callable[[Writer], None]


class Work:
    """Writes rows and checkpoints so that a crash leaves the old state or the new.

    Used by one thread at a time. The order for a checkpoint: names of its new
    files as *pending* (so that what a crash leaves behind is known as ours); the
    files, durably; then, in one durable transaction, the rows recorded before it,
    its own row, its files as *kept*, and the end of the checkpoints that
    retention lets go; and only after that the removal of files that no
    checkpoint needs any more.

    Args:
        store: Where tensors go.
        writer: Where rows go.
        lock: Held by this process.
        mirror: What this process knows of the run.
        gate: Guards the mirror.
        files: Every file that keepfit made in the store.
        last_id: The highest number a checkpoint ever had.
        keep: How many ends of fits retention keeps.
    """

    def __init__(
        self,
        *,
        store: Store,
        writer: Writer,
        lock: RunLock,
        mirror: Mirror,
        gate: threading.Condition,
        files: set[str],
        last_id: int,
        keep: int,
    ) -> None:
        self.store = store
        self.lock = lock
        self.reading = threading.Lock()  # held while files are read, so that none is removed meanwhile
        self.refused: list[Exception] = []  # of changes that can never be written
        self._writer = writer
        self._mirror = mirror
        self._gate = gate
        self._files = files
        self._used = set(files)
        self._removed: set[str] = set()  # files whose rows can go, once their removal is durable
        self._last_id = last_id
        self.keep = keep

    def write_rows(self, changes: Sequence[Change], *, durable: bool) -> None:
        """Commit changes of rows."""
        self.lock.hold()
        with self._writer.transaction(durable=durable):
            self._apply(changes)

    def write_checkpoint(self, request: Request, changes: Sequence[Change]) -> None:
        """Commit a checkpoint with the changes that were recorded before it.

        Raises:
            OSError, sqlite3.Error: It is not committed, nor are the changes.
            TypeError: A tensor does not hold numbers, or the state is not JSON-able.
        """
        self.lock.hold()
        state = request.state.text()
        batch = self.store.prepare(request.tensors)
        self._write_files(batch)
        record = self._record(request, batch, state)
        with self._gate:
            everything = [*self._mirror.checkpoints, record]
            keepers = kept(
                everything,
                named=self._mirror.fits.named,
                keep=self.keep,
                final_logs=self._mirror.final_logs(record.fit),
            )
        used = {name for item in everything if item.id in keepers for name in self.store.files(item.manifest)}
        forgotten = self._removed - used
        if forgotten and not batch.unsynced:  # else the folder was synced a moment ago
            self.store.sync()
        self.lock.hold()
        with self._writer.transaction(durable=True):
            self._apply(changes)
            self._writer.add_checkpoint(record, state=state, fit_record=request.fit_record)
            self._writer.mark_kept(batch.sizes)
            self._writer.keep_checkpoints(keepers)
            self._writer.forget(forgotten)
        self._removed -= forgotten | used
        self._last_id = record.id
        with self._gate:
            self._enter(record, request, keepers)
        self._used = used

    def tidy(self) -> None:
        """Remove the files that no checkpoint needs, as of the last one that was written.

        Raises:
            OSError: Some are left; they are tried again after the next checkpoint.
        """
        unused = self._files - self._used
        if unused:
            with self.reading:
                self.store.delete(unused)
            self._files -= unused
            self._removed |= unused

    def close(self) -> None:
        """Close the journal."""
        self._writer.close()

    def _apply(self, changes: Sequence[Change]) -> None:
        """Apply changes; one that can never be, such as a recipe that is not JSON-able, must not hold up the rest."""
        for change in changes:
            try:
                change(self._writer)
            except (TypeError, ValueError, OverflowError, sqlite3.ProgrammingError, sqlite3.InterfaceError) as error:
                self.refused.append(error)

    def _write_files(self, batch: Batch) -> None:
        new = {name: batch.sizes[name] for name in batch.files}
        if not self._files.issuperset(new):
            with self._writer.transaction(durable=True):
                self._writer.add_pending(new)
        self._files.update(batch.sizes)
        try:
            self.store.put(batch, between=self.lock.beat)
        except OSError:
            with suppress(OSError):
                self.store.discard(batch)
            raise

    def _record(self, request: Request, batch: Batch, state: str) -> CheckpointRecord:
        return CheckpointRecord(
            id=self._last_id + 1,
            branch=request.branch,
            fit=request.fit,
            kind=request.kind,
            position=request.position,
            good=request.good,
            created=request.created,
            size_bytes=batch.size_bytes,
            manifest=batch.manifest,
            state=json.loads(state),
        )

    def _enter(self, record: CheckpointRecord, request: Request, keepers: set[int]) -> None:
        """Put a checkpoint into the mirror; its branch may have been closed, others pinned, meanwhile."""
        mirror = self._mirror
        if request.branch != record.branch:
            record = replace(record, branch=request.branch)
        mirror.checkpoints = [item for item in (*mirror.checkpoints, record) if item.id in keepers]
