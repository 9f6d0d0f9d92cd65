"""The strip over a picture: fits as labelled bands, events as labelled lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from keepfit.history.panels import plain_label
from keepfit.history.timeline import STOPPED, Band, Mark

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHADES = ("#dfe6ee", "#f1f4f7")
BAND_EDGE = "#b9c4cf"
INK = "#26323d"
COLOURS = {
    "killed": "#c01f3a",
    "interrupted": "#c8741a",
    "resumed": "#1f8a4c",
    "not finite": "#8d1fa0",
    "branched": "#4453a6",
    "damage": "#7a5230",
    STOPPED: "#5f6b76",
}
Dash = tuple[float, Sequence[float]]
SOLID: Dash = (0, ())
DOTTED: Dash = (0, (1, 1.6))
DASHES: dict[str, Dash] = {"killed": SOLID, "interrupted": SOLID, "resumed": (0, (4, 2))}
LABEL_SIZE = 8.5
# More rows of event labels than this would push the curves off the page.
MARK_ROWS = 3
SHORTEST_NAME = 5
# Bands narrower than this many points would only flicker.
NARROWEST_BAND = 4.0

Measure = Callable[[str], float]


def band_labels(bands: Sequence[Band], width_of: Measure, scale: float) -> list[str]:
    """Return what to write into each band: number and name, as much as fits, or nothing.

    Where not even all numbers fit, every 2nd, 5th, 10th, ... fit gets its number.

    Args:
        bands: The fits.
        width_of: Width of a text in points.
        scale: Points per unit of the axis.
    """
    room = [(band.right - band.left) * scale - 5 for band in bands]
    numbers = [str(band.row.number) for band in bands]
    if all(width_of(text) <= space for text, space in zip(numbers, room, strict=True)):
        return [_label(band, space, width_of) for band, space in zip(bands, room, strict=True)]
    mean = sum(room) / len(room) + 5
    widest = max(map(width_of, numbers)) + 4
    rounds = (step * 10**power for power in range(9) for step in (1, 2, 5))
    every = next((step for step in rounds if step * mean > widest), 10**9)
    return [text if band.row.number % every == 0 else "" for band, text in zip(bands, numbers, strict=True)]


def _label(band: Band, room: float, width_of: Measure) -> str:
    number = str(band.row.number)
    if not band.row.name:
        whole = f"fit {number}"
        return whole if width_of(whole) <= room else number
    for length in range(len(band.row.name), SHORTEST_NAME - 2, -1):
        text = f"{number}  {plain_label(band.row.name, length)}"
        if width_of(text) <= room:
            return text
    return number


def mark_rows(marks: Sequence[Mark], width_of: Measure, scale: float, limit: float) -> list[tuple[int, bool]] | None:
    """Return the row of every event's label, and whether it stands left of its line; None if they don't fit.

    A line goes up to its own label's row, so it must not cross a label in a row below that.

    Args:
        marks: Events from left to right.
        width_of: Width of a text in points.
        scale: Points per unit of the axis.
        limit: Points from the axis's zero to where labels must end.
    """
    lines = [mark.at * scale for mark in marks]
    taken: list[list[tuple[float, float]]] = [[] for _ in range(MARK_ROWS)]
    rows: list[tuple[int, bool]] = []
    for index, (mark, at) in enumerate(zip(marks, lines, strict=True)):
        width = width_of(mark.text) + 6
        near = lines[index + 1] - at < width if index + 1 < len(lines) else at + width > limit
        sides = (True, False) if near else (False, True)
        for row, leftwards in ((row, side) for row in range(MARK_ROWS) for side in sides):
            left, right = (at - width, at) if leftwards else (at, at + width)
            free = all(right <= other or other_right <= left for other, other_right in taken[row])
            uncrossed = not any(left + 1 < x < right - 1 and r >= row for x, (r, _) in zip(lines, rows, strict=False))
            uncrossing = not any(other + 1 < at < end - 1 for below in taken[:row] for other, end in below)
            if free and uncrossed and uncrossing and left >= 0 and right <= limit:
                taken[row].append((left, right))
                rows.append((row, leftwards))
                break
        else:
            return None
    return rows


def drawn_bands(bands: Sequence[Band], scale: float) -> list[tuple[float, float]]:
    """Return the stretches to draw as (left, right): the bands, or one over all where they are too narrow.

    Args:
        bands: The fits.
        scale: Points per unit of the axis.
    """
    if not bands:
        return []
    narrow = (bands[-1].right - bands[0].left) * scale / len(bands) < NARROWEST_BAND
    return [(bands[0].left, bands[-1].right)] if narrow else [(band.left, band.right) for band in bands]


def draw_bands(axes: Axes, stretches: Sequence[tuple[float, float]], *, unfinished: bool) -> None:
    """Draw the fits into the strip, a box each.

    Args:
        axes: The strip.
        stretches: What `drawn_bands` gave.
        unfinished: Whether the last fit is open; it is hatched.
    """
    for index, (left, right) in enumerate(stretches):
        hatch = "////" if unfinished and index == len(stretches) - 1 else None
        box = Rectangle((left, 0), right - left, 1, facecolor=SHADES[index % 2], edgecolor=BAND_EDGE, hatch=hatch)
        box.set(linewidth=0.8, zorder=2)
        axes.add_patch(box)


def write_labels(axes: Axes, bands: Sequence[Band], labels: Sequence[str]) -> None:
    """Write the labels into the bands of the strip."""
    for band, label in zip(bands, labels, strict=True):
        if label:
            middle = (band.left + band.right) / 2
            # The ground behind the letters keeps them readable over a hatched band.
            ground = {"facecolor": "#ffffffb0", "edgecolor": "none", "pad": 1.0} if band.row.status == "open" else None
            axes.text(middle, 0.47, label, ha="center", va="center", size=LABEL_SIZE, color=INK, zorder=4, bbox=ground)


def shade(axes: Axes, stretches: Sequence[tuple[float, float]]) -> None:
    """Shade the fits behind a panel's curves, every other one darker."""
    for first in (0, 1):
        spans = [(left, right - left) for left, right in stretches[first::2]]
        below = axes.get_xaxis_transform()
        axes.broken_barh(spans, (0, 1), transform=below, facecolor=SHADES[first], alpha=0.65, zorder=0)


def draw_lines(axes: Axes, marks: Sequence[Mark], tops: Sequence[float]) -> None:
    """Draw a line for every event, from the bottom of the axes to its top (1 is the height of the axes)."""
    for text in dict.fromkeys(mark.text for mark in marks):
        places = [(mark.at, top) for mark, top in zip(marks, tops, strict=True) if mark.text == text]
        axes.vlines(
            [at for at, _ in places],
            0,
            [top for _, top in places],
            transform=axes.get_xaxis_transform(),
            colors=COLOURS[text],
            linestyles=DASHES.get(text, DOTTED),
            linewidth=1.2 if len(marks) <= 20 else 0.7,
            zorder=2.5,
        )


def draw_mark_labels(axes: Axes, marks: Sequence[Mark], rows: Sequence[tuple[int, bool]]) -> None:
    """Write what happened beside the lines in the strip."""
    count = max(row for row, _ in rows) + 1
    for mark, (row, leftwards) in zip(marks, rows, strict=True):
        axes.annotate(
            mark.text,
            (mark.at, (row + 0.5) / count),
            xytext=(-3 if leftwards else 3, 0),
            textcoords="offset points",
            ha="right" if leftwards else "left",
            va="center",
            size=LABEL_SIZE,
            color=COLOURS[mark.text],
        )


def draw_mark_legend(axes: Axes, marks: Sequence[Mark]) -> None:
    """Name the lines in one row with counts, where there are too many for labels."""
    counts = Counter(mark.text for mark in marks)
    handles = [
        Line2D([], [], color=COLOURS[text], linestyle=DASHES.get(text, DOTTED), label=f"{text} ({count})")
        for text, count in counts.items()
    ]
    axes.legend(
        handles=handles,
        loc="center left",
        bbox_to_anchor=(0, 0.5),
        ncols=len(handles),
        frameon=False,
        fontsize=LABEL_SIZE,
        borderpad=0,
        handlelength=1.8,
    )
