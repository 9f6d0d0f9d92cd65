"""The rows of the journal as values."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keepfit.clock import Position

FitStatus = Literal["open", "finished", "stopped", "closed"]
FitPhase = Literal["first", "continues", "new"]
CheckpointKind = Literal["start", "inside", "end"]
Entry = list[Any]
Manifest = dict[str, Entry]
_STATUSES = get_args(FitStatus)


@dataclass(frozen=True, slots=True, kw_only=True)
class FitRecord:
    """What the journal says about one fit.

    A record is a value: neither it nor the plain data in it may be changed
    after it was given away.

    Args:
        number: Number of the fit within the run, 1 or more.
        branch: 0 for the current branch, above 0 for a closed one.
        name: The name the user gave, if any.
        status: ``"open"`` (running or interrupted, may go on), ``"finished"``
            (reached its length), ``"stopped"`` (stopped early) or ``"closed"``
            (ended as it stood).
        phase: ``"first"``, ``"continues"`` or ``"new"``; None before it is known.
        phase_reason: Why, in words.
        recipe: What the fit was asked to do, JSON-able.
        epochs_planned: Length asked for, in epochs.
        epochs_done: Epochs of this fit that are finished.
        first_epoch: Epochs of the run that were finished before this fit.
        first_step: Steps of the run that were finished before this fit.
        first_samples: Samples the run had seen before this fit.
        started: Wall clock at the start, in seconds since 1970.
        ended: Wall clock at the end, None while it is open.
        learning_rate: Rate at the start of the fit.
        plan: Facts of the engine: plan, backend, versions, device, JSON-able.
        approximate: What was not exact, one sentence each.
        stop_training: Value of ``model.stop_training`` at its end.
        detail: Room for the run's own JSON.
    """

    number: int
    branch: int = 0
    name: str | None = None
    status: FitStatus = "open"
    phase: FitPhase | None = None
    phase_reason: str | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    epochs_planned: int = 1
    epochs_done: int = 0
    first_epoch: int = 0
    first_step: int = 0
    first_samples: int = 0
    started: float = 0.0
    ended: float | None = None
    learning_rate: float | None = None
    plan: dict[str, Any] = field(default_factory=dict)
    approximate: list[str] = field(default_factory=list)
    stop_training: bool = False
    detail: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.number < 1:
            raise ValueError(f"FitRecord.number counts from 1, received {self.number}.")
        if self.status not in _STATUSES:
            raise ValueError(f"FitRecord.status: expected one of {_STATUSES}, received {self.status!r}.")

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain data; the inner dicts are not copied."""
        return {name: getattr(self, name) for name in _FIT_FIELDS}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FitRecord:
        """Return the record that `to_json` gave."""
        return cls(**data)


_FIT_FIELDS = tuple(item.name for item in fields(FitRecord))


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRecord:
    """What the journal says about one finished epoch.

    Args:
        fit: Number of the fit it belongs to.
        branch: 0 for the current branch, above 0 for a closed one.
        epoch: Index over the whole run, from 0.
        label: The number that callbacks saw.
        logs: Metrics at the end of the epoch.
        learning_rate: Rate at the end of the epoch, if the optimizer has one.
        steps: Steps in this epoch.
        step: Steps of the run that are finished after it.
        samples: Samples the run has seen after it.
        seconds: Duration, in seconds.
        ended: Wall clock at its end, in seconds since 1970.
    """

    fit: int
    branch: int = 0
    epoch: int
    label: int
    logs: dict[str, float]
    learning_rate: float | None = None
    steps: int = 0
    step: int = 0
    samples: int = 0
    seconds: float = 0.0
    ended: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord:
    """Something that happened to a run and that a person may ask about.

    Args:
        time: Wall clock, in seconds since 1970.
        kind: One word: opened, resumed, interrupted, died, notice, approximate,
            damage, branch, nonfinite, replayed, forked, recipe, phase, leak, closed.
        message: One sentence for a person.
        fit: Number of the fit, where there is one.
        epoch: Epochs finished, where that matters.
        step: Steps finished, where that matters.
        data: More facts, JSON-able.
        session: Number of the process's session that wrote it.
    """

    time: float
    kind: str
    message: str
    fit: int | None = None
    epoch: int | None = None
    step: int | None = None
    data: dict[str, Any] = field(default_factory=dict)
    session: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRecord:
    """A manifest of objects plus small JSON state: one whole state of a run.

    Args:
        id: Number of the checkpoint within the folder, growing, from 1.
        branch: 0 for the current branch, above 0 for a closed one.
        fit: Number of the fit it lies in; 0 for the state before fit 1.
        kind: ``"start"``, ``"inside"`` a fit, or at its ``"end"``.
        position: How far the run had come.
        good: Whether no non-finite loss had been seen.
        created: Wall clock, in seconds since 1970.
        size_bytes: Bytes of its tensors, equal ones counted once.
        pinned: Whether retention must keep it.
        damaged: Whether it was found damaged; it is then not offered any more.
        manifest: Tensor name -> [file, key, hash, dtype, shape, nbytes].
        state: JSON state, as given to `Recorder.checkpoint`.
    """

    id: int
    branch: int = 0
    fit: int
    kind: CheckpointKind
    position: Position
    good: bool = True
    created: float = 0.0
    size_bytes: int = 0
    pinned: bool = False
    damaged: bool = False
    manifest: Manifest = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRecord:
    """One process that had the run open.

    Args:
        id: Number of the session, from 1.
        pid: Process id.
        host: Name of its machine.
        started: Wall clock, in seconds since 1970.
        ended: Wall clock at its end, or of its last sign of life; None while open.
        how: ``"open"``, ``"closed"`` or ``"died"``.
    """

    id: int
    pid: int
    host: str
    started: float
    ended: float | None = None
    how: str = "open"
