"""History: all fits of a run read as one."""

from __future__ import annotations

import subprocess
import sys

import pytest

from keepfit import extras
from keepfit.errors import InvalidArgument
from keepfit.history import History, Lineage
from keepfit.journal import EpochRecord, FitRecord


def test_logs_join_all_fits_with_none_where_a_metric_is_missing(make_history):
    """Every metric is a list over all epochs of the run, None where an epoch lacks it."""
    history = make_history([2, 1], logs=lambda fit, epoch: {"loss": float(epoch)} | ({"mae": 9.0} if fit == 2 else {}))
    assert history.logs == {"loss": [0.0, 1.0, 2.0], "mae": [None, None, 9.0]}
    assert history.metrics == ["loss", "mae"]


def test_rows_hold_what_each_fit_came_to(make_history):
    """A row counts the epochs, steps, samples and seconds of its own fit alone."""
    first, second = make_history([2, 3], names=["head", None]).fits
    assert (first.number, first.name, first.epochs, first.steps, first.samples, first.seconds) == (
        1,
        "head",
        2,
        20,
        160,
        1.0,
    )
    assert (second.first_epoch, second.first_step, second.steps, second.samples) == (2, 20, 30, 240)
    assert second.logs == {"loss": 0.4, "val_loss": 0.5}


def test_length_counts_fits_and_iteration_gives_rows(make_history):
    """len() and loops are over fits; totals are over all of them."""
    history = make_history([1, 2, 3])
    assert len(history) == 3
    assert [row.number for row in history] == [1, 2, 3]
    assert (history.steps, history.samples, history.seconds) == (60, 480, 3.0)


def test_records_in_any_order_give_the_same_history(make_history):
    """The order in which records are given does not matter."""
    fits = [FitRecord(number=2, first_epoch=1), FitRecord(number=1)]
    epochs = [
        EpochRecord(fit=2, epoch=1, label=1, logs={"loss": 1.0}),
        EpochRecord(fit=1, epoch=0, label=0, logs={"loss": 2.0}),
    ]
    history = History(fits, epochs)
    assert [row.number for row in history.fits] == [1, 2]
    assert history.logs == {"loss": [2.0, 1.0]}


def test_closed_branches_stay_out_of_the_timeline():
    """Fits and epochs of closed branches are kept apart from those of the run's timeline."""
    fits = [FitRecord(number=1), FitRecord(number=1, branch=1, epochs_done=1)]
    epochs = [
        EpochRecord(fit=1, epoch=0, label=0, logs={"loss": 1.0}),
        EpochRecord(fit=1, branch=1, epoch=0, label=0, logs={"loss": 7.0}),
    ]
    history = History(fits, epochs, closed=[FitRecord(number=2, branch=1)])
    assert len(history) == 1
    assert history.logs == {"loss": [1.0]}
    assert [(row.branch, row.number, dict(row.logs)) for row in history.closed] == [(1, 1, {"loss": 7.0}), (1, 2, {})]


def test_fit_gives_one_fit_by_number_or_name(make_history):
    """One fit is a history of its own, found by its number or its name."""
    history = make_history([2, 1], names=["head", "all"], events=[("died", 2, 2, 25), ("died", 1, 0, 5)])
    assert history.fit(2).logs["loss"] == history.logs["loss"][2:]
    assert history.fit("all").fits == history.fit(2).fits
    assert [event.step for event in history.fit(2).events] == [25]


def test_fit_names_what_there_is_when_there_is_no_such_fit(make_history):
    """An unknown fit is refused, with the fits that there are."""
    with pytest.raises(InvalidArgument, match=r"no fit 'tail'. It has: 1 \('head'\), 2\."):
        make_history([1, 1], names=["head", None]).fit("tail")


def test_frame_has_one_row_an_epoch(make_history):
    """The pandas frame has a row for every epoch with fit, position, rate, time and metrics."""
    frame = make_history([1, 1], names=["head", None], rates=[0.1, None]).frame()
    assert list(frame.columns) == [
        *("fit", "name", "epoch", "label", "step", "samples", "learning_rate", "seconds"),
        *("loss", "val_loss"),
    ]
    assert frame["fit"].tolist() == [1, 2]
    assert frame["step"].tolist() == [10, 20]
    assert frame["loss"].tolist() == [2.0, 1.0]
    assert frame["learning_rate"].isna().tolist() == [False, True]


def test_frame_keeps_a_metric_whose_name_is_a_fact(make_history):
    """A metric with the name of a column of facts gets a column of its own."""
    frame = make_history([1], logs=lambda *_: {"loss": 1.0, "learning_rate": 0.5, "step": 3.0}).frame()
    assert frame.loc[0, "learning_rate"] == 1e-3
    assert frame.loc[0, "logs.learning_rate"] == 0.5
    assert frame.loc[0, "logs.step"] == 3.0


def test_frame_of_an_empty_history_has_its_columns():
    """A history without epochs gives a frame without rows."""
    frame = History([], []).frame()
    assert len(frame) == 0
    assert "learning_rate" in frame.columns


@pytest.mark.parametrize(("library", "call", "extra"), [("pandas", "frame", "frames"), ("matplotlib", "plot", "plot")])
def test_missing_library_is_named_with_its_install_line(monkeypatch, make_history, library, call, extra):
    """Where an optional library is not installed, the error has the line that installs it."""

    def missing(module):
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr(extras.importlib, "import_module", missing)
    with pytest.raises(ImportError, match=rf'{library}, which is not installed.\n.*pip install "keepfit\[{extra}\]"'):
        getattr(make_history([1]), call)()


def test_broken_library_keeps_its_own_error(monkeypatch):
    """A library that is installed and cannot be imported is not called missing."""

    def broken(module):
        raise ModuleNotFoundError("No module named 'dateutil'", name="dateutil")

    monkeypatch.setattr(extras.importlib, "import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="dateutil"):
        extras.load_extra("pandas", extra="frames", purpose="This")


def test_repr_counts_and_gives_the_last_losses(make_history):
    """The repr says how much there is and how it went."""
    assert repr(make_history([1, 1])) == "History(2 fits, 2 epochs, 20 steps: loss 1.0000, val_loss 1.2500)"
    assert repr(History([], [])) == "History(no fits)"


def test_html_escapes_names_and_shows_the_last_fits(make_history):
    """In a notebook the last twenty fits are shown, and no name becomes markup."""
    history = make_history([1] * 25, names=["<b>bold</b>"] * 25)
    text = history._repr_html_()
    assert "<b>" not in text
    assert text.count("&lt;b&gt;bold") == 20
    assert "5 earlier fits not shown" in text
    assert History([], [])._repr_html_() == "<p>no fits</p>"


def test_lineage_survives_json():
    """Where a run was forked from comes back from the journal as it went in."""
    lineage = Lineage("runs/base", 2, "a1b2")
    assert Lineage.from_json(lineage.to_json()) == lineage
    assert str(lineage) == "forked from runs/base after fit 2"


def test_history_imports_neither_keras_nor_a_drawing_library():
    """Reading a history imports no Keras, no backend, and nothing heavy before it is asked for."""
    code = (
        "import sys, keepfit.history; "
        "heavy = {'keras', 'jax', 'tensorflow', 'torch', 'numpy', 'matplotlib', 'pandas', 'rich'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
