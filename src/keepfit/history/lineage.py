"""Where a run was forked from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Lineage:
    """The run and the fit that a fork started from.

    Args:
        directory: Folder of the run that was forked, as it was given then.
        fit: Number of the fit whose result the fork started from; 0 for the state before fit 1.
        run: Identity of that run, None where it has none.
    """

    directory: str
    fit: int
    run: str | None = None

    def __str__(self) -> str:
        return f"forked from {self.directory} after fit {self.fit}"

    def to_json(self) -> dict[str, Any]:
        """Return the lineage as plain data."""
        return {"directory": self.directory, "run": self.run, "at": self.fit}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Lineage:
        """Return the lineage that `to_json` gave."""
        return cls(directory=str(data["directory"]), fit=int(data["at"]), run=data.get("run"))
