"""Folders that are no run, another's, in use, damaged or full: said by `Run` before anything is there."""

from __future__ import annotations

import copy
import errno
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest

import keepfit
from keepfit.errors import (
    CannotAttach,
    DamagedObject,
    FormatTooNew,
    InvalidArgument,
    KeepfitError,
    KeepfitWarning,
    NotARun,
    NotCompiled,
    OtherModel,
    RunFolderError,
    RunLocked,
    RunReadOnly,
    StoreFailed,
)
from keepfit.store import Disk
from tests.behaviour.processes import SHORT, attached, process
from tests.bits import differing, state_bits
from tests.models import make
from tests.unchanged import files_of


def a_run(directory: Path, fits: int = 2) -> Path:
    """Make a run with a few fits, each with an end of its own, and close it."""
    with process(directory, checkpoint_share="each") as (model, x, y):
        for _ in range(fits):
            model.fit(x, y, **SHORT)
    return directory


def foreign_database(directory: Path) -> None:
    """Put another program's database where the journal would be."""
    with sqlite3.connect(directory / "run.sqlite") as connection:
        connection.execute("CREATE TABLE photos (name)")
    connection.close()


def newer_run(directory: Path) -> None:
    """Make a run of a later format."""
    a_run(directory)
    with sqlite3.connect(directory / "run.sqlite") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


def lost_journal(directory: Path) -> None:
    """Make a run whose journal is gone."""
    a_run(directory)
    (directory / "run.sqlite").unlink()


FOLDERS: dict[str, tuple[Callable[[Path], Any], type[KeepfitError], str]] = {
    "other things": (lambda path: (path / "photo.jpg").touch(), NotARun, "it holds photo.jpg"),
    "other database": (foreign_database, NotARun, "made by another program"),
    "no database": (lambda path: (path / "run.sqlite").write_text("x" * 200), NotARun, "not an SQLite database"),
    "folder for a journal": (lambda path: (path / "run.sqlite").mkdir(), NotARun, "is a folder"),
    "journal lost": (lost_journal, NotARun, r"their journal \(run\.sqlite\) is missing"),
    "newer format": (newer_run, FormatTooNew, "expected format 1 or older, found 99"),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_folder_that_is_no_run_is_refused_and_left_as_it_is(kind: str, tmp_path: Path) -> None:
    """The error says what lies there; no file is made, and the model has its own fit."""
    directory = tmp_path / "folder"
    directory.mkdir()
    fill, error, words = FOLDERS[kind]
    fill(directory)
    before = files_of(directory)
    model, _, _ = make("plain_dense")
    weights = state_bits(model)
    for open_it in (keepfit.Run, keepfit.attach):
        with pytest.raises(error, match=words) as caught:
            open_it(model, directory)
        assert "Nothing was changed." in str(caught.value)
    assert files_of(directory) == before
    assert differing(weights, state_bits(model)) == []
    assert "fit" not in vars(model)


def test_file_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    """Also where it is a parent of the folder."""
    (tmp_path / "notes.txt").write_text("mine")
    model, _, _ = make("plain_dense")
    with pytest.raises(NotARun, match="it is a file"):
        keepfit.Run(model, tmp_path / "notes.txt")
    with pytest.raises(StoreFailed, match=r"(?s)could not be opened.*Nothing was trained or recorded"):
        keepfit.Run(model, tmp_path / "notes.txt" / "run")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_model_with_other_variables_is_refused_by_their_names(tmp_path: Path) -> None:
    """The error names what differs; the run and the model stay as they are."""
    directory = a_run(tmp_path / "run")
    before = files_of(directory)
    other = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5, name="wide"), keras.layers.Dense(1)])
    other.compile("adam", "mse")
    weights = state_bits(other)
    with pytest.raises(OtherModel, match=r"(?s)belongs to another model: .* variables differ.*recorded.*now") as caught:
        keepfit.Run(other, directory)
    assert any("kernel" in name for name in caught.value.variables)
    assert "float32 of shape (8, 1), now float32 of shape (5, 1)" in str(caught.value)
    assert "Nothing was changed." in str(caught.value)
    now = state_bits(other)
    assert [name for name in weights if weights[name] != now[name]] == []
    assert files_of(directory).keys() == before.keys()
    with process(directory) as (model, x, y):  # and its own model goes on
        assert [model.fit(x, y, **SHORT).epoch for _ in range(3)] == [[0, 1], [2, 3], [4, 5]]


def test_run_that_another_process_has_open_is_refused_with_its_number(tmp_path: Path) -> None:
    """A second writer is told who writes; when that one is gone, the run opens."""
    directory = tmp_path / "run"
    code = (
        "import sys; import keepfit; from tests.behaviour.processes import SHORT, attached; from pathlib import Path\n"
        "model, x, y = attached(Path(sys.argv[1])); model.fit(x, y, **SHORT); print('ready', flush=True)\n"
        "sys.stdin.read()"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (Path(__file__).parents[2], *sys.path)))}
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    with child:
        assert child.stdout is not None
        for line in child.stdout:
            if line == "ready\n":
                break
        with pytest.raises(RunLocked, match=f"process {child.pid}") as caught:
            keepfit.Run(make("plain_dense")[0], directory)
        assert caught.value.pid == child.pid
        child.kill()
    with process(directory) as (model, x, y):
        assert model.fit(x, y, **SHORT).epoch == [0, 1]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="about the rights of POSIX")
def test_folder_without_the_right_to_write_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that cannot be written says so, whoever runs the test; reading it still works."""
    directory = a_run(tmp_path / "run")
    if os.geteuid() == 0:  # the superuser may write everywhere, so the file system is asked to refuse

        def refuse(self: Disk, *_given: Any, **_named: Any) -> Any:
            raise PermissionError(errno.EACCES, "Permission denied")

        for name in ("mkdir", "sync_directory"):
            monkeypatch.setattr(Disk, name, refuse)
    else:
        directory.chmod(0o555)
    model, _, _ = make("plain_dense")
    try:
        with pytest.raises(RunReadOnly, match=r"(?s)cannot be written.*Nothing was changed"):
            keepfit.Run(model, directory)
        assert len(keepfit.History.read(directory)) == 2
    finally:
        directory.chmod(0o755)


# Damage


def objects_of(directory: Path) -> list[Path]:
    """Return the stored objects, oldest first."""
    return sorted((directory / "objects").iterdir(), key=lambda path: path.stat().st_mtime_ns)


@pytest.mark.parametrize("missing", [False, True])
def test_damaged_newest_checkpoint_is_said_and_the_one_before_is_used(missing: bool, tmp_path: Path) -> None:
    """The run goes on from the last whole state, and trains again what was lost."""
    whole = a_run(tmp_path / "whole", fits=3)
    directory = a_run(tmp_path / "run", fits=2)
    known = set(objects_of(directory))
    with process(directory, checkpoint_share="each") as (model, x, y):
        for _ in range(3):
            model.fit(x, y, **SHORT)
    # On a slow machine a checkpoint inside fit 3 is there, too.
    for newest in set(objects_of(directory)) - known:
        if missing:
            newest.unlink()
        else:
            data = bytearray(newest.read_bytes())
            data[len(data) // 2] ^= 1
            newest.write_bytes(bytes(data))
    model, x, y = make("plain_dense")
    with pytest.warns(KeepfitWarning, match=r"Checkpoint \d+ \(fit 3, .*\) is damaged and is passed over"):
        run = keepfit.Run(model, directory)
    assert list(run.recorder.fits) == [1, 2]
    assert any(event.kind == "damage" for event in run.recorder.events)
    for _ in range(3):
        run.fit(x, y, **SHORT)
    found = state_bits(model)
    run.close()
    with process(whole) as (control, x, y):
        for _ in range(3):
            control.fit(x, y, **SHORT)
        assert differing(state_bits(control), found) == []


def test_run_without_any_readable_state_is_refused_and_kept(tmp_path: Path) -> None:
    """The error names the damaged files, and nothing is thrown away that a copy could bring back."""
    directory = a_run(tmp_path / "run")
    for path in objects_of(directory):
        path.write_bytes(b"rubbish")
    before = files_of(directory)
    with pytest.raises(DamagedObject, match=r"(?s)No checkpoint of the run.*safetensors.*Nothing was changed"):
        keepfit.Run(make("plain_dense")[0], directory)
    assert files_of(directory) == before
    assert len(keepfit.History.read(directory)) == 2


# Models


class OwnFit(keras.Model):
    """A model with a fit of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = keras.layers.Dense(1)

    def call(self, inputs: Any) -> Any:
        """Apply the layer."""
        return self.layer(inputs)

    def fit(self, *_given: Any, **_named: Any) -> str:
        """Do something else."""
        return "own"


def test_model_whose_class_overrides_fit_is_not_attached(tmp_path: Path) -> None:
    """attach() would take the place of its fit; a Run beside it works."""
    _, x, y = make("plain_dense")
    model = OwnFit()
    model.compile("sgd", "mse")
    with pytest.raises(CannotAttach, match=r"OwnFit overrides fit\(\).*Nothing was changed.*keepfit\.Run"):
        keepfit.attach(model, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert model.fit() == "own"
    with keepfit.Run(model, tmp_path / "run") as run:
        assert run.fit(x, y, **SHORT).epoch == [0, 1]


def test_model_that_is_not_compiled_is_refused(tmp_path: Path) -> None:
    """Run, attach and what else is no model say so; no folder is made."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    for open_it in (keepfit.Run, keepfit.attach):
        with pytest.raises(NotCompiled, match=r"not compiled.*Nothing was changed.*model\.compile"):
            open_it(model, tmp_path / "run")
        with pytest.raises(InvalidArgument, match=r"keras\.Model, received str"):
            open_it("model", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_copies_of_an_attached_model_are_models_of_their_own(tmp_path: Path) -> None:
    """A deep copy, a clone and a saved model train as Keras does, and the run knows nothing of it."""
    model, x, y = attached(tmp_path / "run")
    model.fit(x, y, **SHORT)
    bits = state_bits(model)
    model.save(tmp_path / "model.keras")
    clone = keras.models.clone_model(model)
    clone.compile("sgd", "mse")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for copied in (copy.deepcopy(model), clone, loaded):
        assert copied is not model
        assert copied.fit(x, y, **SHORT).epoch == [0, 1]
    assert (model.run.position.fit, differing(bits, state_bits(model))) == (1, [])
    assert model.fit(x, y, **SHORT).epoch == [2, 3]


def test_errors_about_folders_are_errors_of_the_system_too() -> None:
    """Whoever catches OSError around opening a file catches these."""
    for kind in (NotARun, FormatTooNew, OtherModel, RunLocked, RunReadOnly, StoreFailed):
        assert issubclass(kind, RunFolderError)
        assert issubclass(kind, OSError)
