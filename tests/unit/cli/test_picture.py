"""keepfit plot."""

from __future__ import annotations

from keepfit import extras


def test_picture_lies_where_it_was_asked_for(keepfit, run, tmp_path):
    """The picture is written to -o, and its place is printed."""
    path = tmp_path / "picture.svg"
    result = keepfit("plot", run, "-o", path, "--over", "steps")
    assert result.exit_code == 0
    assert result.stdout == f"{path}\n"
    assert "<svg" in path.read_text()


def test_picture_is_named_after_its_run(keepfit, run, tmp_path, monkeypatch):
    """Without -o the picture lies in the current folder, never in the run's own."""
    monkeypatch.chdir(tmp_path)
    assert keepfit("plot", run).stdout == "digits-history.png\n"
    assert (tmp_path / "digits-history.png").read_bytes().startswith(b"\x89PNG")


def test_unwritable_place_is_an_error(keepfit, run, tmp_path):
    """A place that cannot be written gives a message and status 2."""
    result = keepfit("plot", run, "-o", tmp_path / "nothing" / "picture.png")
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr


def test_missing_matplotlib_is_an_error_with_its_install_line(keepfit, run, monkeypatch):
    """Without matplotlib the message has the line that installs it, and the status is 2."""

    def missing(module):
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr(extras.importlib, "import_module", missing)
    result = keepfit("plot", run)
    assert result.exit_code == 2
    assert 'pip install "keepfit[plot]"' in result.stderr
