"""Writing a journal."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from keepfit.journal import rows
from keepfit.journal.place import wal_is_safe
from keepfit.journal.reader import FILE_NAME, Reader
from keepfit.journal.schema import format_of, migrate

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

    from keepfit.journal.records import CheckpointRecord, EpochRecord, EventRecord, FitRecord

_RECENT_DOCUMENTS = 64
# What SQLite may keep of the file in memory. A writer touches the last pages of each table; at its default of 2,000
# a run's memory grows by 2 MB over its first thousands of fits.
_CACHE_KIB = 256


class Writer:
    """The one writer of a run's journal; used by one thread at a time.

    Every change belongs inside `transaction`.

    Args:
        connection: An open database of the newest format; see `open`.
        levels: Value of ``PRAGMA synchronous`` for a quick and for a durable transaction.
        on_commit: Called after each commit with whether it is durable.
    """

    def __init__(
        self, connection: sqlite3.Connection, *, levels: tuple[str, str], on_commit: Callable[[bool], object]
    ) -> None:
        self.reader = Reader(connection)
        self._connection = connection
        self._levels = levels
        self._on_commit = on_commit
        self._documents: dict[str, None] = {}  # hashes that are in the table for sure

    @classmethod
    def open(cls, directory: Path, *, on_commit: Callable[[bool], object] = bool) -> Writer:
        """Open the journal of a run, make it in an empty folder, or bring it to the newest format.

        Raises:
            NotARun, FormatTooNew: Nothing was changed.
            sqlite3.Error: It cannot be opened or written.
        """
        path = directory / FILE_NAME
        connection = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
        try:
            format_of(connection, path)  # ask before anything is changed
            logged = wal_is_safe(path) and _journal_mode(connection, "WAL") == "wal"
            if not logged:
                _journal_mode(connection, "DELETE")
            # EXTRA: a rollback journal whose removal did not last would undo the commit after a power cut.
            levels = ("NORMAL", "FULL") if logged else ("FULL", "EXTRA")
            connection.execute(f"PRAGMA synchronous = {levels[1]}")
            connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            connection.execute("PRAGMA fullfsync = 1")  # for macOS, whose fsync does not reach the medium
            before, after = migrate(connection, path)
            if before != after:
                on_commit(True)
        except BaseException:
            connection.close()
            raise
        return cls(connection, levels=levels, on_commit=on_commit)

    @contextmanager
    def transaction(self, *, durable: bool) -> Iterator[None]:
        """Make all changes inside or none.

        Args:
            durable: Whether they outlive a power cut once this returns; otherwise
                they outlive the process, and a power cut takes the last ones as
                if they had never been.
        """
        self._connection.execute(f"PRAGMA synchronous = {self._levels[durable]}")
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            self._documents.clear()
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        self._on_commit(durable)

    def set_meta(self, key: str, value: Any) -> None:
        """Set a fact about the whole run."""
        self._run("INSERT OR REPLACE INTO run VALUES (:key, :value)", key=key, value=rows.to_text(value))

    def put_fit(self, record: FitRecord) -> None:
        """Insert a fit, or replace the one with its branch and number."""
        row = rows.fit_row(record, recipe=self._document(record.recipe), plan=self._document(record.plan))
        self._run(rows.insertion("fits", row, verb="INSERT OR REPLACE"), **row)

    def put_epoch(self, record: EpochRecord) -> None:
        """Append an epoch; those of its branch from its index on are replaced."""
        row = rows.epoch_row(record)
        self._run("DELETE FROM epochs WHERE branch = :branch AND epoch >= :epoch", **row)
        self._run(rows.insertion("epochs", row), **row)

    def put_event(self, record: EventRecord) -> None:
        """Append an event."""
        row = rows.event_row(record)
        self._run(rows.insertion("events", row), **row)

    def begin_session(self, *, pid: int, host: str, started: float) -> int:
        """Register a process and return the number of its session."""
        statement = "INSERT INTO sessions (pid, host, started, how) VALUES (:pid, :host, :started, 'open')"
        return int(self._run(statement, pid=pid, host=host, started=started).lastrowid or 0)

    def end_session(self, session: int, *, ended: float, how: str) -> None:
        """Note when and how a session ended."""
        self._run("UPDATE sessions SET ended = :ended, how = :how WHERE id = :id", id=session, ended=ended, how=how)

    def add_checkpoint(self, record: CheckpointRecord, *, state: str, fit_record: FitRecord | None) -> None:
        """Insert a checkpoint, whose state is given as text, with its fit as of now."""
        row = {
            "id": record.id,
            "branch": record.branch,
            "fit": record.fit,
            "kind": record.kind,
            "fits": record.position.fit,
            "epoch": record.position.epoch,
            "step": record.position.step,
            "samples": record.position.samples,
            "good": record.good,
            "created": record.created,
            "size_bytes": record.size_bytes,
            "pinned": record.pinned,
            "damaged": record.damaged,
            "manifest": rows.to_text(record.manifest),
            "state": state,
            "fit_record": None if fit_record is None else rows.fit_to_text(fit_record),
        }
        self._run(rows.insertion("checkpoints", row), **row)

    def pin(self, checkpoint_id: int) -> None:
        """Mark a checkpoint as pinned."""
        self._run("UPDATE checkpoints SET pinned = 1 WHERE id = :id", id=checkpoint_id)

    def mark_damaged(self, checkpoint_id: int) -> None:
        """Mark a checkpoint as damaged."""
        self._run("UPDATE checkpoints SET damaged = 1 WHERE id = :id", id=checkpoint_id)

    def keep_checkpoints(self, ids: Collection[int]) -> None:
        """Remove all checkpoints but these."""
        have = {row[0] for row in self._run("SELECT id FROM checkpoints")}
        self._connection.executemany("DELETE FROM checkpoints WHERE id = ?", [(item,) for item in have - set(ids)])

    def close_branch(self, *, after: int, number: int) -> None:
        """Move the current fits after number ``after``, with all that is theirs, to a closed branch."""
        self._run("UPDATE fits SET branch = :number WHERE branch = 0 AND number > :after", number=number, after=after)
        for table in ("epochs", "checkpoints"):
            statement = f"UPDATE {table} SET branch = :number WHERE branch = 0 AND fit > :after"  # noqa: S608
            self._run(statement, number=number, after=after)

    def cut(self, *, fit: int, epoch: int) -> None:
        """Remove the current fits after number ``fit``, and the epochs from index ``epoch`` on."""
        self._run("DELETE FROM fits WHERE branch = 0 AND number > :fit", fit=fit)
        self._run("DELETE FROM epochs WHERE branch = 0 AND (fit > :fit OR epoch >= :epoch)", fit=fit, epoch=epoch)

    def add_pending(self, files: Mapping[str, int]) -> None:
        """Note files that are about to be made, name -> bytes."""
        self._connection.executemany("INSERT OR IGNORE INTO files VALUES (?, ?, 'pending')", files.items())

    def mark_kept(self, files: Mapping[str, int]) -> None:
        """Note that files belong to a checkpoint, name -> bytes."""
        statement = "INSERT INTO files VALUES (?, ?, 'kept') ON CONFLICT (name) DO UPDATE SET state = 'kept'"
        self._connection.executemany(statement, files.items())

    def forget(self, files: Collection[str]) -> None:
        """Remove the rows of files that are gone."""
        self._connection.executemany("DELETE FROM files WHERE name = ?", [(name,) for name in files])

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _run(self, statement: str, **values: Any) -> sqlite3.Cursor:
        return self._connection.execute(statement, rows.bindable(values))

    def _document(self, data: Mapping[str, Any]) -> str:
        digest, text = rows.document(data)
        if digest not in self._documents:
            self._run("INSERT OR IGNORE INTO documents VALUES (:hash, :json)", hash=digest, json=text)
            if len(self._documents) >= _RECENT_DOCUMENTS:
                self._documents.clear()
            self._documents[digest] = None
        return digest


def _journal_mode(connection: sqlite3.Connection, mode: str) -> str:
    return str(connection.execute(f"PRAGMA journal_mode = {mode}").fetchone()[0])
