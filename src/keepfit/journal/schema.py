"""The tables of ``run.sqlite`` and how older ones become newer ones.

The number of the format is SQLite's ``user_version``; ``application_id`` tells
a run from other databases. A format is never edited: a change is a migration
appended to `MIGRATIONS`.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from keepfit.errors import FormatTooNew, NotARun

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

APPLICATION_ID = 0x6B656570  # "keep"

_FORMAT_1 = (
    # Facts about the whole run; values are JSON, as in every column marked so.
    "CREATE TABLE run (key TEXT PRIMARY KEY, value TEXT NOT NULL /* JSON */) WITHOUT ROWID",
    """CREATE TABLE sessions (
        id INTEGER PRIMARY KEY, pid INTEGER NOT NULL, host TEXT NOT NULL, started REAL NOT NULL, ended REAL,
        how TEXT NOT NULL)""",
    # A thousand equal fits share one recipe and one plan.
    "CREATE TABLE documents (hash TEXT PRIMARY KEY, json TEXT NOT NULL /* JSON */) WITHOUT ROWID",
    """CREATE TABLE fits (
        branch INTEGER NOT NULL, number INTEGER NOT NULL, name TEXT, status TEXT NOT NULL, phase TEXT,
        phase_reason TEXT, recipe TEXT NOT NULL REFERENCES documents, epochs_planned INTEGER NOT NULL,
        epochs_done INTEGER NOT NULL, first_epoch INTEGER NOT NULL, first_step INTEGER NOT NULL,
        first_samples INTEGER NOT NULL, started REAL NOT NULL, ended REAL, learning_rate REAL,
        plan TEXT NOT NULL REFERENCES documents, approximate TEXT NOT NULL /* JSON */,
        stop_training INTEGER NOT NULL, detail TEXT NOT NULL /* JSON */,
        PRIMARY KEY (branch, number)) WITHOUT ROWID""",
    """CREATE TABLE epochs (
        branch INTEGER NOT NULL, epoch INTEGER NOT NULL, fit INTEGER NOT NULL, label INTEGER NOT NULL,
        logs TEXT NOT NULL /* JSON */, learning_rate REAL, steps INTEGER NOT NULL, step INTEGER NOT NULL,
        samples INTEGER NOT NULL, seconds REAL NOT NULL, ended REAL NOT NULL,
        PRIMARY KEY (branch, epoch)) WITHOUT ROWID""",
    """CREATE TABLE events (
        id INTEGER PRIMARY KEY, time REAL NOT NULL, kind TEXT NOT NULL, message TEXT NOT NULL, fit INTEGER,
        epoch INTEGER, step INTEGER, data TEXT NOT NULL /* JSON */, session INTEGER NOT NULL)""",
    # fit_record: the row of its fit at that moment, to which a resume goes back.
    """CREATE TABLE checkpoints (
        id INTEGER PRIMARY KEY AUTOINCREMENT, branch INTEGER NOT NULL, fit INTEGER NOT NULL, kind TEXT NOT NULL,
        fits INTEGER NOT NULL, epoch INTEGER NOT NULL, step INTEGER NOT NULL, samples INTEGER NOT NULL,
        good INTEGER NOT NULL, created REAL NOT NULL, size_bytes INTEGER NOT NULL, pinned INTEGER NOT NULL,
        damaged INTEGER NOT NULL, manifest TEXT NOT NULL /* JSON */, state TEXT NOT NULL /* JSON */,
        fit_record TEXT /* JSON */)""",
    # Every file that keepfit made in objects/; only these are ever deleted. state: pending or kept.
    "CREATE TABLE files (name TEXT PRIMARY KEY, bytes INTEGER NOT NULL, state TEXT NOT NULL) WITHOUT ROWID",
)

MIGRATIONS: tuple[Sequence[str], ...] = (_FORMAT_1,)


def format_of(connection: sqlite3.Connection, path: Path, *, known: int = len(MIGRATIONS)) -> int:
    """Return the format of an open database, 0 for an empty one.

    Raises:
        NotARun: It is something other than a run.
        FormatTooNew: It was written by a newer keepfit.
    """
    try:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_NOTADB:
            raise
        raise not_a_run(path, "its run.sqlite is not an SQLite database") from error
    if not application and not version and not tables:
        return 0
    if application != APPLICATION_ID:
        raise not_a_run(path, "its run.sqlite was made by another program")
    if version > known:
        raise FormatTooNew(
            f"The run in {path.parent} was written by a newer keepfit: expected format {known} or older, "
            f"found {version}.\nNothing was changed. Install a newer keepfit (pip install --upgrade keepfit).",
            path=path.parent,
            format=version,
            known=known,
        )
    return int(version)


def migrate(
    connection: sqlite3.Connection, path: Path, *, migrations: Sequence[Sequence[str]] = MIGRATIONS
) -> tuple[int, int]:
    """Bring an open database to the newest format, in one transaction.

    Returns:
        The format before and after.

    Raises:
        NotARun, FormatTooNew: See `format_of`; nothing was changed.
    """
    before = format_of(connection, path, known=len(migrations))
    if before == len(migrations):
        return before, before
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statements in migrations[before:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return before, len(migrations)


def not_a_run(path: Path, reason: str) -> NotARun:
    """Return the error for a folder that holds something else; ``path`` is where its journal would be."""
    return NotARun(
        f"{path.parent} is not a run of keepfit: {reason}.\n"
        "Nothing was changed. Give a folder that is empty, that does not exist yet, or that holds a run.",
        path=path.parent,
        reason=reason,
    )
