"""Keeper: takes the state of a fit under way, and keeps it whatever goes wrong."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal

from keepfit import randomness
from keepfit.attributes import Attributes
from keepfit.callbacks import CallbackMemory
from keepfit.clock import Position
from keepfit.data import Source
from keepfit.engine.base import Engine
from keepfit.errors import RunFolderError, warn
from keepfit.feed import Feed
from keepfit.fit_progress import FitProgress
from keepfit.fit_state import FitState
from keepfit.leaks import LeakGuard
from keepfit.left import small_things
from keepfit.recorder import Recorder
from keepfit.snapshot import Snapshot, joined, parted, source_state


class Keeper:
    """Take and write what decides the future of a fit.

    Args:
        state: Where the fit stands.
        model: The model that trains.
        engine: Has its variables.
        recorder: What remembers the run.
        feed: Training data.
        validation: What it validates on, if anything.
        memory: What its callbacks remember.
        leaks: Knows which rows were trained on.
        watched: Whether anybody else's code acts between epochs.
    """

    def __init__(
        self,
        state: FitState,
        *,
        model: Any,
        engine: Engine,
        recorder: Recorder,
        feed: Feed,
        validation: Source | None,
        memory: CallbackMemory,
        leaks: LeakGuard,
        attributes: Attributes | None,
        watched: bool,
    ) -> None:
        self.state = state
        self.model = model
        self.engine = engine
        self.recorder = recorder
        self.feed = feed
        self.memory = memory
        self.leaks = leaks
        self.attributes = attributes
        self._validation = validation
        self._watched = watched
        # The state to go back to where an interruption falls between two states that are whole.
        self.safe: Snapshot | None = None
        self.begun = state.done.begun or state.done.epochs > 0
        # Where a resumed fit goes back to if a callback fails before its memory was given back.
        self.start: Snapshot | None = None
        self.interrupted: Snapshot | None = None
        # Whether a dispatch took the state of the model with it.
        self.is_lost = False

    def snapshot(self, *, random_state: Any = None) -> Snapshot:
        """Return everything that decides the future, as it is between two dispatches.

        Args:
            random_state: That of the global generators, where it is known.
        """
        now = self.state
        now.note_logs(self.model)
        memories, tensors = self.memory.take()
        from_source, source_tensors = source_state(self.feed.source)
        from_validation, validation_tensors = source_state(self._validation, part="validation")
        state = {
            "position": now.position.to_json(),
            "progress": now.done.to_json(),
            "cursor": self.feed.cursor.to_json(),
            "source": from_source,
            "validation": from_validation,
            "callbacks": memories,
            "randomness": random_state or randomness.take(),
            "trained": self.leaks.state(),
            "plan": now.record.plan,
            "stop_training": bool(self.model.stop_training),
            "attributes": {} if self.attributes is None else self.attributes.state(),
        }
        tensors = {**tensors, **source_tensors, **validation_tensors, **self.leaks.tensors()}
        return Snapshot({**self.engine.variables.values(), **tensors}, state)

    def make_safe(self) -> None:
        """Note the state before callbacks and validation act, so that a resume lets all of them act anew."""
        self.safe = self.snapshot() if self._watched else None

    def checkpoint(self, *, wait: bool = False, snapshot: Snapshot | None = None) -> None:
        """Write a state inside the fit; without ``wait`` that happens behind the training.

        Args:
            wait: Whether to return when it is on disk.
            snapshot: The state; None for that of now.
        """
        snapshot = snapshot or self.snapshot()
        self.recorder.put_fit(self.state.record)
        self.recorder.checkpoint(
            kind="inside",
            fit=self.state.record.number,
            position=Position(**snapshot.state["position"]),
            tensors=snapshot.tensors,
            state=snapshot.state,
            good=self.state.good,
            wait=wait,
            now=True,
        )

    def keep_end(self, resume: Snapshot, *, rewriters: list[str], began: Mapping[str, Any] | None) -> Snapshot:
        """Record that the fit ended, and keep the state on both sides of its end.

        Args:
            resume: The state before weights were rewritten.
            rewriters: Keys of the callbacks that may have rewritten them.
            began: The global generators before the fit, where they are known.

        Returns:
            The result.
        """
        now, stopped = self.state, bool(self.model.stop_training)
        now.position = replace(now.position, fit=now.record.number)
        detail = {**now.record.detail, **self._places()}
        # Nobody has drawn since the resume point where there is no callback.
        result = self.snapshot(random_state=None if self._watched else resume.state["randomness"])
        detail["rewriters"] = [*detail["facts"]["rewriters"], *rewriters]
        if self.recorder.durable:
            detail |= small_things(result, began=began)
        status: Literal["stopped", "finished"] = "stopped" if stopped else "finished"
        now.record = replace(now.record, status=status, stop_training=stopped, ended=time.time(), detail=detail)
        self.recorder.put_fit(now.record)
        whole = joined(result, resume)
        self.recorder.checkpoint(
            kind="end",
            fit=now.record.number,
            position=now.position,
            tensors=whole.tensors,
            state=whole.state,
            good=now.good,
        )
        return result

    def _places(self) -> dict[str, Any]:
        """Return the places in data that a replay needs also where the state around them is not kept."""
        found = {}
        for part, source in (("source", self.feed.source), ("validation", self._validation)):
            from_source, tensors = source_state(source, part=part, small=True)
            if from_source is not None and not tensors:
                found[part] = {name: value for name, value in from_source.items() if name != "marks"}
        return found

    def keep_interrupted(self, reason: str) -> None:
        """Keep the last finished step, whatever went wrong; never hide what did."""
        self.engine.variables.known.forget()
        number, position = self.state.record.number, self.state.position
        message = f"Fit {number} was {reason}, {self.state.place}."
        self.recorder.event("interrupted", message, fit=number, epoch=position.epoch, step=position.step)
        if self.engine.is_lost():
            self._recover()
        elif self.start is not None:
            tensors = {**self.start.tensors, **self.engine.variables.values()}
            self.interrupted = Snapshot(tensors, self.start.state)
        elif self.begun:
            self.interrupted = self.safe or self.snapshot()
        if self.interrupted is None:
            return
        try:
            self.checkpoint(wait=True, snapshot=self.interrupted)
        except RunFolderError as error:
            warn(f"The interrupted fit could not be written: {error}")
            with suppress(RunFolderError):
                self.recorder.check()  # the same trouble, told already

    def _recover(self) -> None:
        """Bring the model back to the newest checkpoint of the fit, after a dispatch took its state with it."""
        self.is_lost = True
        self.engine.unsettled = False
        number = self.state.record.number
        checkpoint = self.recorder.newest(fit=number)
        if checkpoint is None:
            return  # the run goes back to the end of the fit before
        _, resume = parted(*self.recorder.load(checkpoint))
        self.engine.variables.assign(resume.variables())
        self.state.position = checkpoint.position
        self.state.done = FitProgress.from_json(resume.state["progress"])
        self.interrupted = resume
        message = f"The model was brought back to the checkpoint after step {checkpoint.position.step} of the run."
        self.recorder.event("notice", message, fit=number)
        warn(message)
