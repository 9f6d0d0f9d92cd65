from __future__ import annotations

import sqlite3

import pytest

from keepfit.errors import FormatTooNew, NotARun
from keepfit.journal import FILE_NAME, FitRecord, Reader, Writer
from keepfit.journal.schema import MIGRATIONS, migrate


def connect(path):
    return sqlite3.connect(path, isolation_level=None)


def test_migrate_brings_an_older_journal_forward_with_its_rows(tmp_path, writer):
    """A journal of an earlier format gets what later ones added, and keeps its rows."""
    with writer.transaction(durable=False):
        writer.put_fit(FitRecord(number=1))
    connection = connect(tmp_path / FILE_NAME)
    later = (*MIGRATIONS, ["ALTER TABLE fits ADD COLUMN mood TEXT NOT NULL DEFAULT 'calm'"])
    assert migrate(connection, tmp_path / FILE_NAME, migrations=later) == (len(MIGRATIONS), len(later))
    assert connection.execute("SELECT number, mood FROM fits").fetchall() == [(1, "calm")]
    connection.close()


def test_migrate_changes_nothing_when_a_step_fails(tmp_path, writer):
    """A migration that fails half-way leaves the journal as it was."""
    connection = connect(tmp_path / FILE_NAME)
    later = (*MIGRATIONS, ["CREATE TABLE extra (a)", "NONSENSE"])
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, tmp_path / FILE_NAME, migrations=later)
    assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'extra'").fetchone() == (0,)
    assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    connection.close()


@pytest.mark.parametrize("opener", [Writer.open, Reader.open])
def test_a_journal_of_a_newer_format_is_refused(tmp_path, writer, opener):
    """A run written by a newer keepfit is refused by name, and left as it is."""
    writer.close()
    connection = connect(tmp_path / FILE_NAME)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = (tmp_path / FILE_NAME).read_bytes()
    with pytest.raises(FormatTooNew, match="found 99") as caught:
        opener(tmp_path)
    assert caught.value.format == 99
    assert (tmp_path / FILE_NAME).read_bytes() == before


@pytest.mark.parametrize("opener", [Writer.open, Reader.open])
def test_a_database_of_another_program_is_refused(tmp_path, opener):
    """Somebody else's database is not taken for a run, nor changed."""
    connection = connect(tmp_path / FILE_NAME)
    connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    before = (tmp_path / FILE_NAME).read_bytes()
    with pytest.raises(NotARun, match="another program"):
        opener(tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes() == before


@pytest.mark.parametrize("opener", [Writer.open, Reader.open])
def test_a_file_that_is_no_database_is_refused(tmp_path, opener):
    """A text under the journal's name is not taken for a run, nor changed."""
    (tmp_path / FILE_NAME).write_text("dear diary, " * 100)
    with pytest.raises(NotARun, match="not an SQLite database"):
        opener(tmp_path)
    assert (tmp_path / FILE_NAME).read_text().startswith("dear diary")
