"""Files that callbacks write go on over fits and processes."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import keras
import pytest
from tests.unit.callbacks.conftest import begin, bound, stored

from keepfit.callbacks import CallbackMemory, SavedMemories, drop_backup_and_restore

NOTHING = SavedMemories()
HEADER = "epoch,loss,val_loss"


def logger(path: Path, **options: Any) -> Any:
    """Return a new CSVLogger that knows a model."""
    return bound(keras.callbacks.CSVLogger(path, **options))


def rows(path: Path) -> list[str]:
    """Return the lines of a file."""
    return path.read_text().splitlines()


def fit(callback: Any, saved: SavedMemories, epochs: range, **options: Any) -> SavedMemories:
    """Let a callback see a fit of some epochs; return its memory at the end."""
    book, _ = begin(callback, saved, **options)
    for epoch in epochs:
        callback.on_epoch_end(epoch, {"loss": epoch / 2})
    callback.on_train_end()
    return stored(book)


@pytest.mark.parametrize("append", [False, True])
@pytest.mark.parametrize("same_object", [False, True])
def test_csv_of_two_fits_is_that_of_one(tmp_path, append, same_object):
    """Two fits write the file that one longer fit writes, whatever the object and its settings are."""
    whole, cut = tmp_path / "whole.csv", tmp_path / "cut.csv"
    fit(logger(whole), NOTHING, range(4))
    first = logger(cut, append=append)
    saved = fit(first, NOTHING, range(2))
    second = first if same_object else logger(cut, append=append)
    fit(second, saved, range(2, 4))
    assert rows(cut) == rows(whole)
    assert rows(cut)[0] == HEADER
    assert (second.append, second.append_header) == (append, True)


def test_csv_without_its_memory_is_overwritten(tmp_path):
    """The control: Keras alone begins the file again in every fit."""
    path = tmp_path / "log.csv"
    fit(logger(path), NOTHING, range(2))
    fit(logger(path), NOTHING, range(2, 4))
    assert rows(path) == [HEADER, "2,1.0,NA", "3,1.5,NA"]


def test_csv_is_cut_back_to_the_checkpoint(tmp_path):
    """Rows of epochs that are done again are not there twice, half a row is not there at all."""
    path = tmp_path / "log.csv"
    saved = fit(logger(path), NOTHING, range(2))
    with path.open("a") as file:
        file.write("2,9.9,NA\r\n3,9")  # what a killed process wrote behind its checkpoint
    fit(logger(path), saved, range(2, 4))
    assert rows(path) == [HEADER, "0,0.0,NA", "1,0.5,NA", "2,1.0,NA", "3,1.5,NA"]


@pytest.mark.parametrize("append", [False, True])
def test_csv_is_cut_back_to_nothing(tmp_path, append):
    """A checkpoint before the first row leaves no row, and one header."""
    path = tmp_path / "log.csv"
    book, _ = begin(killed := logger(path, append=append), NOTHING)
    saved = stored(book)
    killed.on_epoch_end(0, {"loss": 9.9})
    killed.csv_file.close()
    fit(logger(path, append=append), saved, range(2))
    assert rows(path) == [HEADER, "0,0.0,NA", "1,0.5,NA"]


def test_csv_keeps_what_a_user_appends_to(tmp_path):
    """With append=True rows from before the run stay, also when the first epoch is done again."""
    path = tmp_path / "log.csv"
    path.write_text(HEADER + "\r\n0,7.0,NA\r\n")
    book, _ = begin(killed := logger(path, append=True), NOTHING)
    saved = stored(book)
    killed.on_epoch_end(0, {"loss": 9.9})
    killed.csv_file.close()
    fit(logger(path, append=True), saved, range(1))
    assert rows(path) == [HEADER, "0,7.0,NA", "0,0.0,NA"]


def test_csv_keeps_its_columns_when_logs_come_in_another_shape(tmp_path):
    """Columns stay where they are when a later fit logs other metrics."""
    path = tmp_path / "log.csv"
    saved = fit(logger(path), NOTHING, range(1))
    later = logger(path)
    begin(later, saved)
    later.on_epoch_end(1, {"accuracy": 0.5, "loss": 0.25})
    later.on_train_end()
    assert rows(path) == [HEADER, "0,0.0,NA", "1,0.25,NA"]


def test_csv_uses_the_separator_of_the_callback(tmp_path):
    """Rows of a later fit are separated like those of the first."""
    path = tmp_path / "log.csv"
    saved = fit(logger(path, separator=";"), NOTHING, range(1))
    fit(logger(path, separator=";"), saved, range(1, 2))
    assert rows(path) == [HEADER.replace(",", ";"), "0;0.0;NA", "1;0.5;NA"]


def test_csv_that_is_missing_begins_anew(tmp_path):
    """A file that was deleted begins with a header."""
    path = tmp_path / "log.csv"
    saved = fit(logger(path), NOTHING, range(2))
    path.unlink()
    fit(logger(path), saved, range(2, 3))
    assert rows(path) == [HEADER, "2,1.0,NA"]


def test_csv_that_was_cut_by_someone_is_not_cut_further(tmp_path):
    """A file that lost rows keeps the others, and that is said."""
    path = tmp_path / "log.csv"
    saved = fit(logger(path), NOTHING, range(3))
    path.write_bytes(path.read_bytes()[:-5])
    callback = logger(path)
    _, said = begin(callback, saved)
    callback.on_epoch_end(3, {"loss": 1.5})
    callback.on_train_end()
    assert "not what was recorded" in said[0]
    assert rows(path) == [HEADER, "0,0.0,NA", "1,0.5,NA", "2,1.0", "3,1.5,NA"]


def test_csv_of_another_name_is_left_to_keras(tmp_path):
    """The length of one file says nothing about another: one that a script names anew is not cut by it."""
    saved = fit(logger(tmp_path / "one.csv"), NOTHING, range(3))
    other = tmp_path / "other.csv"
    other.write_text("precious\r\n" * 40)
    fit(logger(other, append=True), saved, range(3, 4))
    assert rows(other)[:40] == ["precious"] * 40
    assert len(rows(other)) == 41


def test_csv_that_moved_goes_on(tmp_path):
    """A run whose folder was moved finds its file by its content."""
    saved = fit(logger(tmp_path / "one.csv"), NOTHING, range(1))
    (tmp_path / "one.csv").rename(tmp_path / "two.csv")
    fit(logger(tmp_path / "two.csv"), saved, range(1, 2))
    assert rows(tmp_path / "two.csv") == [HEADER, "0,0.0,NA", "1,0.5,NA"]


def test_csv_starts_fresh_when_asked(tmp_path):
    """fresh= gives a file that begins anew, with its header."""
    path = tmp_path / "log.csv"
    callback = logger(path)
    saved = fit(callback, NOTHING, range(1))
    saved = fit(callback, saved, range(1, 2))
    fit(callback, saved, range(2, 3), fresh=[keras.callbacks.CSVLogger])
    assert rows(path) == [HEADER, "2,1.0,NA"]


def test_csv_settings_come_back_after_a_fit_that_failed_to_begin(tmp_path):
    """A callback whose fit failed in another callback's on_train_begin has the user's settings in the next."""
    path = tmp_path / "log.csv"
    callback = logger(path)
    saved = fit(callback, NOTHING, range(1))
    CallbackMemory([callback]).before_begin(saved)
    saved = fit(callback, saved, range(1, 2))
    assert callback.append is False
    assert len(rows(path)) == 3


def test_csv_goes_on_in_a_new_phase(tmp_path):
    """A file is about the run, not about a task."""
    path = tmp_path / "log.csv"
    saved = fit(logger(path), NOTHING, range(1))
    fit(logger(path), saved, range(1, 2), mode="none")
    assert rows(path) == [HEADER, "0,0.0,NA", "1,0.5,NA"]


def test_csv_memory_leaves_files_elsewhere_alone(tmp_path):
    """A name that is not in this file system is Keras's own business."""
    callback = keras.callbacks.CSVLogger("gs://bucket/log.csv")
    (entry,), _ = CallbackMemory([callback]).take()
    assert entry["file"]["length"] == 0
    with contextlib.chdir(tmp_path):
        assert CallbackMemory([callback]).before_begin(SavedMemories([entry])) == []


def test_backup_and_restore_is_dropped_and_told_of(tmp_path):
    """BackupAndRestore does nothing in a run, the others stay in their order."""
    others = [keras.callbacks.TerminateOnNaN(), keras.callbacks.EarlyStopping()]
    kept, said = drop_backup_and_restore([others[0], keras.callbacks.BackupAndRestore(tmp_path / "b"), others[1]])
    assert kept == others
    assert "BackupAndRestore does nothing here" in said
    assert drop_backup_and_restore(others) == (others, None)


def test_a_callback_list_is_opened():
    """Callbacks in Keras's own list are callbacks like others."""
    stopping = keras.callbacks.EarlyStopping()
    kept, said = drop_backup_and_restore([keras.callbacks.CallbackList([stopping])])
    assert (kept, said) == ([stopping], None)
