from __future__ import annotations

import sqlite3
from dataclasses import replace
from math import inf, isnan, nan

import numpy as np
import pytest

from keepfit.clock import Position
from keepfit.journal import FILE_NAME, CheckpointRecord, EpochRecord, EventRecord, FitRecord, Reader

FIT = FitRecord(
    number=3,
    name="head",
    status="stopped",
    phase="new",
    phase_reason="the loss changed",
    recipe={"epochs": 5, "optimizer": {"name": "adam"}},
    epochs_planned=5,
    epochs_done=2,
    first_epoch=4,
    first_step=40,
    first_samples=1280,
    started=1.25,
    ended=2.5,
    learning_rate=0.1 + 0.2,
    plan={"plan": "fused", "backend": "jax"},
    approximate=["replayed"],
    stop_training=True,
    detail={"x": [1, None]},
)
EPOCH = EpochRecord(
    fit=3, epoch=4, label=4, logs={"loss": 0.1 + 0.2}, learning_rate=1e-3, steps=10, step=50, samples=1600,
    seconds=0.5, ended=9.75,
)  # fmt: skip
CHECKPOINT = CheckpointRecord(
    id=7,
    fit=3,
    kind="inside",
    position=Position(fit=2, epoch=5, step=50, samples=1600),
    good=False,
    created=4.5,
    size_bytes=12,
    manifest={"model/w": ["a.safetensors", "tensor", "ab", "float32", [3], 12]},
)


def test_writer_gives_every_row_back_as_it_was(writer):
    """Fits, epochs, events, checkpoints, sessions, files and facts come back equal."""
    event = EventRecord(time=1.5, kind="notice", message="hello", fit=3, epoch=5, step=50, data={"a": 1}, session=1)
    with writer.transaction(durable=True):
        writer.set_meta("seed", 42)
        session = writer.begin_session(pid=12, host="here", started=1.0)
        writer.put_fit(FIT)
        writer.put_epoch(EPOCH)
        writer.put_event(event)
        writer.add_checkpoint(CHECKPOINT, state='{"a":1}', fit_record=FIT)
        writer.add_pending({"a.safetensors": 12, "b.safetensors": 1})
        writer.mark_kept({"a.safetensors": 12})
        writer.forget(["b.safetensors"])
        writer.end_session(session, ended=3.0, how="closed")
    reader = writer.reader
    assert reader.meta() == {"seed": 42}
    assert reader.fits() == [FIT]
    assert reader.epochs() == [EPOCH]
    assert reader.events() == [event]
    assert reader.checkpoints() == [replace(CHECKPOINT, state={"a": 1})]
    assert reader.fit_at(7) == FIT
    assert reader.files() == {"a.safetensors": 12}
    assert [(item.pid, item.how, item.ended) for item in reader.sessions()] == [(12, "closed", 3.0)]
    assert reader.last_checkpoint_id() == 7


def test_writer_keeps_logs_that_are_not_finite_and_numbers_of_numpy(writer):
    """NaN, infinity and NumPy's numbers in logs come back as Python's, bit for bit."""
    logs = {"loss": nan, "max": inf, "least": -inf, "tiny": 5e-324, "single": np.float32(0.1)}
    with writer.transaction(durable=False):
        writer.put_epoch(replace(EPOCH, logs=logs))
    found = writer.reader.epochs()[0].logs
    assert isnan(found.pop("loss"))
    assert found == {"max": inf, "least": -inf, "tiny": 5e-324, "single": float(np.float32(0.1))}


def test_writer_stores_equal_recipes_once(writer):
    """A thousand equal fits share one recipe and one plan."""
    with writer.transaction(durable=False):
        for number in range(1, 1001):
            writer.put_fit(replace(FIT, number=number, recipe={"text": "x" * 1000}, plan={}))
    count = writer.reader._connection.execute("SELECT count(*) FROM documents").fetchone()[0]
    assert count == 2
    assert writer.reader.fits()[999].recipe == {"text": "x" * 1000}


def test_put_epoch_replaces_what_was_recorded_from_its_index_on(writer):
    """An epoch that is done again takes the place of the old one and of those after it."""
    with writer.transaction(durable=False):
        for epoch in range(4):
            writer.put_epoch(replace(EPOCH, epoch=epoch))
        writer.put_epoch(replace(EPOCH, epoch=1, label=100))
    assert [(item.epoch, item.label) for item in writer.reader.epochs()] == [(0, 4), (1, 100)]


def test_close_branch_moves_later_fits_with_all_that_is_theirs(writer):
    """Fits, epochs and checkpoints after a fit leave the current branch and stay in the journal."""
    with writer.transaction(durable=False):
        for number in (1, 2, 3):
            writer.put_fit(replace(FIT, number=number))
            writer.put_epoch(replace(EPOCH, fit=number, epoch=number))
            writer.add_checkpoint(replace(CHECKPOINT, id=number, fit=number), state="{}", fit_record=None)
        writer.close_branch(after=1, number=5)
    reader = writer.reader
    assert [item.number for item in reader.fits()] == [1]
    assert [item.number for item in reader.fits(branch=5)] == [2, 3]
    assert [item.fit for item in reader.epochs(branch=5)] == [2, 3]
    assert [item.branch for item in reader.checkpoints(branch=None)] == [0, 5, 5]


def test_cut_removes_later_fits_and_epochs_of_the_current_branch_only(writer):
    """What lies beyond a checkpoint goes; closed branches stay."""
    with writer.transaction(durable=False):
        writer.put_fit(replace(FIT, number=2))
        writer.close_branch(after=1, number=1)
        for number in (1, 2):
            writer.put_fit(replace(FIT, number=number))
            writer.put_epoch(replace(EPOCH, fit=1, epoch=number))
        writer.cut(fit=1, epoch=2)
    assert [(item.branch, item.number) for item in writer.reader.fits(branch=None)] == [(0, 1), (1, 2)]
    assert [item.epoch for item in writer.reader.epochs()] == [1]


def test_transaction_makes_all_changes_or_none(writer):
    """An error inside a transaction undoes all of it, shared recipes included, and the next one works."""

    def fail():
        with writer.transaction(durable=True):
            writer.put_fit(FIT)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert writer.reader.fits() == []
    with writer.transaction(durable=True):
        writer.put_fit(FIT)
    assert writer.reader.fits() == [FIT]


def test_transaction_asks_sqlite_for_the_durability_it_promises(writer):
    """A durable transaction syncs at its commit, a quick one does not."""
    levels = []
    for durable in (False, True):
        with writer.transaction(durable=durable):
            levels.append(writer.reader._connection.execute("PRAGMA synchronous").fetchone()[0])
    assert levels == [1, 2]  # NORMAL, FULL


def test_writer_uses_a_rollback_journal_where_a_log_is_unsafe(tmp_path, monkeypatch):
    """On a shared file system there is no write-ahead log, and commits sync the folder too."""
    monkeypatch.setattr("keepfit.journal.writer.wal_is_safe", lambda path: False)
    from keepfit.journal import Writer

    writer = Writer.open(tmp_path)
    connection = writer.reader._connection
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "delete"
    with writer.transaction(durable=True):
        assert connection.execute("PRAGMA synchronous").fetchone()[0] == 3  # EXTRA
        writer.put_fit(FIT)
    with Reader.open(tmp_path) as reader:
        assert reader.fits() == [FIT]
    writer.close()


def test_writer_turns_a_rollback_journal_into_a_log_where_it_can(tmp_path, monkeypatch):
    """A run that was copied from a shared file system uses the log again."""
    from keepfit.journal import Writer

    monkeypatch.setattr("keepfit.journal.writer.wal_is_safe", lambda path: False)
    Writer.open(tmp_path).close()
    monkeypatch.undo()
    writer = Writer.open(tmp_path)
    assert writer.reader._connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    writer.close()


def test_journal_is_plain_sqlite(tmp_path, writer):
    """Ordinary tools read a run: recipes and logs are JSON in plain tables."""
    with writer.transaction(durable=True):
        writer.put_fit(FIT)
        writer.put_epoch(EPOCH)
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    query = "SELECT json_extract(json, '$.epochs') FROM fits JOIN documents ON hash = recipe"
    assert connection.execute(query).fetchall() == [(5,)]
    assert connection.execute("SELECT json_extract(logs, '$.loss') FROM epochs").fetchall() == [(0.1 + 0.2,)]
    connection.close()
