"""keepfit verify."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from keepfit.cli import verify
from keepfit.cli.folder import read_folder


def needed_file(run, tensor):
    """Return the file that holds a tensor of the newest checkpoint."""
    return run / "objects" / read_folder(run).checkpoints[-1].manifest[tensor][0]


def change(run, statement):
    with closing(sqlite3.connect(run / "run.sqlite")) as connection, connection:
        connection.execute(statement)


def test_whole_run_passes_with_a_summary(keepfit, run):
    """A run without damage gives one line and status 0."""
    result = keepfit("verify", run)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{run}: 3 checkpoints, 6 tensors in 6 files (")
    assert result.stdout.endswith("2 fits, 3 epochs: all is well\n")


@pytest.mark.parametrize("tensor", ["model/kernel", "optimizer/iterations"])
def test_changed_byte_is_found(keepfit, run, tensor):
    """One flipped bit in an object is named with its file, checkpoint and tensor, and status 1."""
    path = needed_file(run, tensor)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    result = keepfit("verify", run)
    assert result.exit_code == 1
    assert result.stdout.startswith(f"damaged: objects/{path.name}: ")
    assert f"(checkpoint 3 needs it: {tensor})" in result.stdout
    assert result.stdout.endswith("1 damaged\n")


def test_missing_and_truncated_objects_are_found(keepfit, run):
    """An object that is gone or cut short is damage."""
    needed_file(run, "model/kernel").unlink()
    short = needed_file(run, "optimizer/iterations")
    short.write_bytes(short.read_bytes()[:-1])
    result = keepfit("verify", run)
    assert result.exit_code == 1
    assert "the file is missing" in result.stdout
    assert short.name in result.stdout
    assert "2 damaged" in result.stdout


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DELETE FROM epochs WHERE epoch = 1", "epoch 1: it is not in the journal, and 1 later epoch is"),
        ("DELETE FROM epochs WHERE epoch = 2", "fit 2: 1 epoch by its row, 0 in the journal"),
        ("DELETE FROM fits WHERE number = 1", "fit 1: it is not in the journal, and fit 2 is"),
        ("DELETE FROM fits WHERE number = 2", "checkpoint 3: its fit 2 is not in the journal"),
        ("DELETE FROM files", "the journal's list of files lacks it"),
        ("UPDATE checkpoints SET manifest = '{' WHERE id = 2", "run.sqlite: The journal"),
    ],
)
def test_rows_that_contradict_one_another_are_found(keepfit, run, statement, message):
    """A row that another one needs, or that makes no sense, is damage."""
    change(run, statement)
    result = keepfit("verify", run)
    assert result.exit_code == 1
    assert message in result.stdout


def test_damaged_journal_is_found(keepfit, run):
    """Overwritten pages of the journal are damage, for show an error without a traceback."""
    path = run / "run.sqlite"
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    result = keepfit("verify", run)
    assert result.exit_code == 1
    assert "damaged: run.sqlite: " in result.stdout
    shown = keepfit("show", run)
    assert shown.exit_code == 2
    assert "is damaged" in shown.stderr


def test_file_that_nobody_needs_is_a_notice(keepfit, run):
    """A stray file harms nothing: it is named, and the status stays 0."""
    (run / "objects" / "stray.safetensors").write_bytes(b"")
    result = keepfit("verify", run)
    assert result.exit_code == 0
    assert "notice: 1 file in objects that no checkpoint needs: stray.safetensors" in result.stdout


def test_live_writer_is_said_and_no_damage(keepfit, open_run):
    """While another process writes, what there is is checked, and that is said."""
    result = keepfit("verify", open_run)
    assert result.exit_code == 0
    assert "is writing here" in result.stdout


def test_damage_that_a_second_look_does_not_find_is_not_reported(run, monkeypatch):
    """What a writer removed between two reads is no damage."""
    path = needed_file(run, "model/kernel")
    kept = path.read_bytes()
    first = verify._verify

    def disturbed(directory):
        path.unlink(missing_ok=True)
        report = first(directory)
        path.write_bytes(kept)
        monkeypatch.setattr(verify, "_verify", first)
        return report

    monkeypatch.setattr(verify, "_verify", disturbed)
    assert verify.verify_folder(run).damages == ()
