"""Reading a journal, also while its writer lives."""

from __future__ import annotations

import json
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keepfit.errors import RunFolderError
from keepfit.journal import rows
from keepfit.journal.schema import format_of, not_a_run

if TYPE_CHECKING:
    from types import TracebackType

    from keepfit.journal.records import CheckpointRecord, EpochRecord, EventRecord, FitRecord, SessionRecord

FILE_NAME = "run.sqlite"
_HEADER = 20  # bytes; number 18 tells a write-ahead log (2) from a rollback journal (1)
_FITS = """SELECT branch, number, name, status, phase, phase_reason, recipes.json AS recipe, epochs_planned,
    epochs_done, first_epoch, first_step, first_samples, started, ended, learning_rate, plans.json AS plan,
    approximate, stop_training, detail
    FROM fits JOIN documents AS recipes ON recipes.hash = fits.recipe JOIN documents AS plans ON plans.hash = fits.plan
    """


def check_journal(path: Path) -> None:
    """Look into a journal without leaving a trace, before anything is opened for writing.

    Raises:
        NotARun, FormatTooNew: What lies there is something else.
    """
    with suppress(sqlite3.Error):  # who opens it for writing says what is damaged
        _opened(path)[0].close()


def _opened(path: Path) -> tuple[sqlite3.Connection, int]:
    """Return a journal opened for reading, and its format."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?{_mode(path)}", uri=True, timeout=10)
    try:
        return connection, format_of(connection, path)
    except BaseException:
        connection.close()
        raise


class Reader:
    """The rows of a run; opened read-only, it changes nothing and waits for nobody.

    Args:
        connection: An open database of the newest format; see `open`.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        connection.row_factory = sqlite3.Row
        self._connection = connection

    @classmethod
    def open(cls, directory: Path | str) -> Reader:
        """Open the journal of a run.

        Raises:
            NotARun: The folder holds no run.
            FormatTooNew: It was written by a newer keepfit.
            RunFolderError: It cannot be read.
        """
        path = Path(directory) / FILE_NAME
        if not path.is_file():
            raise not_a_run(path, "it holds no run.sqlite" if path.parent.is_dir() else "there is no such folder")
        try:
            connection, found = _opened(path)
            if found == 0:
                connection.close()
                raise not_a_run(path, "its run.sqlite is empty")
        except sqlite3.Error as error:
            raise RunFolderError(
                f"The journal of {path.parent} cannot be read: {error}. Nothing was changed.", path=path.parent
            ) from error
        return cls(connection)

    def meta(self) -> dict[str, Any]:
        """Return the facts about the whole run."""
        return {row["key"]: json.loads(row["value"]) for row in self._rows("SELECT key, value FROM run")}

    def sessions(self) -> list[SessionRecord]:
        """Return the processes that had the run open, oldest first."""
        return [rows.session_record(row) for row in self._rows("SELECT * FROM sessions ORDER BY id")]

    def fits(self, branch: int | None = 0) -> list[FitRecord]:
        """Return fits by branch and number; of all branches with None."""
        return [
            rows.fit_record(row)
            for row in self._rows(
                _FITS + "WHERE :branch IS NULL OR branch = :branch ORDER BY branch, number", branch=branch
            )
        ]

    def epochs(self, branch: int | None = 0, fit: int | None = None) -> list[EpochRecord]:
        """Return finished epochs, oldest first; of all branches with None, of one fit if it is given."""
        return [
            rows.epoch_record(row)
            for row in self._rows(
                "SELECT * FROM epochs WHERE (:branch IS NULL OR branch = :branch) AND (:fit IS NULL OR fit = :fit) "
                "ORDER BY branch, epoch",
                branch=branch,
                fit=fit,
            )
        ]

    def events(self, kind: str | None = None, last: int | None = None) -> list[EventRecord]:
        """Return events, oldest first: of one kind, and only the last so many, if these are given."""
        found = self._rows(
            "SELECT * FROM events WHERE :kind IS NULL OR kind = :kind ORDER BY id DESC LIMIT :last",
            kind=kind,
            last=-1 if last is None else last,
        )
        return [rows.event_record(row) for row in reversed(found)]

    def checkpoints(self, branch: int | None = 0) -> list[CheckpointRecord]:
        """Return kept checkpoints, oldest first, damaged ones included; of all branches with None."""
        return [
            rows.checkpoint_record(row)
            for row in self._rows(
                "SELECT * FROM checkpoints WHERE :branch IS NULL OR branch = :branch ORDER BY id", branch=branch
            )
        ]

    def fit_at(self, checkpoint_id: int) -> FitRecord | None:
        """Return the record of a checkpoint's fit as it was at that moment."""
        found = self._rows("SELECT fit_record FROM checkpoints WHERE id = :id", id=checkpoint_id)
        return rows.fit_from_text(found[0][0]) if found and found[0][0] else None

    def files(self) -> dict[str, int]:
        """Return name -> bytes of every file that keepfit made in ``objects``."""
        return {row["name"]: row["bytes"] for row in self._rows("SELECT name, bytes FROM files ORDER BY name")}

    def last_checkpoint_id(self) -> int:
        """Return the highest number a checkpoint ever had, 0 before the first."""
        found = self._rows("SELECT seq FROM sqlite_sequence WHERE name = 'checkpoints'")
        return int(found[0][0]) if found else 0

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _rows(self, statement: str, **values: Any) -> list[sqlite3.Row]:
        return self._connection.execute(statement, values).fetchall()


def _mode(path: Path) -> str:
    """Return how to open a database without leaving anything beside it.

    Opened plainly, one that no writer has open gets a log and an index from
    its reader, which then stay there, and cannot be opened at all in a folder
    that is read-only. Without a log it is whole in its one file.
    """
    with path.open("rb") as file:
        header = file.read(_HEADER)
    logged = len(header) == _HEADER and header[18] == 2
    at_rest = logged and not path.with_name(path.name + "-wal").exists()
    return "mode=ro&immutable=1" if at_rest else "mode=ro"
