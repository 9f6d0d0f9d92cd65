"""One live line for a fit, in a terminal or a notebook."""

from __future__ import annotations

import html
import importlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from rich import get_console
from rich.cells import cell_len
from rich.errors import LiveError
from rich.live import Live
from rich.text import Text

from keepfit.callbacks.progress import PATIENCE_S, Logs, PlainProgress, Progress, frozen_place, printed, shown

_BETWEEN_DRAWINGS_S = 0.15
_BAR_WIDTHS = (24, 12, 8)
# In a narrower window there is no room for a bar.
_NARROW = 60
# The metrics that are left out last.
_LOSSES = ("loss", "val_loss")
# The newest measurement's weight in the pace that is shown.
_NEWEST = 0.3


@dataclass(frozen=True)
class Line:
    """What is shown, in the order in which it is.

    Args:
        title: Which fit.
        share: Part of the fit that is done, from 0 to 1; None where its length is unknown.
        place: Where in the fit.
        left: Remaining time; at the end the time it took.
        pace: How long a step takes.
        metrics: Each a text that begins with its name.
        final: It stays when the fit is over.
    """

    title: str
    share: float | None
    place: str
    left: str = ""
    pace: str = ""
    metrics: tuple[str, ...] = ()
    final: bool = False

    def parts(self) -> list[str]:
        """Return the texts behind the bar."""
        return [part for part in (self.place, self.left, self.pace, *self.metrics) if part]


@dataclass
class Clock:
    """How fast steps go, and how long the rest takes.

    The first measurement is left out, for it holds the compilation.

    Args:
        now: Returns seconds.
    """

    now: Callable[[], float] = time.perf_counter
    began: float = field(init=False)
    per_step_s: float | None = field(init=False, default=None)
    _mark: tuple[float, int] | None = field(init=False, default=None)
    _origin: tuple[float, int] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.began = self.now()

    def mark(self, done: int) -> None:
        """Begin a stretch of steps; what lies between two stretches counts for the rest, not for the pace."""
        if self._origin is not None:
            self._mark = (self.now(), done)

    def note(self, done: int) -> None:
        """Note that ``done`` steps of the fit are finished."""
        now = self.now()
        if self._origin is None:
            self._origin = self._mark = (now, done)
            return
        if self._mark is not None and done > self._mark[1] and now > self._mark[0]:
            newest = (now - self._mark[0]) / (done - self._mark[1])
            before = self.per_step_s
            self.per_step_s = newest if before is None else before + _NEWEST * (newest - before)
            self._mark = (now, done)

    def left_s(self, done: int, total: int) -> float | None:
        """Return how long the rest takes, validation included; None where that is not known yet."""
        if self._origin is None or done <= self._origin[1]:
            return None
        return (self.now() - self._origin[0]) / (done - self._origin[1]) * max(0, total - done)


class Bar(Progress):
    """What both kinds of bar have in common; a kind says how a line is put on the screen."""

    clock: Clock
    _open = False
    _next_drawing_s = 0.0
    _frozen: Line | None = None
    _frozen_since_s: float | None = None

    def features(self, done: int, total: int) -> None:
        """Show a line of its own where it takes long, and move it a few times a second."""
        now = time.perf_counter()
        if self._frozen_since_s is None:
            self._frozen_since_s = now
        seconds = now - self._frozen_since_s
        if seconds < PATIENCE_S:
            return
        if self._frozen is None:
            self._next_drawing_s = now
            self._start()
        left = _left(seconds / done * (total - done)) if done else ""
        self._frozen = Line(
            self.title, share=done / total if total else None, place=frozen_place(done, total), left=left
        )
        if now >= self._next_drawing_s:
            self._show(self._frozen)
            self._next_drawing_s = now + _BETWEEN_DRAWINGS_S

    def features_end(self) -> None:
        """Leave that line where it is."""
        line, since, self._frozen, self._frozen_since_s = self._frozen, self._frozen_since_s, None, None
        if line is None or since is None:
            return
        try:
            self._show(replace(line, left=_duration(time.perf_counter() - since), final=True))
        finally:
            self._stop()

    def begin(self, message: str | None = None) -> None:
        """Say the message, and start the bar below it."""
        super().begin(message)
        self.clock = Clock()
        self._label, self._step = self.first_epoch, 0
        self._logs: dict[str, Any] = {}
        self._next_drawing_s = 0.0
        self._doing = ""
        self._open = True
        self._start()

    def epoch_begin(self, label: int) -> None:
        """Show which epoch runs."""
        if self._open:
            self._label, self._step = label, 0
            self.clock.mark(self._done())
            self._draw_in_time()

    def update(self, step: int, logs: Callable[[], Logs] | Logs | None) -> None:
        """Move the bar, a few times a second."""
        self._step = step
        if not self._open or time.perf_counter() < self._next_drawing_s:
            return
        self.clock.note(self._done())
        given = logs() if callable(logs) else logs
        self._logs = {**self._logs, **(given or {})}
        self._draw()

    def validation(self) -> None:
        """Show that validation runs."""
        if self._open:
            self._doing = "validating"
            self._draw_in_time()
            self._doing = ""

    def epoch_end(self, label: int, logs: Logs, seconds: float) -> None:  # noqa: ARG002 - the interface
        """Show the epoch's metrics."""
        if self._open:
            self.steps = self.steps or self._step or None
            self._step, self._logs = self.steps or 0, dict(logs)
            if self.clock.per_step_s is None:
                self.clock.note(self._done())
            self._draw_in_time()

    def end(self, logs: Logs) -> None:
        """Leave the last epoch's metrics standing."""
        if self._open:
            self._logs = dict(logs) or self._logs
            self._finish()

    def abort(self) -> None:
        """Stop the bar where it is."""
        if self._open:
            self._finish(whole=False)

    def line(self, *, final: bool = False, whole: bool = True) -> Line:
        """Return what is to be shown now.

        Args:
            final: The fit is over.
            whole: Its last epoch was finished.
        """
        done, total = self._done(), self._total()
        place = f"epoch {self._label + 1}/{self.first_epoch + self.epochs}"
        if not (final and whole):
            place += f"  step {self._step}" + (f"/{self.steps}" if self.steps else "")
        per_step_s, left_s = self.clock.per_step_s, self.clock.left_s(done, total) if total else None
        return Line(
            title=self.title,
            share=min(1.0, done / total) if total else None,
            place=place,
            left=_duration(self.clock.now() - self.clock.began) if final else _left(left_s),
            pace=self._doing or ("" if per_step_s is None else _pace(per_step_s)),
            metrics=tuple(shown(self._logs)),
            final=final,
        )

    def _start(self) -> None:
        """Make room for the line."""

    def _show(self, line: Line) -> None:
        """Put the line where the one before was."""
        raise NotImplementedError

    def _stop(self) -> None:
        """Leave the line where it is, and everything else as before."""

    def _finish(self, *, whole: bool = True) -> None:
        self._open = False
        try:
            self._show(self.line(final=True, whole=whole))
        finally:
            self._stop()

    def _draw_in_time(self) -> None:
        if time.perf_counter() >= self._next_drawing_s:
            self._draw()

    def _draw(self) -> None:
        self._show(self.line())
        self._next_drawing_s = time.perf_counter() + _BETWEEN_DRAWINGS_S

    def _done(self) -> int:
        return (self._label - self.first_epoch) * (self.steps or 0) + self._step

    def _total(self) -> int | None:
        return self.steps * self.epochs if self.steps and self.epochs else None


class TerminalBar(Bar):
    """A line that rich draws again and again; what is printed meanwhile appears above it.

    It is drawn by the training thread, so that no other thread takes time from
    the training or is left behind.
    """

    _live: Live | None = None
    _plain: PlainProgress | None = None

    def say(self, message: str) -> None:
        """Print a line above the bar."""
        if self._live is None:
            printed(message)
        else:
            get_console().print(Text(message), soft_wrap=True)

    def epoch_end(self, label: int, logs: Logs, seconds: float) -> None:
        """Show the epoch's metrics."""
        super().epoch_end(label, logs, seconds)
        if self._plain is not None:
            self._plain.steps = self.steps
            self._plain.epoch_end(label, logs, seconds)

    def _start(self) -> None:
        errors: Any = sys.stderr
        # Errors that go to a file must stay there.
        redirect = bool(getattr(errors, "isatty", bool)())
        live = Live(console=get_console(), auto_refresh=False, redirect_stderr=redirect)
        try:
            live.start()
        except LiveError:  # the script has a live display of its own around this fit, and this rich shows one only
            self._plain = PlainProgress(
                fit=0, name=None, epochs=self.epochs, first_epoch=self.first_epoch, steps=self.steps
            )
            self._plain.title = self.title
            return
        self._live = live

    def _show(self, line: Line) -> None:
        if self._live is not None:
            console = get_console()
            text = drawn(line, width=console.width, ascii_only=console.options.ascii_only)
            self._live.update(text, refresh=True)

    def _stop(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()


class NotebookBar(Bar):
    """A line of a notebook's cell that is replaced; needs no widgets, and stays when the notebook is saved."""

    _handle: Any = None

    def say(self, message: str) -> None:
        """Print a line."""
        printed(message)

    def _show(self, line: Line) -> None:
        bundle = {"text/plain": drawn(line, width=1000, ascii_only=False).plain, "text/html": _html(line)}
        if self._handle is None:
            self._handle = importlib.import_module("IPython.display").display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)

    def _stop(self) -> None:
        self._handle = None


def drawn(line: Line, *, width: int, ascii_only: bool) -> Text:
    """Return a line no wider than a terminal.

    What is left out where there is little room: first some of the bar, then
    the pace, then metrics other than the losses, from the last one on, each
    as a whole; a line that stays gives up its bar before any metric.
    """
    dots = "..." if ascii_only else "…"
    bar_width, behind = 0, ""
    for bar_width, parts in _forms(line, dots, bars=width >= _NARROW and line.share is not None):
        behind = "  ".join(part for part in parts if part)
        if cell_len(line.title) + (bar_width + 2 if bar_width else 0) + 2 + cell_len(behind) < width:
            break
    text = Text(line.title, style="bold", no_wrap=True, overflow="ellipsis", end="")
    if bar_width and line.share is not None:
        filled = round(bar_width * line.share)
        full, rest = ("#", "-") if ascii_only else ("━", "━")
        text.append("  " + full * filled, style="not bold green")
        text.append(rest * (bar_width - filled), style="not bold bright_black")
    text.append("  " + behind, style="not bold")
    text.truncate(width - 1, overflow="crop" if ascii_only else "ellipsis")
    return text


def _forms(line: Line, dots: str, *, bars: bool) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield the forms that a line may take, from the fullest to the shortest: the bar's width, the texts behind it."""
    slim = _BAR_WIDTHS[-1] if bars else 0
    place, left, metrics = line.place, line.left, line.metrics
    for width in _BAR_WIDTHS if bars else (0,):
        yield width, (place, left, line.pace, *metrics)
    yield slim, (place, left, *metrics)
    if line.final:
        slim = 0
        yield slim, (place, left, *metrics)
    losses = [metric for metric in metrics if metric.split(" ")[0] in _LOSSES]
    others = [metric for metric in metrics if metric not in losses]
    for count in range(len(others) - 1, -1, -1):
        kept = losses + others[:count]
        yield slim, (place, left, *[metric for metric in metrics if metric in kept], dots)
    short = place.replace("  step ", "  ")
    yield slim, (short, left, *losses)
    yield 0, (short, left, *losses)
    yield 0, (short, *losses)
    yield 0, (short, *losses[:1])
    yield 0, (short,)


def _html(line: Line) -> str:
    bar = "" if line.share is None else f'<progress value="{line.share:.4f}" max="1" style="width:12em"></progress>'
    behind = "&ensp;".join(html.escape(part) for part in line.parts())
    return f'<div style="font-family:monospace"><b>{html.escape(line.title)}</b>&ensp;{bar}&ensp;{behind}</div>'


def _pace(per_step_s: float) -> str:
    if per_step_s >= 1:
        return f"{per_step_s:.3g} s/step"
    return f"{per_step_s * 1e3:.3g} ms/step" if per_step_s >= 1e-3 else f"{1 / per_step_s:,.0f} steps/s"


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f"{_duration(seconds)} left"


def _duration(seconds: float) -> str:
    for most, digits in ((1, 2), (10, 1), (59.5, 0)):
        if seconds < most:
            return f"{seconds:.{digits}f} s"
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d} min"
