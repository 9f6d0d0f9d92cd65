"""The picture of a matrix of values: what each set came to, fit after fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.ticker import MaxNLocator

from keepfit.history.panels import HUES
from keepfit.history.picture import STYLE, Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

# Up to so many rows and columns, cells have their value written in them.
_MOST_WRITTEN = 14
_MOST_LABELS = 24
_LONGEST = 14


def draw_matrix(
    matrix: NDArray[np.float64],
    *,
    there: NDArray[np.bool_],
    rows: Sequence[str],
    columns: Sequence[str],
    metric: str,
    more_is_better: bool,
    title: str,
) -> Picture:
    """Return a picture: the matrix as cells, and each column as a line over the rows.

    Args:
        matrix: Values, shape ``(fits, sets)``; NaN where there is none.
        there: Whether the set had come by then; a cell that has come and has no value is grey.
        rows: Names of the fits.
        columns: Names of the sets.
        metric: What the values are.
        more_is_better: Whether higher values are better; the better, the darker.
        title: A sentence above.
    """
    with rc_context(STYLE):
        cell = 0.62 if max(matrix.shape) <= _MOST_WRITTEN else 0.3
        height = min(9.0, max(3.2, 1.6 + cell * len(rows)))
        left = min(8.0, max(3.4, 1.7 + cell * 1.15 * len(columns)))
        figure = Picture(figsize=(left + 4.6, height), dpi=130, layout="constrained")
        FigureCanvasAgg(figure)
        cells, lines = figure.subplots(1, 2, width_ratios=(left, 4.6))
        _draw_cells(cells, matrix, there, more_is_better=more_is_better)
        _label(cells.xaxis, columns, rotated=len(columns) > 4)
        _label(cells.yaxis, rows)
        cells.set_xlabel("on the validation set of")
        cells.set_ylabel("after")
        _draw_lines(lines, matrix, columns)
        _label(lines.xaxis, rows, rotated=len(rows) > 4, most=_MOST_WRITTEN)
        lines.set_xlabel("after")
        lines.set_ylabel(metric)
        figure.suptitle(title, fontsize=10.5, x=0.01, ha="left")
    return figure


def _draw_cells(axes: Axes, matrix: NDArray[np.float64], there: NDArray[np.bool_], *, more_is_better: bool) -> None:
    shown = np.ma.masked_invalid(matrix)
    unknown = np.ma.masked_where(~(there & np.isnan(matrix)), np.full(matrix.shape, 0.12))
    axes.imshow(unknown, cmap="Greys", vmin=0, vmax=1, aspect="auto")
    image = axes.imshow(shown, cmap="Blues" if more_is_better else "Blues_r", aspect="auto")
    known = matrix[np.isfinite(matrix)]
    if more_is_better and known.size and known.min() >= 0 and known.max() <= 1:
        image.set_clim(0, 1)  # a share: small differences stay small
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    if max(matrix.shape) > _MOST_WRITTEN:
        return
    low, high = image.get_clim()
    for (row, column), value in np.ndenumerate(matrix):
        if not math.isfinite(value):
            if there[row, column]:
                axes.text(column, row, "?", ha="center", va="center", color="#56626e")
            continue
        share = 0.5 if high == low else (value - low) / (high - low)
        dark = share > 0.55 if more_is_better else share < 0.45
        axes.text(column, row, f"{value:.3g}", ha="center", va="center", color="white" if dark else "#22303c")


def _draw_lines(axes: Axes, matrix: NDArray[np.float64], columns: Sequence[str]) -> None:
    places = np.arange(len(matrix))
    if len(columns) <= len(HUES):
        for column, name in enumerate(columns):
            hue = HUES[column]
            axes.plot(places, matrix[:, column], color=hue, marker="o", markersize=4, linewidth=1.7, label=_short(name))
        axes.legend(frameon=False, loc="best", title="set of")
    else:  # so many lines tell more together than apart
        for column in range(len(columns)):
            axes.plot(places, matrix[:, column], color="#8b97a3", linewidth=0.7, alpha=0.6)
        known = np.isfinite(matrix)
        means = np.full(len(matrix), np.nan)
        np.divide(np.where(known, matrix, 0).sum(axis=1), known.sum(axis=1), out=means, where=known.any(axis=1))
        axes.plot(
            places, means, color=HUES[0], marker="o", markersize=4, linewidth=2.2, label="mean of the sets so far"
        )
        axes.legend(frameon=False, loc="best")
    axes.margins(x=0.08, y=0.1)


def _label(axis: Any, names: Sequence[str], *, rotated: bool = False, most: int = _MOST_LABELS) -> None:
    step = -(-len(names) // most)
    places = range(0, len(names), step)
    axis.set_major_locator(MaxNLocator(integer=True))
    axis.set_ticks(places, [_short(names[place]) for place in places])
    if rotated:
        for label in axis.get_ticklabels():
            label.set(rotation=40, ha="right", rotation_mode="anchor")


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
