"""What a person sees while a fit runs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

Logs = Mapping[str, Any]

# What is over sooner is not shown.
PATIENCE_S = 1.0
_BETWEEN_LINES_S = 30.0


class Progress:
    """Say nothing; the base of those that say something.

    Args:
        fit: Number of the fit.
        name: Its name, or None.
        epochs: Epochs planned for the fit.
        first_epoch: Number of its first epoch, from 0.
        steps: Steps in an epoch, None where unknown.
    """

    def __init__(self, *, fit: int, name: str | None, epochs: int, first_epoch: int, steps: int | None) -> None:
        self.title = f"fit {fit}" + (f" ({name})" if name else "")
        self.epochs = epochs
        self.first_epoch = first_epoch
        self.steps = steps

    def begin(self, message: str | None = None) -> None:
        """Begin, maybe with a message such as where the fit resumed."""
        if message:
            self.say(message)

    def features(self, done: int, total: int) -> None:
        """Show that the frozen layers were computed for ``done`` of ``total`` samples; comes before `begin`."""

    def features_end(self) -> None:
        """End that, whether it was finished or not; may be called where there was nothing to compute."""

    def epoch_begin(self, label: int) -> None:
        """Begin epoch ``label``, counted from 0; maybe somewhere inside it."""

    def update(self, step: int, logs: Callable[[], Logs] | Logs | None) -> None:
        """Show that ``step`` steps of the epoch are finished; a function is called only when something is drawn."""

    def validation(self) -> None:
        """Show that validation runs."""

    def epoch_end(self, label: int, logs: Logs, seconds: float) -> None:
        """Show a finished epoch.

        Args:
            label: Its number, from 0.
            logs: What was recorded of it.
            seconds: How long it took in this process.
        """

    def say(self, message: str) -> None:
        """Show one line."""

    def end(self, logs: Logs) -> None:
        """Finish; ``logs`` are the last epoch's."""

    def abort(self) -> None:
        """Finish early; whatever was shown is left as it should be. May be called at any time, and again."""


class PlainProgress(Progress):
    """One line an epoch, for logs and pipes."""

    _seen = 0
    _next_s: float | None = None

    def features(self, done: int, total: int) -> None:
        """Print a line where it takes long, and another one every now and then."""
        now = time.perf_counter()
        if self._next_s is None:
            self._next_s = now + PATIENCE_S
        elif now >= self._next_s:
            self._next_s = now + _BETWEEN_LINES_S
            self.say(f"{self.title} | {frozen_place(done, total)}")

    def features_end(self) -> None:
        """Begin to count the time anew."""
        self._next_s = None

    def update(self, step: int, logs: Callable[[], Logs] | Logs | None) -> None:  # noqa: ARG002 - the interface
        """Count, and show nothing."""
        self._seen = step

    def epoch_end(self, label: int, logs: Logs, seconds: float) -> None:
        """Print the epoch's line."""
        steps = self.steps or self._seen
        place = f"{self.title} | epoch {label + 1}/{self.first_epoch + self.epochs}"
        count = f"{steps} step{'s' if steps != 1 else ''}, " if steps else ""
        self.say(" | ".join([place, f"{count}{seconds:.2f} s", *shown(logs)]))

    def say(self, message: str) -> None:
        """Print one line."""
        printed(message)


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
    if verbose != 2:
        if in_notebook():
            from keepfit.callbacks.bar import NotebookBar

            return NotebookBar(**facts)
        if in_terminal():
            from keepfit.callbacks.bar import TerminalBar

            return TerminalBar(**facts)
    return PlainProgress(**facts)


def shown(logs: Logs) -> list[str]:
    """Return metrics with four significant digits; what is not a number is left out."""
    parts = []
    for name, value in logs.items():
        try:
            parts.append(f"{name} {float(value):.4g}")
        except (TypeError, ValueError):
            continue
    return parts


def printed(message: str) -> None:
    """Print one line to standard output; a metric's name that it cannot write must not stop a training."""
    try:
        print(message, flush=True)  # noqa: T201 - what a person sees
    except UnicodeEncodeError:
        print(message.encode("ascii", "replace").decode(), flush=True)  # noqa: T201


def frozen_place(done: int, total: int) -> str:
    """Return how far the frozen layers are computed, in words."""
    return f"frozen layers, once: sample {done:,}/{total:,}"


def in_terminal() -> bool:
    """Return whether standard output is a terminal that can draw a line again."""
    output: Any = sys.stdout
    isatty = getattr(output, "isatty", None)
    return bool(isatty and isatty()) and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def in_notebook() -> bool:
    """Return whether this process is a notebook's kernel; imports nothing."""
    interactive: Any = sys.modules.get("IPython")
    shell = interactive.get_ipython() if interactive is not None else None
    return shell is not None and hasattr(shell, "kernel")
