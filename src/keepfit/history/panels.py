"""What a picture draws in its panels: metrics by kind, and the learning rate."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib.ticker import LogFormatterSciNotation, MaxNLocator, NullFormatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TRAIN = "#2563ae"
VALIDATION = "#e07b1f"
RATE = "#4d7c4f"
BROKEN = "#c01f3a"
# For panels of several metrics: one hue a metric, its validation value dashed.
HUES = ("#2563ae", "#c2452d", "#2a8a6d", "#8a5aa8", "#b58a18", "#5b6770")
LINES_SHOWN = 2 * len(HUES)
# Beyond this many epochs, points on the lines only blur them.
POINTS_SHOWN = 40
# From this ratio of largest to smallest on, small values vanish on a linear axis.
LOG_FROM = 100.0
RATE_LOG_FROM = 8.0
SCORES = re.compile(r"acc|auc|precision|recall|f1|f_?beta|iou|dice|score|sensitivity|specificity|r2", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Panel:
    """One set of metrics that share an axis.

    Args:
        title: What stands beside the axis.
        series: Name of each metric -> its points as (index of the epoch, value); nan is a gap in the line.
        broken: Indices of the epochs where one of them was nan or infinite.
    """

    title: str
    series: Mapping[str, Sequence[tuple[int, float]]]
    broken: frozenset[int] = frozenset()


def metric_panels(logs: Mapping[str, Sequence[float | None]], fits: Sequence[int]) -> list[Panel]:
    """Return the panels of a picture: losses, scores between 0 and 1 such as accuracy, all else.

    Args:
        logs: Name of each metric -> one value an epoch, None where it was not measured.
        fits: The fit of each epoch. A line goes on over epochs without a value (`validation_freq`) and
            breaks at fits that have none.
    """
    groups: dict[str, dict[str, list[tuple[int, float]]]] = {"loss": {}, "score": {}, "metric": {}}
    broken: dict[str, set[int]] = {kind: set() for kind in groups}
    for name, values in logs.items():
        if name == "learning_rate":  # it has a panel of its own
            continue
        measured = {fit for fit, value in zip(fits, values, strict=True) if value is not None}
        kind = _kind(name, [value for value in values if value is not None])
        points = groups[kind].setdefault(name, [])
        for index, (fit, value) in enumerate(zip(fits, values, strict=True)):
            if value is not None and math.isfinite(value):
                points.append((index, value))
            elif value is not None or fit not in measured:
                points.append((index, math.nan))
            if value is not None and not math.isfinite(value):
                broken[kind].add(index)
    panels = [Panel(_title(kind, series), series, frozenset(broken[kind])) for kind, series in groups.items() if series]
    return panels or [Panel("loss", {})]


def _kind(name: str, numbers: Iterable[float]) -> str:
    if name.removeprefix("val_").endswith("loss"):
        return "loss"
    inside = all(0 <= value <= 1 for value in numbers if math.isfinite(value))
    return "score" if inside and SCORES.search(name) else "metric"


def _title(kind: str, series: Iterable[str]) -> str:
    bases = {name.removeprefix("val_") for name in series}
    return plain_label(bases.pop(), 18) if len(bases) == 1 else {"score": "scores", "metric": "metrics"}.get(kind, kind)


def plain_label(text: str, length: int) -> str:
    """Return a text as matplotlib draws it unchanged: one line, no formula, not hidden from legends."""
    line = "".join(character if character.isprintable() else " " for character in text)
    cut = line if len(line) <= length else line[: length - 1] + "…"
    return (" " if cut.startswith("_") else "") + cut.replace("$", r"\$")


def draw_metrics(axes: Axes, panel: Panel, ends: Sequence[float]) -> None:
    """Draw the lines of a panel, with a legend beside it."""
    bases = list(dict.fromkeys(name.removeprefix("val_") for name in panel.series))
    shown = list(panel.series.items())[:LINES_SHOWN]
    for name, points in shown:
        base, validation = name.removeprefix("val_"), name.startswith("val_")
        alone = len(bases) == 1
        axes.plot(
            [ends[index] for index, _ in points],
            [value for _, value in points],
            color=(VALIDATION if validation else TRAIN) if alone else HUES[bases.index(base) % len(HUES)],
            linestyle=(0, (3.2, 1.6)) if validation and not alone else "solid",
            linewidth=1.6,
            marker="o",
            markersize=3.2,
            markevery=_dots([value for _, value in points]),
            label=plain_label(name, 24),
            zorder=3,
        )
    if panel.broken:
        axes.plot(
            [ends[index] for index in sorted(panel.broken)],
            [0.04] * len(panel.broken),
            transform=axes.get_xaxis_transform(),
            linestyle="none",
            marker="x",
            markersize=5,
            color=BROKEN,
            label="not finite",
            zorder=3,
        )
    _scale(axes, [value for _, points in shown for _, value in points], LOG_FROM)
    axes.set_ylabel(panel.title)
    if shown:
        hidden = len(panel.series) - len(shown)
        title = f"and {hidden} more" if hidden else None
        axes.legend(
            loc="upper left", bbox_to_anchor=(1.01, 1.02), frameon=False, fontsize=9, title=title, title_fontsize=8
        )


def draw_rate(axes: Axes, starts: Sequence[float], ends: Sequence[float], rates: Sequence[float | None]) -> None:
    """Draw the learning rate as a line of steps, one an epoch; on a log axis where it varies much."""
    across: list[float] = []
    values: list[float] = []
    for start, end, rate in zip(starts, ends, rates, strict=True):
        value = math.nan if rate is None or not math.isfinite(rate) else rate
        across += [start, end]
        values += [value, value]
    axes.plot(across, values, color=RATE, linewidth=1.6, zorder=3, solid_joinstyle="miter")
    _scale(axes, values, RATE_LOG_FROM)
    axes.set_ylabel("learning rate")


def _dots(values: Sequence[float]) -> list[int]:
    if len(values) <= POINTS_SHOWN:
        return list(range(len(values)))
    padded = [math.nan, *values, math.nan]
    # A value between two gaps is no line: without its point it would not be seen.
    return [i for i in range(len(values)) if math.isnan(padded[i]) and math.isnan(padded[i + 2])]


def _scale(axes: Axes, values: Iterable[float], log_from: float) -> None:
    finite = [value for value in values if not math.isnan(value)]
    if finite and min(finite) > 0 and max(finite) / min(finite) >= log_from:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(LogFormatterSciNotation())
        axes.yaxis.set_minor_formatter(NullFormatter())
        return
    # Never an offset over the axis, where it would run into the panel above.
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.7g}")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, min_n_ticks=3, steps=[1, 2, 2.5, 5, 10]))
    if finite and min(finite) == max(finite):
        room = abs(finite[0]) * 0.5 or 0.5
        axes.set_ylim(finite[0] - room, finite[0] + room)
