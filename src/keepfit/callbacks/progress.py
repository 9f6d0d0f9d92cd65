"""What a person sees while a fit runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

_BETWEEN_UPDATES_S = 0.1


class Progress:
    """Say nothing; the base of those that say something.

    Args:
        fit: Number of the fit.
        name: Its name, or None.
        epochs: Epochs planned for the fit.
        first_epoch: Number of its first epoch, from 0.
        steps: Steps in an epoch, None where unknown.
    """

    def __init__(
        self, *, fit: int, name: str | None, epochs: int, first_epoch: int, steps: int | None
    ) -> None:
        self.title = f"fit {fit}" + (f" ({name})" if name else "")
        self.epochs = epochs
        self.first_epoch = first_epoch
        self.steps = steps

    def begin(self, message: str | None = None) -> None:
        """Begin, maybe with a message such as where the fit resumed."""
        if message:
            self.say(message)

    def epoch_begin(self, label: int) -> None:
        """Begin epoch ``label``, counted from 0."""

    def update(self, step: int, logs: Callable[[], dict[str, Any]]) -> None:
        """Show that ``step`` steps of the epoch are finished; ``logs`` is asked only when something is drawn."""

    def validation(self) -> None:
        """Show that validation runs."""

    def epoch_end(self, label: int, logs: dict[str, Any], seconds: float) -> None:
        """Show a finished epoch."""

    def say(self, message: str) -> None:
        """Show one line."""

    def end(self, logs: dict[str, Any]) -> None:
        """Finish."""

    def abort(self) -> None:
        """Finish early; leaves the terminal as it should be."""


class PlainProgress(Progress):
    """One line an epoch, for logs and pipes."""

    def epoch_end(self, label: int, logs: dict[str, Any], seconds: float) -> None:
        """Print the epoch's line."""
        steps = f"{self.steps} steps, " if self.steps else ""
        last = self.first_epoch + self.epochs
        self.say(f"{self.title} | epoch {label + 1}/{last} | {steps}{seconds:.2f} s{shown(logs, ' | ')}")

    def say(self, message: str) -> None:
        """Print one line."""
        print(message, file=sys.stdout, flush=True)  # noqa: T201 - what a person sees


class BarProgress(Progress):
    """One live line for a fit, in a terminal or a notebook."""

    def begin(self, message: str | None = None) -> None:
        """Start the bar."""
        from rich.progress import BarColumn, Progress as Bar, TextColumn, TimeRemainingColumn

        self._bar = Bar(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[place]}"),
            TextColumn("{task.fields[logs]}"),
            TextColumn("{task.fields[pace]}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            refresh_per_second=8,
        )
        self._total = None if self.steps is None else self.steps * self.epochs
        self._task = self._bar.add_task(self.title, total=self._total, place="", logs="", pace="")
        self._drawn = 0.0
        self._since = (time.perf_counter(), 0)
        self._epoch = self.first_epoch
        self._bar.start()
        if message:
            self.say(message)

    def epoch_begin(self, label: int) -> None:
        """Show which epoch runs."""
        self._epoch = label
        self._draw(0, None)

    def update(self, step: int, logs: Callable[[], dict[str, Any]]) -> None:
        """Move the bar, some ten times a second."""
        now = time.perf_counter()
        if now - self._drawn >= _BETWEEN_UPDATES_S:
            self._drawn = now
            self._draw(step, logs())

    def validation(self) -> None:
        """Show that validation runs."""
        self._bar.update(self._task, pace="validating")

    def epoch_end(self, label: int, logs: dict[str, Any], seconds: float) -> None:
        """Show the epoch's metrics."""
        now = time.perf_counter()
        if now - self._drawn >= _BETWEEN_UPDATES_S:
            self._drawn = now
            self._draw(self.steps or 0, logs)

    def say(self, message: str) -> None:
        """Print a line above the bar."""
        bar = getattr(self, "_bar", None)
        if bar is None:
            print(message, flush=True)  # noqa: T201 - what a person sees
        else:
            bar.console.print(message, highlight=False, markup=False)

    def end(self, logs: dict[str, Any]) -> None:
        """Leave the last epoch's metrics standing."""
        if logs:
            self._draw(self.steps or 0, logs)
        if self._total is not None:
            self._bar.update(self._task, completed=self._total)
        self._stop()

    def abort(self) -> None:
        """Stop the bar where it is."""
        self._stop()

    def _stop(self) -> None:
        bar = getattr(self, "_bar", None)
        if bar is not None:
            bar.stop()

    def _draw(self, step: int, logs: dict[str, Any] | None) -> None:
        done = (self._epoch - self.first_epoch) * (self.steps or 0) + step
        fields: dict[str, Any] = {"place": f"epoch {self._epoch + 1}/{self.first_epoch + self.epochs}"}
        if self.steps:
            fields["place"] += f" step {step}/{self.steps}"
        if logs is not None:
            fields["logs"] = shown(logs, " ").strip()
        since, before = self._since
        elapsed = time.perf_counter() - since
        if done > before and elapsed > 0:
            each = elapsed / (done - before)
            fields["pace"] = f"{each * 1e3:.3g} ms/step" if each < 1 else f"{each:.3g} s/step"
        self._bar.update(self._task, completed=done if self._total else None, **fields)


def make_progress(
    verbose: Any, *, fit: int, name: str | None, epochs: int, first_epoch: int, steps: int | None
) -> Progress:
    """Return what shows a fit's progress.

    Args:
        verbose: Keras's: ``"auto"`` or 1 a bar, where there is a terminal or notebook; 2 a line an epoch; 0 nothing.
        fit: Number of the fit.
        name: Its name, or None.
        epochs: Epochs planned.
        first_epoch: Number of the first epoch, from 0.
        steps: Steps in an epoch, or None.
    """
    facts: dict[str, Any] = {"fit": fit, "name": name, "epochs": epochs, "first_epoch": first_epoch, "steps": steps}
    if verbose == 0:
        return Progress(**facts)
    if verbose == 2 or not (sys.stdout.isatty() or "ipykernel" in sys.modules):
        return PlainProgress(**facts)
    return BarProgress(**facts)


def shown(logs: dict[str, Any], separator: str) -> str:
    """Return metrics with four significant digits, each after the separator."""
    parts = []
    for name, value in logs.items():
        try:
            parts.append(f"{separator}{name} {float(value):.4g}")
        except (TypeError, ValueError):
            continue
    return "".join(parts)
