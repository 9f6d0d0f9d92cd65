"""How a picture is laid out: title, strip of fits, panels of metrics, learning rate."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import MaxNLocator

from keepfit.history import strip
from keepfit.history.panels import draw_metrics, draw_rate, metric_panels, plain_label
from keepfit.history.table import counted, duration

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from keepfit.history.history import History
    from keepfit.history.timeline import Timeline

WIDTH_IN = 10.0
BOTTOM_IN, TITLE_IN = 0.55, 0.62
LEFT_LEAST_IN, LABEL_IN, SPACE_IN = 0.75, 0.26, 0.2
BAND_IN, MARK_ROW_IN, PANEL_IN, RATE_IN, GAP_IN = 0.24, 0.19, 2.1, 1.0, 0.14
DPI = 130
STYLE: Any = {
    "text.usetex": False,
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.edgecolor": "#8b97a3",
    "axes.labelcolor": strip.INK,
    "text.color": strip.INK,
    "xtick.color": "#56626e",
    "ytick.color": "#56626e",
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@contextmanager
def _any_script() -> Iterator[None]:
    # A name in a script that the font lacks is drawn as boxes; that is no reason to warn or fail.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


class Picture(Figure):
    """A matplotlib figure that shows itself in a notebook and needs no display."""

    def write(self, path: str | PathLike[str]) -> None:
        """Write the picture; the ending of `path` tells the format."""
        with _any_script():
            self.savefig(Path(path), dpi=DPI)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        with _any_script():
            self.savefig(buffer, format="png", dpi=DPI)
        return buffer.getvalue()


def draw(history: History, line: Timeline) -> Picture:
    """Return the picture of a history on a timeline."""
    with rc_context(STYLE), _any_script():
        return _Layout(history, line).draw()


class _Layout:
    """One picture while it is drawn; every length is in inches, from the top of the page down."""

    def __init__(self, history: History, line: Timeline) -> None:
        self.history = history
        self.line = line
        self.panels = metric_panels(history.logs, [epoch.fit for epoch in history.epochs])
        self.rates = history.learning_rates
        self.figure = Picture(figsize=(WIDTH_IN, 6), facecolor="white")
        self.canvas = FigureCanvasAgg(self.figure)
        self.font = FontProperties(size=strip.LABEL_SIZE)

    def draw(self) -> Picture:
        panels = [self._axes() for _ in self.panels]
        for axes, panel in zip(panels, self.panels, strict=True):
            draw_metrics(axes, panel, self.line.ends)
        heights = [PANEL_IN] * len(panels)
        if any(rate is not None for rate in self.rates):
            panels.append(self._axes())
            draw_rate(panels[-1], self.line.starts, self.line.ends, self.rates)
            heights.append(RATE_IN)
        self._finish(panels)
        self.left_in = max(self._axis_width(panels) + SPACE_IN, LEFT_LEAST_IN)
        self.width_in = WIDTH_IN - self.left_in - self._legend_width(panels)
        self._place(panels, heights)
        return self.figure

    def _axes(self) -> Axes:
        axes = self.figure.add_axes((0.1, 0.1, 0.6, 0.6))
        span = self.line.right - self.line.left
        axes.set_xlim(self.line.left - 0.01 * span, self.line.right + 0.01 * span)
        return axes

    def _renderer(self) -> Any:
        return self.canvas.get_renderer()  # type: ignore[no-untyped-call]  # matplotlib has no type for it

    def _axis_width(self, panels: Sequence[Axes]) -> float:
        renderer = self._renderer()
        boxes = [axes.yaxis.get_tightbbox(renderer) for axes in panels]
        return max((box.width / self.figure.dpi for box in boxes if box), default=0.0)

    def _legend_width(self, panels: Sequence[Axes]) -> float:
        renderer = self._renderer()
        legends = [axes.get_legend() for axes in panels]
        widths = [legend.get_window_extent(renderer).width / self.figure.dpi for legend in legends if legend]
        return max(widths, default=0.0) + SPACE_IN

    def _text_width(self, text: str) -> float:
        width, _, _ = self._renderer().get_text_width_height_descent(text, self.font, ismath=False)
        return float(width) * 72 / self.figure.dpi

    def _place(self, panels: Sequence[Axes], heights: Sequence[float]) -> None:
        span = (self.line.right - self.line.left) * 1.02
        scale = self.width_in * 72 / span
        marks = self.line.marks
        limit = self.line.right * scale + (WIDTH_IN - self.left_in - self.width_in) * 72
        rows = strip.mark_rows(marks, self._text_width, scale, limit)
        row_count = 0 if not marks else 1 if rows is None else max(row for row, _ in rows) + 1
        top = TITLE_IN + row_count * MARK_ROW_IN
        total = top + BAND_IN + GAP_IN + sum(heights) + GAP_IN * (len(heights) - 1) + BOTTOM_IN
        self.figure.set_size_inches(WIDTH_IN, total)

        def box(upper: float, height: float) -> tuple[float, float, float, float]:
            bottom = total - upper - height
            return self.left_in / WIDTH_IN, bottom / total, self.width_in / WIDTH_IN, height / total

        self._draw_strip(box(top, BAND_IN), scale)
        for axes in panels:
            strip.shade(axes, strip.drawn_bands(self.line.bands, scale))
        if marks:
            self._draw_marks(box(TITLE_IN, row_count * MARK_ROW_IN), rows)
        upper = top + BAND_IN + GAP_IN / 2
        for axes, height in zip(panels, heights, strict=True):
            axes.set_position(box(upper, height))
            axes.yaxis.set_label_coords((LABEL_IN - self.left_in) / self.width_in, 0.5)
            upper += height + GAP_IN
        self._write_title(total)

    def _draw_strip(self, box: tuple[float, float, float, float], scale: float) -> None:
        axes = self._axes()
        axes.set_position(box)
        axes.set_ylim(0, 1)
        axes.set_axis_off()
        bands = self.line.bands
        if bands:
            strip.draw_bands(axes, strip.drawn_bands(bands, scale), unfinished=bands[-1].row.status == "open")
            strip.write_labels(axes, bands, strip.band_labels(bands, self._text_width, scale))

    def _draw_marks(self, box: tuple[float, float, float, float], rows: list[tuple[int, bool]] | None) -> None:
        axes = self._axes()
        axes.set_position(box)
        axes.set_ylim(0, 1)
        axes.set_axis_off()
        if rows is None:
            strip.draw_mark_legend(axes, self.line.marks)
            return
        count = max(row for row, _ in rows) + 1
        strip.draw_lines(axes, self.line.marks, [(row + 0.9) / count for row, _ in rows])
        strip.draw_mark_labels(axes, self.line.marks, rows)

    def _finish(self, panels: Sequence[Axes]) -> None:
        for axes in panels:
            strip.draw_lines(axes, self.line.marks, [1.0] * len(self.line.marks))
            axes.grid(axis="y", color="#d5dce3", linewidth=0.6, zorder=1)
            axes.set_axisbelow(True)
            axes.tick_params(labelbottom=axes is panels[-1], length=3)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
        if not self.line.ends:
            panels[0].set_yticks([])
            panels[0].text(0.5, 0.5, "no finished epochs yet", transform=panels[0].transAxes, ha="center", va="center")
        panels[-1].set_xlabel(f"finished {self.line.unit} of the run")

    def _write_title(self, total: float) -> None:
        history = self.history
        name = Path(history.directory).name if history.directory else "Run"
        counts = (counted(len(history), "fit"), counted(len(history.epochs), "epoch"), counted(history.steps, "step"))
        facts = " · ".join((*counts, duration(history.seconds)))
        if history.lineage:
            facts += f" · {history.lineage}"
        left = self.left_in / WIDTH_IN
        self.figure.text(left, 1 - 0.13 / total, plain_label(name, 60), size=12.5, weight="bold", va="top")
        self.figure.text(left, 1 - 0.37 / total, plain_label(facts, 110), size=9, va="top", color="#56626e")
