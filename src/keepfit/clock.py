"""Counters of what a run has finished."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Position:
    """How far a run has come; every counter counts what is *finished*.

    Args:
        fit: Fits that reached their end, 0 or more.
        epoch: Epochs finished over all fits.
        step: Training steps (batches) finished over all fits.
        samples: Samples trained on, over all fits.
    """

    fit: int = 0
    epoch: int = 0
    step: int = 0
    samples: int = 0

    def __post_init__(self) -> None:
        if min(self.fit, self.epoch, self.step, self.samples) < 0:
            raise ValueError(f"A position counts what is finished: expected 0 or more, received {self}.")

    def to_json(self) -> dict[str, int]:
        """Return the counters as plain data."""
        return {"fit": self.fit, "epoch": self.epoch, "step": self.step, "samples": self.samples}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Position:
        """Return the position that `to_json` gave."""
        return cls(**{key: int(data.get(key, 0)) for key in ("fit", "epoch", "step", "samples")})
