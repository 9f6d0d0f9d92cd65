"""What a person sees where there is no bar, and what is chosen where."""

from __future__ import annotations

import io
import sys
import types
from typing import Any

import pytest

from keepfit.callbacks import Progress, make_progress
from keepfit.callbacks.bar import NotebookBar, TerminalBar
from keepfit.callbacks.progress import PlainProgress, shown

FACTS: dict[str, Any] = {"fit": 2, "name": "head", "epochs": 5, "first_epoch": 5, "steps": 48}


class Screen(io.StringIO):
    """A terminal, as far as Python can tell."""

    def isatty(self) -> bool:
        return True


def unasked() -> dict[str, float]:
    """Stand for logs that nobody should compute."""
    raise AssertionError("nothing is drawn, so the logs must not be computed")


def whole_fit(progress: Progress) -> None:
    """Show a fit of two epochs, the first one resumed."""
    progress.begin("fit 2 resumed at epoch 7, step 40")
    for epoch in (6, 7):
        progress.epoch_begin(epoch)
        progress.update(44, unasked)
        progress.update(48, unasked)
        progress.validation()
        progress.epoch_end(epoch, {"loss": 0.123449, "val_loss": 12345.6, "learning_rate": 1e-3, "text": "x"}, 0.2149)
    progress.end({"loss": 0.1})


def test_plain_progress_is_one_line_an_epoch(capsys):
    """A log has a line for each epoch, with four digits, and no carriage return."""
    whole_fit(PlainProgress(**FACTS))
    out, err = capsys.readouterr()
    assert out == (
        "fit 2 resumed at epoch 7, step 40\n"
        "fit 2 (head) | epoch 7/10 | 48 steps, 0.21 s | loss 0.1234 | val_loss 1.235e+04 | learning_rate 0.001\n"
        "fit 2 (head) | epoch 8/10 | 48 steps, 0.21 s | loss 0.1234 | val_loss 1.235e+04 | learning_rate 0.001\n"
    )
    assert err == ""


def test_plain_progress_counts_steps_that_nobody_knew(capsys):
    """The line of an epoch of a generator says how many steps it had."""
    progress = PlainProgress(**{**FACTS, "steps": None, "name": None})
    progress.begin()
    progress.epoch_begin(5)
    progress.update(1, unasked)
    progress.epoch_end(5, {}, 1.0)
    assert capsys.readouterr().out == "fit 2 | epoch 6/10 | 1 step, 1.00 s\n"


def test_silent_progress_says_nothing(capsys):
    """verbose=0 is silent, messages included."""
    progress = make_progress(0, **FACTS)
    whole_fit(progress)
    progress.say("something")
    progress.abort()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("verbose", "output", "term", "kind"),
    [
        ("auto", Screen(), "xterm", TerminalBar),
        (1, Screen(), "xterm", TerminalBar),
        (2, Screen(), "xterm", PlainProgress),
        (0, Screen(), "xterm", Progress),
        ("auto", Screen(), "dumb", PlainProgress),
        ("auto", io.StringIO(), "xterm", PlainProgress),
        (1, io.StringIO(), "xterm", PlainProgress),
        (1, None, "xterm", PlainProgress),
        (1, types.SimpleNamespace(write=print), "xterm", PlainProgress),
    ],
)
def test_make_progress_chooses_by_verbose_and_output(verbose, output, term, kind, monkeypatch):
    """A bar is for a terminal that can draw; a file, a pipe and verbose=2 get lines."""
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setenv("TERM", term)
    assert type(make_progress(verbose, **FACTS)) is kind


@pytest.mark.parametrize(("verbose", "kind"), [("auto", NotebookBar), (2, PlainProgress), (0, Progress)])
def test_make_progress_knows_a_notebook(verbose, kind, monkeypatch):
    """A notebook's kernel gets its own bar; IPython in a terminal is no notebook."""
    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    assert type(make_progress(verbose, **FACTS)) is kind
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: types.SimpleNamespace()))
    assert not isinstance(make_progress(verbose, **FACTS), NotebookBar)


def test_progress_prints_what_the_output_can_write(monkeypatch):
    """A metric with an unusual name does not stop a training whose log is ASCII."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    PlainProgress(**FACTS).say("größe 1")
    assert raw.getvalue() == b"gr??e 1\n"


def test_shown_leaves_out_what_is_no_number():
    """Logs may hold anything; numbers are shown."""
    assert shown({"a": 1, "b": "x", "c": None, "d": float("nan"), "e": [1, 2]}) == ["a 1", "d nan"]


def test_lines_tell_of_frozen_layers_that_take_long(monkeypatch, capsys):
    """A log gets a line now and then, none for what is quick, and nothing with verbose=0."""
    now = [0.0]
    monkeypatch.setattr("keepfit.callbacks.progress.time.perf_counter", lambda: now[0])
    for progress in (PlainProgress(**FACTS), Progress(**FACTS)):
        for now[0] in (0.0, 0.5, 2.0, 3.0, 40.0):
            progress.features(int(now[0]) + 1, 1000)
        progress.features_end()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[1] for line in lines] == [f"frozen layers, once: sample {n}/1,000" for n in (3, 41)]
