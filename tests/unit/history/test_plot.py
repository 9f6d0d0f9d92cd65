"""The picture of a run's history."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from keepfit.errors import InvalidArgument
from keepfit.history import Lineage, plot
from keepfit.history.panels import metric_panels
from keepfit.history.strip import band_labels, drawn_bands, mark_rows
from keepfit.history.timeline import Mark, timeline

KILLS = [("died", 2, 2, 35), ("resumed", 2, 2, 30)]


def overlaps(texts, renderer):
    boxes = [text.get_window_extent(renderer) for text in texts if text.get_text()]
    return [(a, b) for i, a in enumerate(boxes) for b in boxes[i + 1 :] if a.overlaps(b)]


def outside(figure):
    """Return by how many pixels what is drawn leaves the page."""
    figure.canvas.draw()
    box, page = figure.get_tightbbox(figure.canvas.get_renderer()), figure.bbox_inches
    beyond = max(page.x0 - box.x0, box.x1 - page.x1, page.y0 - box.y0, box.y1 - page.y1)
    return max(0.0, beyond * figure.dpi)


CASES = {
    "one epoch": {"lengths": [1]},
    "three fits": {"lengths": [5, 5, 3], "names": ["head", None, "all"], "rates": [1e-2, 1e-3, 1e-5], "events": KILLS},
    "forty fits": {"lengths": [1, 2] * 20, "names": [f"a long name {n}" for n in range(40)]},
    "many kills": {"lengths": [30], "events": [(k, 1, None, s) for s in range(5, 300, 7) for k in ("died", "resumed")]},
    "nothing": {"lengths": []},
    "all nan": {"lengths": [2], "logs": lambda *_: {"loss": math.nan, "accuracy": math.inf}},
    "odd names": {
        "lengths": [2, 2],
        "names": ["$x_{1}$ 漢字 " * 9, "_hidden\n\x1b"],
        "logs": lambda *_: {"_m$e": 2e9, "loss": 2.3},
    },
    "no rate": {"lengths": [2], "rates": [None], "logs": lambda _, epoch: {f"m{n}": n * epoch for n in range(30)}},
    "open": {"lengths": [2, 1], "statuses": ["stopped", "open"], "events": [("died", 2, 3, 37)]},
}


@pytest.mark.filterwarnings("ignore:Glyph")  # measuring here draws once more, outside the picture's own care
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("over", ["epochs", "steps"])
def test_picture_is_written_whatever_the_history(make_history, tmp_path, case, over):
    """Every history gives a PNG, and nothing that is written lies outside the page."""
    history = make_history(**CASES[case], directory="runs/digits", lineage=Lineage("runs/base", 2))
    figure = plot(history, tmp_path / "picture.png", over=over)
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert outside(figure) == 0


@pytest.mark.filterwarnings("ignore:Glyph")  # measuring here draws once more, outside the picture's own care
@pytest.mark.parametrize("case", CASES)
def test_labels_over_the_curves_do_not_overlap(make_history, case):
    """Names of fits and of events keep clear of one another."""
    figure = plot(make_history(**CASES[case]))
    texts = [text for axes in figure.axes if not axes.axison for text in axes.texts]
    assert overlaps(texts, figure.canvas.get_renderer()) == []


def test_kill_and_resume_are_named_in_the_picture(make_history):
    """Few events are named at their lines."""
    figure = plot(make_history([5, 5], events=KILLS))
    words = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert {"killed", "resumed"} <= words


def test_many_events_are_counted_instead_of_named(make_history):
    """Events too many to name are counted in a legend."""
    figure = plot(make_history(**CASES["many kills"]))
    words = [text.get_text() for axes in figure.axes if axes.get_legend() for text in axes.get_legend().get_texts()]
    assert "killed (43)" in words


def test_rate_over_decades_has_a_log_axis(make_history):
    """The learning rate is on a log axis where it varies over decades, on a linear one elsewhere."""
    for rates, scale in (([1e-2, 1e-5], "log"), ([1e-3, 5e-4], "linear"), ([1e-3, 0.0], "linear")):
        figure = plot(make_history([2, 2], rates=rates))
        assert [axes.get_yscale() for axes in figure.axes if axes.get_ylabel() == "learning rate"] == [scale]


def test_metrics_of_one_kind_share_a_panel():
    """Losses, scores and all other metrics have a panel each; the rate is left to its own."""
    logs = {name: [0.5] for name in ("loss", "a_loss", "val_loss", "accuracy", "val_accuracy", "mae", "learning_rate")}
    panels = metric_panels(logs, [1])
    assert [(panel.title, list(panel.series)) for panel in panels] == [
        ("loss", ["loss", "a_loss", "val_loss"]),
        ("accuracy", ["accuracy", "val_accuracy"]),
        ("mae", ["mae"]),
    ]


def test_line_goes_on_over_unmeasured_epochs_and_breaks_elsewhere():
    """Epochs between validations join; a fit without the metric and a nan leave a gap, the nan a mark."""
    panel = metric_panels({"loss": [None, 1.0, None, math.nan, 2.0]}, [1, 1, 2, 3, 3])[0]
    (points,) = panel.series.values()
    assert [index for index, _ in points] == [1, 2, 3, 4]
    assert [value for _, value in points if not math.isnan(value)] == [1.0, 2.0]
    assert panel.broken == {3}


def test_bands_get_name_number_or_nothing_as_room_allows(make_history):
    """A label is as long as its band: all of it, a part, the number alone, every second number."""

    def labels(scale, lengths=(1, 1), names=("pretraining", None)):
        bands = timeline(make_history(lengths, names=names), "epochs").bands
        return band_labels(bands, lambda text: 5.0 * len(text), scale)

    assert labels(100) == ["1  pretraining", "fit 2"]
    assert labels(50) == ["1  pretr…", "fit 2"]
    assert labels(20) == ["1", "2"]
    assert labels(6, (1,) * 4, (None,) * 4) == ["", "2", "", "4"]


def test_bands_too_narrow_to_see_are_drawn_as_one(make_history):
    """Hundreds of fits make one band and no flicker."""
    bands = timeline(make_history([1] * 9), "epochs").bands
    assert len(drawn_bands(bands, 10.0)) == 9
    assert drawn_bands(bands, 3.0) == [(0.0, 9.0)]
    assert drawn_bands([], 1.0) == []


def test_event_labels_give_way_to_one_another():
    """Labels of near events stand on both sides and in rows, and give up where there is no room."""

    def rows(*places):
        return mark_rows([Mark(at, "word") for at in places], lambda text: 20.0, 1.0, 200.0)

    assert rows(50, 150) == [(0, False), (0, False)]
    assert rows(50, 55) == [(0, True), (0, False)]
    assert rows(190) == [(0, True)]
    assert rows(*range(50, 90, 2)) is None


def test_bad_arguments_are_refused_before_anything_is_written(make_history, tmp_path):
    """An unknown axis or format is refused, and no file is made."""
    with pytest.raises(InvalidArgument, match="'epochs' or 'steps'"):
        plot(make_history([1]), over="days")
    with pytest.raises(InvalidArgument, match="one of png, svg"):
        plot(make_history([1]), tmp_path / "picture.docx")
    assert list(tmp_path.iterdir()) == []


def test_picture_shows_itself_in_a_notebook(make_history):
    """The figure gives a PNG to a notebook without pyplot."""
    assert plot(make_history([1]))._repr_png_().startswith(b"\x89PNG")


def test_drawing_needs_no_display_and_leaves_pyplot_alone(tmp_path):
    """No window system is touched: pyplot is not even imported."""
    code = (
        "import sys; from keepfit.history import History, plot; "
        f"plot(History([], []), {str(tmp_path / 'empty.svg')!r}); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PATH": "", "HOME": str(tmp_path)})
    assert (tmp_path / "empty.svg").exists()
