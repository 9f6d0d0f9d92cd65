"""The `keepfit` command as a whole."""

from __future__ import annotations

import importlib.metadata
import sqlite3
import subprocess
import sys
import types

import pytest

import keepfit as package
from keepfit.cli import main

HEAVY = {"keras", "jax", "tensorflow", "torch", "pandas"}


def modules_after(*arguments):
    """Return the modules that a new process has imported after a command."""
    code = (
        "import sys; from keepfit.cli import command; "
        f"command({[str(argument) for argument in arguments]!r}, standalone_mode=False); "
        "print('MODULES', *sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(result.stdout.rpartition("MODULES")[2].split())


@pytest.mark.parametrize("subcommand", ["show", "plot"])
def test_reading_a_run_imports_neither_keras_nor_a_backend(run, tmp_path, monkeypatch, subcommand):
    """A run folder is shown and drawn without Keras or a backend."""
    monkeypatch.chdir(tmp_path)
    modules = modules_after(subcommand, run)
    assert not HEAVY & modules
    assert ("matplotlib" in modules) is (subcommand == "plot")


def test_verify_imports_neither_keras_nor_a_backend(run):
    """A run folder is checked without Keras or a backend."""
    code = (
        "import sys; from pathlib import Path; from keepfit.cli.verify import verify_folder; "
        f"assert not verify_folder(Path({str(run)!r})).damages; print(*sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not (HEAVY | {"matplotlib", "rich"}) & set(result.stdout.split())


def test_help_imports_almost_nothing():
    """The help needs no library beyond the one that reads the command line."""
    code = (
        "import sys; from keepfit.cli import command; command(['--help'], standalone_mode=False); "
        "print('MODULES', *sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    help_text, _, modules = result.stdout.rpartition("MODULES")
    assert not (HEAVY | {"numpy", "rich", "matplotlib", "sqlite3"}) & set(modules.split())
    for name in ("show", "verify", "plot", "demo"):
        assert f"\n  {name} " in help_text


def test_version_is_that_of_the_package(keepfit):
    """--version prints the installed version."""
    assert keepfit("--version").stdout == f"keepfit {importlib.metadata.version('keepfit')}\n"


@pytest.mark.parametrize("subcommand", ["show", "verify", "plot"])
def test_folder_that_is_no_run_is_refused(keepfit, tmp_path, subcommand):
    """A folder with something else in it gives a message on stderr and status 2."""
    result = keepfit(subcommand, tmp_path)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "is not a run of keepfit" in result.stderr


@pytest.mark.parametrize("subcommand", ["show", "verify", "plot"])
def test_missing_folder_is_refused(keepfit, tmp_path, subcommand):
    """A folder that is not there gives a message on stderr and status 2."""
    result = keepfit(subcommand, tmp_path / "nothing")
    assert result.exit_code == 2
    assert "does not exist" in result.stderr


@pytest.mark.parametrize("subcommand", ["show", "verify", "plot"])
def test_newer_format_is_refused(keepfit, run, subcommand):
    """A run of a newer keepfit gives a message on stderr and status 2, and verify does not call it damaged."""
    with sqlite3.connect(run / "run.sqlite") as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()
    result = keepfit(subcommand, run)
    assert result.exit_code == 2
    assert "newer keepfit" in result.stderr


def test_main_ends_with_the_status_of_the_command(monkeypatch, capsys, tmp_path):
    """The console script gives no traceback, and the status tells what happened."""
    monkeypatch.setattr(sys, "argv", ["keepfit", "show", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("keepfit: ")


def test_command_runs_as_a_module(run):
    """``python -m keepfit`` is the command, in the Python that has it."""
    arguments = [sys.executable, "-m", "keepfit", "show", str(run)]
    result = subprocess.run(arguments, check=True, capture_output=True, text=True)
    assert "Checkpoints" in result.stdout


def test_demo_is_handed_its_folder(keepfit, monkeypatch, tmp_path):
    """The demo gets its arguments, and its status is the command's."""
    calls = []
    stand_in = types.ModuleType("keepfit.demo")
    stand_in.run_demo = lambda directory: calls.append(directory) or 3
    monkeypatch.setitem(sys.modules, "keepfit.demo", stand_in)
    monkeypatch.setattr(package, "demo", stand_in, raising=False)
    assert keepfit("demo", "--directory", tmp_path).exit_code == 3
    assert keepfit("demo").exit_code == 3
    assert calls == [tmp_path, None]
