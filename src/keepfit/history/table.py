"""Plain tables that never cut a number."""

from __future__ import annotations

import html
import math
import time
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keepfit.history.rows import FitRow

GAP = 2
SHORTEST_TEXT = 8
# Which of a fit's metrics stand in its row: as many as a person compares at a glance.
METRICS_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Args:
        title: Its heading.
        cells: One text a row.
        right: Whether it is set to the right, as numbers are.
        rank: Columns of a higher rank are left out first where the table is too wide; those of rank 0 stay.
        text: Whether its cells may be shortened; numbers never are.
    """

    title: str
    cells: tuple[str, ...]
    right: bool = False
    rank: int = 0
    text: bool = False

    @property
    def width(self) -> int:
        """Width of the widest cell, in characters of a terminal."""
        return max(map(cell_width, (self.title, *self.cells)))


def cell_width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    marks = sum(unicodedata.combining(character) > 0 for character in text)
    return len(text) + wide - marks


def clean(text: str) -> str:
    """Return a text on one line, with nothing in it that a terminal would obey."""
    return "".join(character if character.isprintable() else " " for character in text).strip()


def shortened(text: str, width: int) -> str:
    """Return a text of at most `width` columns, ending in ``...`` where some of it was left out."""
    if cell_width(text) <= width:
        return text
    kept = text
    while kept and cell_width(kept) > width - 3:
        kept = kept[:-1]
    return kept.rstrip() + "..."


def counted(count: int, thing: str) -> str:
    """Return a count with its thing: ``1 fit``, ``2,000 fits``."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def number(value: float | None) -> str:
    """Return a metric in at most ten characters, ``-`` for none."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return str(float(value))
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4f}"
    return f"{value:.3e}"


def rate(value: float | None) -> str:
    """Return a learning rate, ``-`` where it is not one number."""
    return "-" if value is None else f"{value:.4g}"


def duration(seconds: float) -> str:
    """Return a time span as a person says it: ``0.31 s``, ``12.3 s``, ``4:05``, ``2:03:09``."""
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def moment(seconds: float) -> str:
    """Return a Unix time as local date and time, to the minute."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def metrics_shown(names: Iterable[str]) -> list[str]:
    """Return the metrics that stand in a fit's row.

    The losses come first, then the first other metric with its validation value.
    """
    present = list(names)
    losses = [name for name in ("loss", "val_loss") if name in present]
    rest = [name for name in present if name not in {"loss", "val_loss", "learning_rate"}]
    bases = list(dict.fromkeys(name.removeprefix("val_") for name in rest))
    chosen = [name for base in bases for name in (base, f"val_{base}") if name in rest]
    return (losses + chosen)[:METRICS_SHOWN]


def fit_columns(rows: Sequence[FitRow]) -> list[Column]:
    """Return the table of fits as columns, most telling first."""
    names = dict.fromkeys(name for row in rows for name in row.logs)

    def column(title: str, cells: Iterable[str], *, right: bool = True, rank: int = 0, text: bool = False) -> Column:
        return Column(title, tuple(cells), right=right, rank=rank, text=text)

    columns = [column("fit", (str(row.number) for row in rows))]
    if any(row.name for row in rows):
        columns.append(column("name", (clean(row.name or "") for row in rows), right=False, text=True))
    columns += [
        column("status", (row.status for row in rows), right=False),
        column("phase", (row.phase or "-" for row in rows), right=False, rank=3),
        column("epochs", (f"{row.epochs}/{row.planned}" for row in rows)),
        column("steps", (str(row.steps) for row in rows), rank=1),
        column("rate", (rate(row.learning_rate) for row in rows), rank=1),
    ]
    # loss and val_loss stay longest, the second validation metric goes first.
    columns += [
        column(clean(name), (number(row.logs.get(name)) for row in rows), rank=rank, text=False)
        for name, rank in zip(metrics_shown(names), (0, 0, 2, 4), strict=False)
    ]
    columns += [
        column("started", (moment(row.started) for row in rows), right=False, rank=5),
        column("time", (duration(row.seconds) for row in rows), rank=2),
    ]
    return columns


def fitted(columns: Sequence[Column], width: int | None) -> list[Column]:
    """Return the columns that fit into a width.

    Texts are shortened first, then whole columns left out, highest rank first;
    a number is never cut, so that a very narrow terminal gets a table wider
    than itself.

    Args:
        columns: All columns.
        width: Characters there are, or None for as many as it takes.
    """
    chosen = list(columns)
    while width is not None and _total(chosen) > width:
        squeezed = _squeezed(chosen, width)
        if _total(squeezed) <= width:
            return squeezed
        highest = max(column.rank for column in chosen)
        if highest == 0:
            return squeezed
        last = max(index for index, column in enumerate(chosen) if column.rank == highest)
        del chosen[last]
    return chosen


def plain_table(columns: Sequence[Column], *, width: int | None = None) -> str:
    """Return a table as plain text, one line a row, without a line break at its end."""
    chosen = fitted(columns, width)
    widths = [column.width for column in chosen]
    height = len(chosen[0].cells) if chosen else 0
    titles = [column.title for column in chosen]
    lines = [titles, *([column.cells[row] for column in chosen] for row in range(height))]
    return "\n".join(
        (" " * GAP)
        .join(_set(cell, size, right=column.right) for cell, size, column in zip(line, widths, chosen, strict=True))
        .rstrip()
        for line in lines
    )


def html_table(columns: Sequence[Column]) -> str:
    """Return a table as HTML for a notebook."""

    def line(tag: str, texts: Iterable[str]) -> str:
        cells = (
            f'<{tag} style="text-align:{"right" if column.right else "left"}">{html.escape(text)}</{tag}>'
            for column, text in zip(columns, texts, strict=True)
        )
        return f"<tr>{''.join(cells)}</tr>"

    head = line("th", (column.title for column in columns))
    body = "".join(line("td", texts) for texts in zip(*(column.cells for column in columns), strict=True))
    return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"


def _set(text: str, width: int, *, right: bool) -> str:
    space = " " * (width - cell_width(text))
    return space + text if right else text + space


def _total(columns: Sequence[Column]) -> int:
    return sum(column.width for column in columns) + GAP * max(len(columns) - 1, 0)


def _squeezed(columns: Sequence[Column], width: int) -> list[Column]:
    squeezed = list(columns)
    for index, column in enumerate(squeezed):
        excess = _total(squeezed) - width
        if column.text and excess > 0:
            room = max(column.width - excess, SHORTEST_TEXT, cell_width(column.title))
            squeezed[index] = replace(column, cells=tuple(shortened(cell, room) for cell in column.cells))
    return squeezed
