"""FitState: where a fit under way stands."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from keepfit.clock import Position
from keepfit.engine.base import Outcome
from keepfit.evaluation import epoch_logs
from keepfit.fit_progress import FitProgress
from keepfit.journal import FitRecord


@dataclass
class FitState:
    """Where a fit under way stands, for those that move it and those that keep it.

    Args:
        record: The fit; its first epoch, step and sample are where the run stood before it.
        position: Where the run stands.
        done: How far the fit has come.
        first_label: The number that callbacks see for its first epoch.
        good: Whether no loss and no metric of the epoch was NaN or infinite.
        latest: The last dispatch, whose logs were not looked at yet.
    """

    record: FitRecord
    position: Position
    done: FitProgress
    first_label: int
    good: bool = True
    latest: Outcome | None = None

    @property
    def label(self) -> int:
        """The number that callbacks see for the epoch it stands in."""
        return self.first_label + self.done.epochs

    @property
    def place(self) -> str:
        """Where it stands, in words."""
        return f"in fit {self.record.number}, epoch {self.label + 1}, step {self.done.steps}"

    def begin_epoch(self) -> None:
        """Note that callbacks were told of an epoch, none of whose steps is finished."""
        self.done = replace(self.done, begun=True, steps=0, trained=False, logs={})
        self.good = True

    def count(self, outcome: Outcome, *, samples: int) -> None:
        """Count the steps of a dispatch, with the logs of the last one: whatever comes next finds both.

        Args:
            outcome: What the dispatch gave.
            samples: In each of its steps.
        """
        position, steps = self.position, outcome.count
        self.position = replace(position, step=position.step + steps, samples=position.samples + steps * samples)
        self.done = replace(self.done, steps=self.done.steps + steps)
        self.latest = outcome

    def end_epoch(self, array_logs: dict[str, Any]) -> None:
        """Count a finished epoch.

        Args:
            array_logs: Those of its logs that are no numbers, which the record of the fit keeps.
        """
        if array_logs:
            earlier = self.record.detail.get("array_logs", {})
            logs = {**earlier, str(self.position.epoch): array_logs}
            self.record = replace(self.record, detail={**self.record.detail, "array_logs": logs})
        self.position = replace(self.position, epoch=self.position.epoch + 1)
        self.done = FitProgress(epochs=self.done.epochs + 1)
        self.record = replace(self.record, epochs_done=self.done.epochs)

    def note_logs(self, model: Any) -> None:
        """Note the logs of the last step, which a resumed epoch cannot compute again."""
        latest, self.latest = self.latest, None
        if latest is not None:
            self.done.logs = epoch_logs(model, latest.logs())
