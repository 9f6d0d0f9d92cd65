"""The rows of a run as this process knows them."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from keepfit.errors import StateNotKept
from keepfit.recorder.epochs import EpochLog
from keepfit.recorder.fits import FitTable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keepfit.journal import CheckpointRecord, EventRecord, FitRecord

_EVENTS = 200


class Mirror:
    """Fits, epochs, events and checkpoints of a run, small enough to hold.

    Not thread-safe: whoever holds one guards it.
    """

    def __init__(self) -> None:
        self.meta: dict[str, Any] = {}
        self.fits = FitTable()
        self.closed_fits: list[FitRecord] = []
        self.epochs = EpochLog()
        self.events: deque[EventRecord] = deque(maxlen=_EVENTS)
        self.checkpoints: list[CheckpointRecord] = []  # of all branches, oldest first
        self.branches = 0

    def current(self) -> list[CheckpointRecord]:
        """Return the checkpoints of the current branch, oldest first."""
        return [item for item in self.checkpoints if item.branch == 0]

    def close_branch(self, after: int) -> int | None:
        """Close what lies after a fit.

        Returns:
            The number of the closed branch, None if nothing lies there.
        """
        gone = self.fits.cut(after)
        moved = [item for item in self.current() if item.fit > after]
        self.epochs.cut(fit=after)
        if not gone and not moved:
            return None
        self.branches += 1
        self.closed_fits += [replace(record, branch=self.branches) for record in gone]
        self.checkpoints = [
            replace(item, branch=self.branches) if item.branch == 0 and item.fit > after else item
            for item in self.checkpoints
        ]
        return self.branches

    def pin(self, checkpoint_id: int) -> None:
        """Mark a checkpoint as pinned.

        Raises:
            StateNotKept: There is no such checkpoint (any more).
        """
        for index, item in enumerate(self.checkpoints):
            if item.id == checkpoint_id:
                self.checkpoints[index] = replace(item, pinned=True)
                return
        raise StateNotKept(
            f"Checkpoint {checkpoint_id} is not kept (any more). Nothing was changed.", checkpoint=checkpoint_id
        )

    def final_logs(self, *more: int) -> dict[int, dict[str, float]]:
        """Return the last logs, by fit, of the current fits whose end is kept and of ``more``."""
        ends = {item.fit for item in self.checkpoints if item.branch == 0 and item.kind == "end"}
        return {fit: self.epochs.last_logs(fit) for fit in ends.union(more)}


class Mirrored:
    """The reading half of a recorder, over a mirror."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror

    @property
    def fresh(self) -> bool:
        """Whether nothing was recorded yet: no fit and no checkpoint."""
        mirror = self._mirror
        return not (mirror.fits or mirror.closed_fits or mirror.checkpoints)

    @property
    def meta(self) -> Mapping[str, Any]:
        """Facts about the whole run, by key."""
        return self._mirror.meta

    @property
    def fits(self) -> Mapping[int, FitRecord]:
        """Fits of the current branch by number."""
        return self._mirror.fits

    @property
    def closed_fits(self) -> list[FitRecord]:
        """Fits of closed branches, in the order in which they were closed."""
        return list(self._mirror.closed_fits)

    @property
    def epochs(self) -> EpochLog:
        """Finished epochs of the current branch, oldest first."""
        return self._mirror.epochs

    @property
    def events(self) -> list[EventRecord]:
        """The most recent events, oldest first."""
        return list(self._mirror.events)

    @property
    def checkpoints(self) -> list[CheckpointRecord]:
        """Checkpoints of the current branch that are written and kept, oldest first."""
        return self._mirror.current()


def branch_message(after: int, number: int) -> str:
    """Return the sentence of the event of a closed branch."""
    return f"The fits after fit {after} were closed as branch {number}; training goes on from fit {after}."
