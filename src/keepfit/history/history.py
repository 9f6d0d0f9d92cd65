"""All fits of a run, read as one."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keepfit.errors import InvalidArgument
from keepfit.extras import load_extra
from keepfit.history.lineage import Lineage
from keepfit.history.rows import FitRow, fit_rows
from keepfit.history.table import counted, fit_columns, html_table, number, plain_table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from keepfit.journal import Reader
    from keepfit.journal.records import CheckpointRecord, EpochRecord, EventRecord, FitRecord

FRAME_COLUMNS = ("fit", "name", "epoch", "label", "step", "samples", "learning_rate", "seconds")
ROWS_IN_HTML = 20


class History:
    """All fits of a run read as one; what was read once does not change.

    ``len(history)`` counts the fits, and a loop over it gives their rows.

    Args:
        fits: Fits of the run's timeline, and possibly of closed branches.
        epochs: Their finished epochs; those of closed branches count for the rows in `closed` alone.
        events: What happened, oldest first.
        closed: Fits of closed branches.
        checkpoints: The checkpoints that are kept.
        lineage: Where the run was forked from, if it was.
        directory: Folder of the run, for titles; None in memory.

    Attributes:
        fits: One row a fit of the timeline, by number.
        closed: One row a fit of the closed branches, by branch and number.
        epochs: The finished epochs of the timeline, oldest first.
        events: What happened.
        checkpoints: The checkpoints that are kept.

    Example:
        >>> History([], [])
        History(no fits)
    """

    def __init__(
        self,
        fits: Iterable[FitRecord],
        epochs: Iterable[EpochRecord],
        events: Iterable[EventRecord] = (),
        *,
        closed: Iterable[FitRecord] = (),
        checkpoints: Iterable[CheckpointRecord] = (),
        lineage: Lineage | None = None,
        directory: str | PathLike[str] | None = None,
    ) -> None:
        self._fits = (*fits, *closed)
        self._epochs = tuple(epochs)
        rows = fit_rows(self._fits, sorted(self._epochs, key=lambda epoch: epoch.epoch))
        self.fits: tuple[FitRow, ...] = tuple(row for row in rows if row.branch == 0)
        self.closed: tuple[FitRow, ...] = tuple(row for row in rows if row.branch != 0)
        self.epochs: tuple[EpochRecord, ...] = tuple(
            sorted((epoch for epoch in self._epochs if epoch.branch == 0), key=lambda epoch: epoch.epoch)
        )
        self.events: tuple[EventRecord, ...] = tuple(events)
        self.checkpoints: tuple[CheckpointRecord, ...] = tuple(checkpoints)
        self.lineage = lineage
        self.directory = directory

    @classmethod
    def read(cls, directory: str | PathLike[str]) -> History:
        """Read the history of a run folder, without Keras or a backend, also while another process writes there.

        Raises:
            NotARun: The folder holds something else.
            FormatTooNew: It was written by a newer keepfit.
            RunFolderError: Its journal cannot be read.
        """
        from keepfit.journal import Reader

        with Reader.open(Path(directory)) as reader:
            return cls.from_journal(reader, directory)

    @classmethod
    def from_journal(cls, reader: Reader, directory: str | PathLike[str]) -> History:
        """Return the history in an open journal, that of closed branches included.

        Args:
            reader: The journal.
            directory: Its folder, for titles.
        """
        lineage = reader.meta().get("lineage")
        return cls(
            reader.fits(branch=None),
            reader.epochs(branch=None),
            reader.events(),
            checkpoints=reader.checkpoints(),
            lineage=Lineage.from_json(lineage) if lineage else None,
            directory=directory,
        )

    def __len__(self) -> int:
        return len(self.fits)

    def __iter__(self) -> Iterator[FitRow]:
        return iter(self.fits)

    @property
    def records(self) -> tuple[FitRecord, ...]:
        """What the journal has on each fit, those of closed branches included."""
        return self._fits

    @property
    def metrics(self) -> list[str]:
        """Names of all metrics, in the order in which they first appeared."""
        return list(dict.fromkeys(name for epoch in self.epochs for name in epoch.logs))

    @property
    def logs(self) -> dict[str, list[float | None]]:
        """Every metric over all epochs of the run, None where an epoch has no value of it."""
        return {name: [epoch.logs.get(name) for epoch in self.epochs] for name in self.metrics}

    @property
    def learning_rates(self) -> list[float | None]:
        """The rate each epoch was trained with, None where it is not one number.

        That is what a callback logged as ``learning_rate``, else the rate at the epoch's end.
        """
        return [epoch.logs.get("learning_rate", epoch.learning_rate) for epoch in self.epochs]

    @property
    def steps(self) -> int:
        """Steps in all finished epochs."""
        return sum(row.steps for row in self.fits)

    @property
    def samples(self) -> int:
        """Samples trained on in all finished epochs."""
        return sum(row.samples for row in self.fits)

    @property
    def seconds(self) -> float:
        """Time spent in all finished epochs."""
        return math.fsum(row.seconds for row in self.fits)

    def fit(self, which: int | str) -> History:
        """Return the history of one fit alone.

        Args:
            which: Its number, from 1, or its name; of several fits of one name, the last.

        Raises:
            InvalidArgument: There is no such fit.
        """
        found = [row.number for row in self.fits if which in (row.number, row.name)]
        if not found:
            there = ", ".join(f"{row.number} ({row.name!r})" if row.name else str(row.number) for row in self.fits)
            raise InvalidArgument(f"The history has no fit {which!r}. It has: {there or 'no fits'}.", fit=which)
        return History(
            [fit for fit in self._fits if fit.branch == 0 and fit.number == found[-1]],
            [epoch for epoch in self.epochs if epoch.fit == found[-1]],
            [event for event in self.events if event.fit == found[-1]],
            checkpoints=[checkpoint for checkpoint in self.checkpoints if checkpoint.fit == found[-1]],
            lineage=self.lineage,
            directory=self.directory,
        )

    def frame(self) -> pd.DataFrame:
        """Return a pandas frame with one row an epoch.

        The columns are ``fit``, ``name``, ``epoch`` (index over the run, from 0), ``label`` (the number that
        callbacks saw), ``step`` and ``samples`` (the run's finished ones after the epoch), ``learning_rate``
        (at its end), ``seconds`` and the metrics; a metric whose name is one of these is called ``logs.<name>``.

        Raises:
            ImportError: pandas is not installed; the message has the line that installs it.
        """
        frames = load_extra("pandas", extra="frames", purpose="History.frame()")
        columns = self._facts()
        for name, values in self.logs.items():
            title = f"logs.{name}" if name in FRAME_COLUMNS else name
            columns[title] = [math.nan if value is None else value for value in values]
        frame: pd.DataFrame = frames.DataFrame(columns)
        return frame

    def table(self, width: int | None = None) -> str:
        """Return the table of fits as plain text, one line a fit.

        Args:
            width: Characters there are in a line; where they do not suffice, names are shortened and the
                less telling columns left out. None for as many as it takes.
        """
        return plain_table(fit_columns(self.fits), width=width) if self.fits else "no fits"

    def plot(self, path: str | PathLike[str] | None = None) -> Figure:
        """Return the picture of the run, written to `path` if one is given; see `keepfit.history.plot`."""
        from keepfit.history.plot import plot

        return plot(self, path)

    def _facts(self) -> dict[str, list[Any]]:
        names = {row.number: row.name for row in self.fits}
        return {
            "fit": [epoch.fit for epoch in self.epochs],
            "name": [names.get(epoch.fit) for epoch in self.epochs],
            "epoch": [epoch.epoch for epoch in self.epochs],
            "label": [epoch.label for epoch in self.epochs],
            "step": [epoch.step for epoch in self.epochs],
            "samples": [epoch.samples for epoch in self.epochs],
            "learning_rate": [
                math.nan if epoch.learning_rate is None else epoch.learning_rate for epoch in self.epochs
            ],
            "seconds": [epoch.seconds for epoch in self.epochs],
        }

    def __repr__(self) -> str:
        if not self.fits:
            return "History(no fits)"
        last = self.epochs[-1].logs if self.epochs else {}
        values = ", ".join(f"{name} {number(last[name])}" for name in ("loss", "val_loss") if name in last)
        counts = (
            f"{counted(len(self.fits), 'fit')}, {counted(len(self.epochs), 'epoch')}, {counted(self.steps, 'step')}"
        )
        return f"History({counts}{': ' if values else ''}{values})"

    def _repr_html_(self) -> str:
        caption = html.escape(repr(self)[len("History(") : -1])
        if not self.fits:
            return f"<p>{caption}</p>"
        rows = self.fits[-ROWS_IN_HTML:]
        hidden = len(self.fits) - len(rows)
        note = f"<p>{counted(hidden, 'earlier fit')} not shown</p>" if hidden else ""
        return f"<p>{caption}</p>{html_table(fit_columns(rows))}{note}"
