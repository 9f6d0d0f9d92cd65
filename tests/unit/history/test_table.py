"""Plain tables that never cut a number."""

from __future__ import annotations

import math
import re

import pytest

from keepfit.history.table import (
    Column,
    cell_width,
    clean,
    duration,
    fit_columns,
    metrics_shown,
    number,
    plain_table,
    rate,
    shortened,
)


def test_table_lists_fits_in_columns_of_equal_width(make_history):
    """The table of fits has a line a fit, with the facts that tell fits apart."""
    text = make_history([2, 1], names=["head", None], statuses=["finished", "open"]).table()
    title, first, second = text.splitlines()
    assert title.split() == [
        "fit",
        "name",
        "status",
        "phase",
        "epochs",
        "steps",
        "rate",
        "loss",
        "val_loss",
        "started",
        "time",
    ]
    assert first.split()[:9] == ["1", "head", "finished", "first", "2/2", "20", "0.001", "1.0000", "1.2500"]
    assert second.split()[:6] == ["2", "open", "continues", "1/3", "10", "0.001"]
    assert title.index("rate") + len("rate") == first.index("0.001") + len("0.001")


@pytest.mark.parametrize("width", [72, 80, 100, 160])
def test_table_fits_the_width_without_cutting_a_number(make_history, width):
    """In a narrow terminal names get shorter and columns go, and every number stays whole."""
    history = make_history(
        [123456, 1],
        names=["a name that is much too long for a narrow terminal", None],
        rates=[1.2345e-05, 1e-3],
        logs=lambda *_: {"loss": 1.2345e-7, "val_loss": -123456.0, "accuracy": 0.5, "val_accuracy": math.nan},
    )
    text = history.table(width=width)
    assert all(cell_width(line) <= width for line in text.splitlines())
    assert text.count("...") == 1
    assert re.search(r"a name[a-z ]*\.\.\.", text)
    assert "1.235e-07" in text
    assert "123456/123456" in text


def test_table_of_no_fits_says_so(make_history):
    """An empty history has a table too."""
    assert make_history([]).table() == "no fits"


def test_columns_leave_in_order_of_rank():
    """The highest rank goes first; what has rank 0 stays however narrow it is."""
    columns = [Column(name, ("12345678",), right=True, rank=rank) for name, rank in (("a", 0), ("b", 2), ("c", 1))]
    assert plain_table(columns, width=18).split() == ["a", "c", "12345678", "12345678"]
    assert plain_table(columns, width=1).split() == ["a", "12345678"]


def test_first_other_metric_stands_beside_the_losses():
    """A row shows the losses and one further metric, never the rate twice."""
    names = ["accuracy", "loss", "auc", "learning_rate", "val_accuracy", "val_loss"]
    assert metrics_shown(names) == ["loss", "val_loss", "accuracy", "val_accuracy"]


def test_names_cannot_control_the_terminal(make_history):
    """Control characters in a name are taken out, line breaks too."""
    assert clean("a\x1b[31m\nb\t") == "a [31m b"
    assert "\x1b" not in plain_table(fit_columns(make_history([1], names=["\x1b[2J"]).fits))


def test_wide_characters_take_two_columns():
    """Columns stay straight with characters that are two columns wide."""
    assert cell_width("漢字") == 4
    assert shortened("漢字漢字", 7) == "漢字..."
    assert shortened("short", 7) == "short"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.12345, "0.1235"),
        (0.0, "0.0000"),
        (1e-5, "1.000e-05"),
        (123456.0, "1.235e+05"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (None, "-"),
    ],
)
def test_number_is_short_whatever_its_size(value, text):
    """A metric takes at most ten characters and is never a long row of zeros."""
    assert number(value) == text


def test_rates_and_times_read_as_a_person_writes_them():
    """Rates keep four digits; times change their unit with their size."""
    assert [rate(value) for value in (1e-3, 3e-5, None)] == ["0.001", "3e-05", "-"]
    assert [duration(value) for value in (0.314, 12.34, 61, 7384)] == ["0.31 s", "12.3 s", "1:01", "2:03:04"]
