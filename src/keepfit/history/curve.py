"""One curve over a logarithmic axis, with a place marked."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg

from keepfit.history.panels import RATE, TRAIN
from keepfit.history.picture import STYLE, Picture

# Values above so much of the curve's own range are cut off: a loss that explodes would flatten all else.
_HEADROOM = 0.35


def draw_curve(
    places: Sequence[float],
    values: Sequence[float],
    *,
    smoothed: Sequence[float],
    marked: float | None,
    x: str,
    y: str,
) -> Picture:
    """Return a picture of values over places.

    Args:
        places: Above 0, rising.
        values: One a place, drawn thin.
        smoothed: One a place, drawn bold.
        marked: A place to mark with a line and its number, or None.
        x: What the places are.
        y: What the values are.
    """
    with rc_context(STYLE):
        figure = Picture(figsize=(7.0, 3.6), dpi=130, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.plot(places, values, color=TRAIN, alpha=0.3, linewidth=0.9, label=f"{y} of each step")
        axes.plot(places, smoothed, color=TRAIN, linewidth=1.9, label="smoothed")
        axes.set_xscale("log")
        if smoothed:
            low, first = min(smoothed), smoothed[0]
            room = _HEADROOM * max(first - low, abs(first) * 0.1)
            axes.set_ylim(min(low, *values) - room / 4, max(first, low) + room)
        if marked is not None:
            axes.axvline(marked, color=RATE, linewidth=1.2, linestyle=(0, (4, 2)), label=f"suggestion: {marked:.3g}")
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.legend(frameon=False, loc="best")
    return figure
