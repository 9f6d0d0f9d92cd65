"""A run without a folder."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from keepfit.errors import StateNotKept
from keepfit.journal import CheckpointKind, CheckpointRecord, EpochRecord, EventRecord, FitRecord
from keepfit.recorder.mirror import Mirror, Mirrored, branch_message
from keepfit.recorder.snapshot import Snapshot
from keepfit.store import kept

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from keepfit.clock import Position

BUDGET_BYTES = 1 << 30


class MemoryRecorder(Mirrored):
    """Keeps a run in the process: nothing is hashed, copied or written.

    States of the last fits are held within a budget; the first, the newest and
    pinned ones whatever their size. Tensors are held and given back as they
    came, device arrays included.

    Args:
        keep: How many ends of fits are kept.
        budget_bytes: Most bytes of tensors that are kept beside the above.
    """

    durable = False

    def __init__(self, *, keep: int = 10, budget_bytes: int = BUDGET_BYTES) -> None:
        super().__init__(Mirror())
        self._keep = keep
        self._budget_bytes = budget_bytes
        self._states: dict[int, tuple[dict[str, Any], Snapshot]] = {}
        self._last_id = 0

    def set_meta(self, key: str, value: Any) -> None:
        """Remember a JSON-able fact about the whole run."""
        self._mirror.meta[key] = value

    def put_fit(self, record: FitRecord) -> None:
        """Insert the record of a fit, or replace the one with its number."""
        self._mirror.fits.put(record)

    def put_epoch(self, record: EpochRecord) -> None:
        """Append a finished epoch; recorded ones from its index on are replaced."""
        self._mirror.epochs.put(record)

    def event(
        self,
        kind: str,
        message: str,
        *,
        fit: int | None = None,
        epoch: int | None = None,
        step: int | None = None,
        **data: Any,
    ) -> None:
        """Record that something happened, now."""
        record = EventRecord(
            time=time.time(), kind=kind, message=message, fit=fit, epoch=epoch, step=step, data=data, session=1
        )
        self._mirror.events.append(record)

    def checkpoint(
        self,
        *,
        kind: CheckpointKind,
        fit: int,
        position: Position,
        tensors: Mapping[str, Any],
        state: Mapping[str, Any],
        good: bool = True,
        wait: bool = False,
        now: bool = False,
    ) -> None:
        """Keep a whole state of the run; ``wait`` and ``now`` change nothing here."""
        del wait, now  # nothing is ever behind
        self._last_id += 1
        record = CheckpointRecord(
            id=self._last_id,
            fit=fit,
            kind=kind,
            position=position,
            good=good,
            created=time.time(),
            size_bytes=_size_bytes(tensors, seen=set()),
        )
        # Through JSON, so that code cannot come to depend on what a folder would lose.
        self._states[record.id] = (dict(tensors), Snapshot(state))
        self._mirror.checkpoints.append(record)
        self._thin_out()

    def due(self) -> bool:
        """Return False: without a folder nothing inside a fit outlives a kill."""
        return False

    def load(self, checkpoint: CheckpointRecord) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the tensors, as they were given, and the state of a checkpoint.

        Raises:
            StateNotKept: It was thinned out.
        """
        if checkpoint.id not in self._states:
            raise StateNotKept(
                f"Checkpoint {checkpoint.id} (fit {checkpoint.fit}) is not kept any more. Nothing was changed. "
                "Name a fit (name=...) or raise keep= to keep more states.",
                checkpoint=checkpoint.id,
                fit=checkpoint.fit,
            )
        tensors, snapshot = self._states[checkpoint.id]
        return dict(tensors), snapshot.state()

    def newest(self, fit: int | None = None, kinds: Collection[str] | None = None) -> CheckpointRecord | None:
        """Return the newest checkpoint, of a fit and of some kinds if these are given."""
        for record in reversed(self._mirror.current()):
            if (fit is None or record.fit == fit) and (kinds is None or record.kind in kinds):
                return record
        return None

    def end_of(self, fit: int) -> CheckpointRecord | None:
        """Return the checkpoint at the end of a fit, None if it is not kept."""
        return self.newest(fit, kinds=("end",))

    def pin(self, checkpoint_id: int) -> None:
        """Keep a checkpoint whatever retention says.

        Raises:
            StateNotKept: There is no such checkpoint (any more).
        """
        self._mirror.pin(checkpoint_id)

    def branch(self, after: int) -> None:
        """Close the fits after number ``after`` as a branch of their own."""
        number = self._mirror.close_branch(after)
        if number is not None:
            self.event("branch", branch_message(after, number), fit=after, branch=number)
            self._thin_out()

    def check(self) -> None:
        """Do nothing: there is no background."""

    def flush(self) -> None:
        """Do nothing: there is no disk."""

    def close(self) -> None:
        """Do nothing: what is recorded lives as long as the recorder."""

    def _thin_out(self) -> None:
        mirror = self._mirror
        size = sum(item.size_bytes for item in mirror.checkpoints)
        if len(mirror.checkpoints) <= self._keep and size <= self._budget_bytes:
            return
        keep = kept(mirror.checkpoints, named=mirror.fits.named, keep=self._keep, final_logs=mirror.final_logs())
        keep &= self._within_budget(keep)
        mirror.checkpoints = [item for item in mirror.checkpoints if item.id in keep]
        self._states = {number: self._states[number] for number in keep}

    def _within_budget(self, keep: set[int]) -> set[int]:
        """Return the checkpoints that fit, newest first, after those that must stay."""
        items = [item for item in self._mirror.checkpoints if item.id in keep]
        if sum(item.size_bytes for item in items) <= self._budget_bytes:
            return keep  # what they share makes it less still
        must = [item for item in items if item.pinned or item.kind == "start"] + items[-1:]
        inside: set[int] = set()
        seen: set[int] = set()
        total = 0
        for item in [*must, *reversed(items)]:
            if item.id in inside:
                continue
            trial = set(seen)
            size = _size_bytes(self._states[item.id][0], seen=trial)
            if item in must or total + size <= self._budget_bytes:
                inside.add(item.id)
                seen, total = trial, total + size
        return inside


def _size_bytes(tensors: Mapping[str, Any], *, seen: set[int]) -> int:
    """Return the bytes of the arrays that are not in ``seen`` yet, and add them there."""
    total = 0
    for array in tensors.values():
        if id(array) not in seen:
            seen.add(id(array))
            total += math.prod(array.shape) * array.dtype.itemsize  # JAX takes its time over ``nbytes``
    return total
