"""FitProgress: how far one fit has come."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from keepfit.logs import arrays, merged, numbers


@dataclass
class FitProgress:
    """How far one fit has come.

    Args:
        epochs: Epochs of the fit that are finished.
        steps: Steps of the current epoch that are finished.
        begun: Whether ``on_epoch_begin`` was called for the current epoch.
        trained: Whether the current epoch has had all its steps, so that validation comes next.
        logs: Of the current epoch's last step.
    """

    epochs: int = 0
    steps: int = 0
    begun: bool = False
    trained: bool = False
    logs: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the progress as plain data."""
        return {
            "epochs": self.epochs,
            "steps": self.steps,
            "begun": self.begun,
            "trained": self.trained,
            "logs": numbers(self.logs),
            "array_logs": arrays(self.logs),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> FitProgress:
        """Return the progress that `to_json` gave."""
        plain = {name: value for name, value in data.items() if name != "array_logs"}
        return cls(**{**plain, "logs": merged(data["logs"], data.get("array_logs", {}))})
