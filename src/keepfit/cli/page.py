"""Where the command writes: rich in a terminal, plain text elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from keepfit.history.table import Column, fitted, plain_table

if TYPE_CHECKING:
    from rich.console import Console

STATUS_STYLES = {"finished": "green", "stopped": "cyan", "open": "yellow", "closed": "dim"}


class Page(Protocol):
    """What a subcommand can write."""

    def heading(self, text: str) -> None:
        """Begin a section."""
        ...

    def line(self, text: str) -> None:
        """Write one line; it is broken between words where the page is narrow."""
        ...

    def table(self, columns: Sequence[Column]) -> None:
        """Write a table; numbers are never cut."""
        ...


class PlainPage:
    """Plain text without a width, for files and pipes."""

    def __init__(self) -> None:
        self._begun = False

    def heading(self, text: str) -> None:
        """Begin a section."""
        self._write(f"\n{text}" if self._begun else text)
        self._begun = True

    def line(self, text: str) -> None:
        """Write one line."""
        self._write(f"  {text}")

    def table(self, columns: Sequence[Column]) -> None:
        """Write a table with all its columns."""
        for row in plain_table(columns).splitlines():
            self._write(f"  {row}")

    def _write(self, text: str) -> None:
        sys.stdout.write(text + "\n")


class RichPage:
    """A terminal, with colours where it has them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begun = False

    def heading(self, text: str) -> None:
        """Begin a section."""
        from rich.text import Text

        if self._begun:
            self._console.print()
        self._begun = True
        self._console.print(Text(text, style="bold"))

    def line(self, text: str) -> None:
        """Write one line, its continuation indented."""
        self._write(text)

    def table(self, columns: Sequence[Column]) -> None:
        """Write the columns that fit, and say which were left out."""
        from rich.table import Table
        from rich.text import Text

        shown = fitted(columns, self._console.width - 2)
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("", width=0)
        for column in shown:
            table.add_column(column.title, justify="right" if column.right else "left", no_wrap=True)
        for cells in zip(*(column.cells for column in shown), strict=True):
            texts = [Text(cell, style=STATUS_STYLES.get(cell, "")) for cell in cells]
            table.add_row("", *texts)
        # As wide as it needs to be: rich would otherwise cut cells of a table too wide for the terminal.
        self._console.print(table, width=10_000, no_wrap=True, overflow="ignore", crop=False)
        titles = {column.title for column in shown}
        left_out = [column.title for column in columns if column.title not in titles]
        if left_out:
            self._write(f"(wider terminals also show: {', '.join(left_out)})", style="dim")

    def _write(self, text: str, style: str = "") -> None:
        from rich.padding import Padding
        from rich.text import Text

        self._console.print(Padding(Text(text, style=style), (0, 0, 0, 2), expand=False))


def page() -> Page:
    """Return the page for where standard output goes."""
    if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        return PlainPage()
    from rich.console import Console

    return RichPage(Console(highlight=False, markup=False, emoji=False, width=shutil.get_terminal_size().columns))
