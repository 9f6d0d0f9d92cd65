"""keepfit show."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from keepfit.cli.folder import read_folder
from keepfit.cli.page import PlainPage, RichPage, page
from keepfit.cli.show import facts, metric_columns, model_facts, show_folder, trained_lines
from keepfit.cli.sizes import folder_bytes, size
from keepfit.history import History
from keepfit.history.rows import fit_row
from keepfit.history.table import cell_width
from keepfit.journal import EpochRecord, FitRecord
from keepfit.recorder import DiskRecorder


def test_show_tells_what_is_in_a_run(keepfit, run):
    """Header, fits, metrics, checkpoints, what is not exact and events are all there."""
    result = keepfit("show", run)
    assert result.exit_code == 0
    for text in (
        f"{run}\n  format 1, created ",
        "forked from runs/base after fit 2",
        "model: 1 variable, 640 values (float32)",
        "backend jax",
        "keras 3.99",
        "seed: 1234",
        "3 epochs, 135 steps, 4,311 samples in 0.75 s",
        "fit 2: the generator was resumed by replay",
        "died: fit 2, step 100 of the run: an earlier process ended",
        "resumed: fit 2 resumed at epoch 1",
    ):
        assert text in result.stdout
    assert "redone" not in result.stdout


def test_show_lists_fits_metrics_and_checkpoints(keepfit, run):
    """Each table has a line an entry, with whole numbers."""
    lines = [line.split() for line in keepfit("show", run).stdout.splitlines()]
    assert ["1", "warm-up", "finished", "first", "2/2", "90", "0.001", "0.5000", "0.7500", "0.7500"] in [
        x[:10] for x in lines
    ]
    assert ["loss", "0.3333", "0.3333", "3", "1.0000", "1"] in lines
    assert ["3", "2", "end", "3", "135"] in [line[:5] for line in lines]


def test_show_works_while_another_writes(keepfit, open_run):
    """A run that is being written is shown, with the process that writes it."""
    result = keepfit("show", open_run)
    assert result.exit_code == 0
    assert "open in process" in result.stdout
    assert "warm-up" in result.stdout


def test_show_leaves_the_folder_as_it_was(keepfit, run):
    """Looking at a run makes no file and changes none."""
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    keepfit("show", run)
    keepfit("verify", run)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_show_says_what_would_be_redone(keepfit, run):
    """Epochs beyond the newest checkpoint are said to be trained again."""
    folder = read_folder(run)
    more = EpochRecord(fit=3, epoch=3, label=3, logs={"loss": 1.0}, steps=45, step=180)
    history = History([*folder.history.records, FitRecord(number=3)], [*folder.history.epochs, more], directory=run)
    out = io.StringIO()
    object.__setattr__(folder, "history", history)
    show_folder(folder, RichPage(Console(file=out, width=200)))
    assert "trained after step 135 is redone" in out.getvalue()


@pytest.mark.parametrize("width", [80, 100])
def test_terminal_shows_whole_numbers_within_its_width(run, width):
    """At 80 columns no line is too long, no number is cut, and what is left out is named."""
    out = io.StringIO()
    show_folder(read_folder(run), RichPage(Console(file=out, width=width, force_terminal=False)))
    lines = out.getvalue().splitlines()
    tables = [line for line in lines if str(run) not in line]
    assert max(map(cell_width, tables)) <= width
    assert "…" not in out.getvalue()
    assert "wider terminals also show: " in out.getvalue()
    row = next(line for line in lines if "warm-up" in line)
    assert row.split()[:5] == ["1", "warm-up", "finished", *row.split()[3:5]]
    assert "0.5000" in row


def test_terminal_has_colours_and_obeys_no_markup(tmp_path):
    """Names that look like markup or terminal codes are printed, not obeyed."""
    out = io.StringIO()
    shown = RichPage(Console(file=out, width=80, force_terminal=True, color_system="standard", _environ={}))
    shown.heading("[red]run[/red]")
    shown.line("[bold]text")
    assert "[red]run[/red]" in out.getvalue()
    assert "[bold]text" in out.getvalue()


def test_page_is_plain_where_there_is_no_terminal(monkeypatch):
    """Output into a pipe or a dumb terminal is plain text."""
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert isinstance(page(), PlainPage)


def test_metrics_say_where_they_were_lowest_and_highest():
    """The first of equal values counts, nan is shown as the last value and never as the best."""
    logs = [{"loss": 2.0}, {"loss": 1.0}, {"loss": 1.0}, {"loss": math.nan}, {"mae": math.nan}]
    epochs = [EpochRecord(fit=1, epoch=index, label=index, logs=values) for index, values in enumerate(logs)]
    columns = metric_columns(History([FitRecord(number=1)], epochs))
    assert [column.cells[0] for column in columns] == ["loss", "nan", "1.0000", "2", "2.0000", "1"]
    assert [column.cells[1] for column in columns] == ["mae", "nan", "-", "-", "-", "-"]


def test_model_is_summarised_from_its_signature():
    """Variables and values are counted; what is no signature is printed as it is."""
    assert (
        model_facts({"kernel": [[2, 3], "float32"], "seed": [[], "uint32"]})
        == "2 variables, 7 values (float32, uint32)"
    )
    assert model_facts({"hash": "abc"}) == "hash abc"
    assert model_facts("abc") == "abc"


def test_facts_are_one_clean_line():
    """Plain data becomes one line without control characters, cut where it is long."""
    assert (
        facts({"plan": "fused", "versions": {"jax": "1"}, "device": None, "threads": 2})
        == "plan fused, jax 1, threads 2"
    )
    assert facts("a\x1b[0m\nb" + "x" * 200).startswith("a [0m b")
    assert len(facts("x" * 200)) == 100


def test_sizes_are_rounded_as_a_person_reads_them(tmp_path):
    """Bytes become the unit that keeps them short, and a folder counts all its files."""
    assert [size(value) for value in (0, 999, 1000, 12_345, 4_100_000, 999_999_999, 3 * 10**12)] == [
        *("0 B", "999 B", "1.0 kB", "12.3 kB", "4.1 MB", "1.0 GB", "3.0 TB")
    ]
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "file").write_bytes(b"12345")
    (tmp_path / "file").write_bytes(b"123")
    assert folder_bytes(tmp_path) == 8
    assert folder_bytes(tmp_path / "nothing") == 0


def test_history_is_read_from_a_folder(run):
    """History.read gives the history of a run folder, lineage included."""
    history = History.read(run)
    assert repr(history) == "History(2 fits, 3 epochs, 135 steps: loss 0.3333, val_loss 0.5000)"
    assert str(history.lineage) == "forked from runs/base after fit 2"
    assert len(history.checkpoints) == 3


def test_what_trained_is_told_with_counts():
    """Fits that trained the same variables share a line; where all did, there is none."""
    signature = {"model/a/kernel": [[4, 5], "float32"], "model/b/kernel": [[5, 2], "float32"]}

    def fit(number, *names):
        return fit_row(FitRecord(number=number, recipe={"strict": {"trainable": list(names)}}), [])

    both = ("model/a/kernel", "model/b/kernel")
    fits = [fit(1, *both), fit(2, "model/b/kernel"), fit(3, "model/b/kernel"), fit(4, *both)]
    assert trained_lines(signature, fits) == [
        "fit 1: 30 values in 2 variables",
        "fits 2 to 3: 10 values in 1 variable",
        "fit 4: 30 values in 2 variables",
    ]
    assert trained_lines(signature, [fit(1, *both), fit(2, *both)]) == []
    assert trained_lines("unknown", fits) == []


def test_rates_that_are_more_than_a_number_are_told_with_what_trained():
    """Schedules by their names, multipliers by their range, variables that came during the run with their sizes."""
    signature = {"model/a/kernel": [[4, 5], "float32"], "model/b/kernel": [[5, 2], "float32"]}
    cosine = {"class": "keepfit.Cosine", "start": 0.1}
    strict = {
        "trainable": ["model/a/kernel", "model/c/kernel"],
        "learning_rate": {"class": "keepfit.WarmUp", "then": cosine, "over": 0.1},
        "rate_multipliers": {"model/a/kernel": 0.25},
        "variables": {"model/b/kernel": None, "model/c/kernel": [[5, 3], "float32"]},
    }
    row = fit_row(FitRecord(number=1, recipe={"strict": strict}), [])
    assert trained_lines(signature, [row]) == [
        "fit 1: 35 values in 2 variables, rate by WarmUp to Cosine, times 0.25 to 1 by layer"
    ]


def test_show_tells_what_is_not_exact_once(keepfit, run):
    """What is in a fit's row and was warned of with the same words is one line."""
    sentence = "the generator was resumed by replay"
    recorder = DiskRecorder.open(run)
    recorder.event("approximate", f"Fit 2: {sentence}.", fit=2)
    recorder.close()
    assert keepfit("show", run).stdout.count(sentence) == 1
