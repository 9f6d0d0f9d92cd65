"""What a run needs from whatever remembers it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from keepfit.clock import Position
    from keepfit.journal import CheckpointKind, CheckpointRecord, EpochRecord, EventRecord, FitRecord
    from keepfit.recorder.epochs import EpochLog


class Recorder(Protocol):
    """The journal and the store of one run, behind one face.

    `DiskRecorder` keeps a folder, `MemoryRecorder` keeps everything in the
    process. Calls that record (``put_fit``, ``put_epoch``, ``event``,
    ``set_meta``, ``checkpoint`` without ``wait``) may come from any thread and
    cost microseconds; only ``checkpoint(wait=True)``, ``flush`` and ``close``
    wait for the disk. What is given away must not be changed afterwards.
    """

    @property
    def fresh(self) -> bool:
        """Whether nothing was recorded yet: no fit and no checkpoint."""
        ...

    @property
    def durable(self) -> bool:
        """Whether the record outlives the process."""
        ...

    @property
    def meta(self) -> Mapping[str, Any]:
        """Facts about the whole run, by key; see `set_meta`."""
        ...

    @property
    def fits(self) -> Mapping[int, FitRecord]:
        """Fits of the current branch by number, as of the newest checkpoint and this process."""
        ...

    @property
    def closed_fits(self) -> list[FitRecord]:
        """Fits of closed branches, in the order in which they were closed."""
        ...

    @property
    def epochs(self) -> EpochLog:
        """Finished epochs of the current branch, oldest first: a read-only list."""
        ...

    @property
    def events(self) -> list[EventRecord]:
        """The most recent events, oldest first; the journal has all of them."""
        ...

    @property
    def checkpoints(self) -> list[CheckpointRecord]:
        """Checkpoints of the current branch that are written and kept, oldest first."""
        ...

    def set_meta(self, key: str, value: Any) -> None:
        """Remember a JSON-able fact about the whole run."""
        ...

    def put_fit(self, record: FitRecord) -> None:
        """Insert the record of a fit, or replace the one with its number."""
        ...

    def put_epoch(self, record: EpochRecord) -> None:
        """Append a finished epoch; recorded ones from its index on are replaced."""
        ...

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
        ...

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
        """Keep a whole state of the run.

        The record of fit ``fit`` as it stands at this call belongs to the
        checkpoint, so call `put_fit` first.

        Args:
            kind: ``"start"`` (before fit 1), ``"inside"`` a fit, or at its ``"end"``.
            fit: Number of the fit it lies in; 0 with ``"start"``.
            position: How far the run has come.
            tensors: Name -> array; converted with ``numpy.asarray`` in the
                background, and held until then, so they must not change.
            state: JSON-able, copied at this call.
            good: Whether no non-finite loss was seen.
            wait: Return only when it is durable.
            now: Write it at once, whatever the budget says.

        Raises:
            StoreFull, StoreFailed, RunReadOnly: With ``wait``: it could not be written.
        """
        ...

    def due(self) -> bool:
        """Return whether a checkpoint inside a fit fits the budget now; cheap."""
        ...

    def load(self, checkpoint: CheckpointRecord) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the tensors and the state of a checkpoint.

        Raises:
            DamagedObject: Stored bytes do not match their hash, or are missing.
            StateNotKept: Retention has removed it.
        """
        ...

    def newest(self, fit: int | None = None, kinds: Collection[str] | None = None) -> CheckpointRecord | None:
        """Return the newest readable checkpoint of the current branch.

        Args:
            fit: Only those that lie in this fit.
            kinds: Only these kinds.

        Returns:
            The checkpoint, or None. Damaged ones are reported (an event and a
            warning) and passed over.
        """
        ...

    def end_of(self, fit: int) -> CheckpointRecord | None:
        """Return the readable checkpoint at the end of a fit, None if it is not kept."""
        ...

    def pin(self, checkpoint_id: int) -> None:
        """Keep a checkpoint whatever retention says.

        Raises:
            StateNotKept: There is no such checkpoint (any more).
        """
        ...

    def branch(self, after: int) -> None:
        """Close the fits after number ``after`` as a branch of their own.

        Their rows stay in the journal; of their states the newest end stays.
        """
        ...

    def check(self) -> None:
        """Raise what went wrong in the background since the last call, once."""
        ...

    def flush(self) -> None:
        """Return when all that was recorded is written.

        Raises:
            StoreFull, StoreFailed, RunReadOnly: It could not be written; it
                stays in memory and is tried again later.
        """
        ...

    def close(self) -> None:
        """Write what is left and let the folder go; a second call does nothing."""
        ...
