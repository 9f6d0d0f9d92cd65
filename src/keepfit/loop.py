"""The one loop, for all backends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import keras

from keepfit import _keras, randomness
from keepfit.callbacks import (
    BatchHooks,
    CallbackMemory,
    Progress,
    finalize_averages,
    has_test_batch_hooks,
    has_train_batch_hooks,
    may_rewrite_weights,
)
from keepfit.clock import Position
from keepfit.engine.base import Engine, Outcome
from keepfit.errors import RunFolderError, warn
from keepfit.evaluation import epoch_logs, evaluate
from keepfit.feed import Feed
from keepfit.fit_progress import FitProgress
from keepfit.interrupts import Interrupts
from keepfit.journal import EpochRecord, FitRecord
from keepfit.leaks import LeakGuard
from keepfit.left import small_things
from keepfit.logs import arrays, numbers
from keepfit.pace import Pace
from keepfit.phases import current_rate
from keepfit.recorder import Recorder
from keepfit.snapshot import Snapshot, joined, parted, source_state


@dataclass
class Validation:
    """What a fit validates on, and how often.

    Args:
        feed: The data.
        engine: Runs its steps.
        frequency: Every so many epochs, or a list of epoch numbers counted from 1, as in Keras.
    """

    feed: Feed
    engine: Engine
    frequency: Any = 1


class _LeaveError(Exception):
    """A signal was noted; never seen outside the loop."""


class FitLoop:
    """Train one fit to its end, from wherever it stands.

    Args:
        model: The compiled, built model.
        engine: Prepared for it.
        recorder: What remembers the run.
        record: The fit; its first epoch, step and sample are where the run stood before it.
        feed: Training data.
        validation: Validation data, if any.
        callbacks: A ``keras.callbacks.CallbackList`` with a History.
        memory: The memory of its callbacks.
        progress: What a person sees.
        position: Where the run stands.
        done: How far the fit has come.
        first_label: The number that callbacks see for its first epoch.
        pace: How many steps to dispatch at once.
        leaks: Knows which rows were trained on.
    """

    def __init__(
        self,
        *,
        model: Any,
        engine: Engine,
        recorder: Recorder,
        record: FitRecord,
        feed: Feed,
        validation: Validation | None,
        callbacks: Any,
        memory: CallbackMemory,
        progress: Progress,
        position: Position,
        done: FitProgress,
        first_label: int,
        pace: Pace,
        leaks: LeakGuard,
    ) -> None:
        self.model = model
        self.engine = engine
        self.recorder = recorder
        self.record = record
        self.feed = feed
        self.validation = validation
        self._validation_source = None if validation is None else validation.feed.source
        self.callbacks = callbacks
        self.memory = memory
        self.progress = progress
        self.position = position
        self.done = done
        self.first_label = first_label
        self.pace = pace
        self.leaks = leaks
        self.good = True
        self._interrupts = Interrupts()
        self._batch_hooks: BatchHooks | None = None
        if has_train_batch_hooks(callbacks.callbacks):
            self._batch_hooks = BatchHooks(
                callbacks.on_train_batch_begin, callbacks.on_train_batch_end, every=model.steps_per_execution
            )
        self._test_hooks = has_test_batch_hooks(callbacks.callbacks)
        # The state to go back to where an interruption falls between two states that are whole.
        self._safe: Snapshot | None = None
        self._begun = done.begun or done.epochs > 0
        own = [c for c in callbacks.callbacks if type(c) is not keras.callbacks.History]
        self._watched = bool(own) or validation is not None
        self._latest: Outcome | None = None
        self._said_nonfinite = False
        self.last_logs: dict[str, Any] = {}
        self.interrupted: Snapshot | None = None
        # Whether a dispatch took the state of the model with it.
        self.is_lost = False
        # Where a resumed fit goes back to if a callback fails before its memory was given back.
        self.start: Snapshot | None = None
        # The global generators before the fit, where they are known.
        self.began: Any = None

    def run(self, begin: Callable[[], None]) -> tuple[Snapshot, Snapshot]:
        """Train what is left of the fit.

        Args:
            begin: Called after ``on_train_begin``; gives callbacks their memory back.

        Returns:
            The two ends of the fit: the result and the resume point.
        """
        with self._interrupts:
            try:
                self.callbacks.on_train_begin()
                begin()
                self.start = None
                while self.done.epochs < self.record.epochs_planned and not self._is_stopped():
                    self._epoch()
                    if self.feed.is_dry:
                        break
                return self._end()
            except _LeaveError:
                self._keep_interrupted("interrupted by a signal")
                self._interrupts.leave()
                raise KeyboardInterrupt from None
            except BaseException as error:
                self._keep_interrupted(f"interrupted by {type(error).__name__}")
                error.add_note(self._place())
                raise

    def snapshot(self, *, random_state: Any = None) -> Snapshot:
        """Return everything that decides the future, as it is between two dispatches.

        Args:
            random_state: That of the global generators, where it is known.
        """
        self._note_logs()
        memories, tensors = self.memory.take()
        from_source, source_tensors = source_state(self.feed.source, taken=self.feed.held)
        from_validation, validation_tensors = source_state(self._validation_source, part="validation")
        state = {
            "position": self.position.to_json(),
            "progress": self.done.to_json(),
            "cursor": self.feed.cursor.to_json(),
            "source": from_source,
            "validation": from_validation,
            "callbacks": memories,
            "randomness": random_state or randomness.take(),
            "trained": self.leaks.state(),
            "plan": self.record.plan,
            "stop_training": bool(self.model.stop_training),
        }
        tensors = {**tensors, **source_tensors, **validation_tensors, **self.leaks.tensors()}
        return Snapshot({**self.engine.variables.values(), **tensors}, state)

    def _make_safe(self) -> None:
        """Note the state before callbacks and validation act, so that a resume lets all of them act anew."""
        self._safe = self.snapshot() if self._watched else None

    # One epoch

    def _is_stopped(self) -> bool:
        """Return whether no epoch comes any more; as in Keras, one that has begun ends, and the first one begins."""
        return bool(self.model.stop_training) and self.done.epochs > 0 and not self.done.begun

    def _epoch(self) -> None:
        started = time.perf_counter()
        label = self.first_label + self.done.epochs
        self._poll()
        self._make_safe()
        if self.done.begun:
            # A resumed epoch: its beginning has happened already, and schedules must not act twice.
            if not self.done.trained:
                self.feed.resume_epoch(self.done.steps)
        else:
            self.engine.reset_metrics()
            self.callbacks.on_epoch_begin(label)
            self.done = replace(self.done, begun=True, steps=0, trained=False, logs={})
            self.feed.begin_epoch()
            self.good = True
        self._begun = True
        self._safe = None
        self.progress.epoch_begin(label)
        if not self.done.trained:
            self._steps()
            self.feed.end_epoch()
            self.done = replace(self.done, trained=True)
        self._make_safe()
        logs = {**self.done.logs, **self._validate(label)}
        before = self.memory.history_lengths(self.callbacks)
        self.callbacks.on_epoch_end(label, logs)
        seen = self.memory.last_history_logs(self.callbacks, since=before) or logs
        self._finish_epoch(label, logs, seen, time.perf_counter() - started)

    def _steps(self) -> None:
        behind: Outcome | None = None
        behind_step = 0
        clock = time.perf_counter()
        try:
            # As in Keras, a stop is looked at after each step: the first step of an epoch always happens.
            while not (self.model.stop_training and self.done.steps and not self._is_within_pair()):
                step = self.done.steps
                outcome = self._dispatch()
                if outcome is None:
                    break
                if behind is not None:
                    clock = self._settle(behind, behind_step, clock)
                behind = self._latest = outcome
                behind_step = step
                if self._batch_hooks is not None:
                    self._batch_hooks.after(self.done.steps, outcome.logs)
                if self._is_within_pair():
                    continue
                if self.recorder.due():
                    self._checkpoint_inside()
                self._poll()
        finally:
            # An epoch that was cut short still leaves every step that was dispatched.
            if behind is not None:
                self._settle(behind, behind_step, clock)
        self._note_logs()

    def _note_logs(self) -> None:
        """Note the logs of the last step, which a resumed epoch cannot compute again."""
        latest, self._latest = self._latest, None
        if latest is not None:
            self.done.logs = epoch_logs(self.model, latest.logs())

    def _dispatch(self) -> Outcome | None:
        """Train a few steps, after callbacks have heard that they come."""
        step, hooks = self.done.steps, self._batch_hooks
        block = self.feed.next_block(self._most_steps())
        if block is None:
            if hooks is not None:
                hooks.close(step)
            return None
        try:
            if hooks is not None:
                hooks.before(step)
            outcome = self.engine.train(block)
        except BaseException:
            if not self.engine.is_lost():
                self.feed.put_back(block)
            raise
        self.position = replace(
            self.position,
            step=self.position.step + block.count,
            samples=self.position.samples + block.count * block.samples,
        )
        self.done = replace(self.done, steps=step + block.count)
        # Until here a second Ctrl-C finds steps that are in the variables and not in the counters.
        self.engine.unsettled = False
        self.leaks.trained(self.feed, block)
        return outcome

    def _most_steps(self) -> int:
        """Return how many steps the next dispatch may have."""
        if self._batch_hooks is not None:
            return self._batch_hooks.most(self.done.steps)
        return int(self.model.steps_per_execution) if self.model.stop_training else self.pace.steps

    def _is_within_pair(self) -> bool:
        """Return whether batch hooks have been told that steps begin, and not yet that they end."""
        return self._batch_hooks is not None and self._batch_hooks.is_open

    def _settle(self, outcome: Outcome, step: int, since: float) -> float:
        """Wait for a dispatch that began after ``step`` steps, look at its loss, learn its pace; return the time."""
        outcome.wait()
        now = time.perf_counter()
        self.pace.note(outcome.count, now - since)
        self.progress.update(self.done.steps, outcome.logs)
        bad = outcome.first_nonfinite()
        if bad is not None:
            self.good = False
            self._say_nonfinite(step + bad + 1)
        return now

    def _say_nonfinite(self, step: int) -> None:
        if self._said_nonfinite:
            return
        self._said_nonfinite = True
        epoch = self.first_label + self.done.epochs + 1
        message = (
            f"The loss became NaN or infinite in fit {self.record.number}, epoch {epoch}, step {step}. "
            "The last good checkpoint is kept; run.load(fit=...) brings back a kept state."
        )
        self.recorder.event("nonfinite", message, fit=self.record.number, epoch=epoch, step=self.position.step)
        self.progress.say(message)
        warn(message)

    def _validate(self, label: int) -> dict[str, Any]:
        if self.validation is None or not _keras.should_validate(self.model, label, self.validation.frequency):
            return {}
        self.progress.validation()
        logs = evaluate(
            self.model,
            self.validation.engine,
            self.validation.feed,
            callbacks=self.callbacks,
            batch_hooks=self._test_hooks,
            poll=self._poll,
            watch=self.leaks.validated if self.leaks.is_comparing else None,
        )
        self.leaks.end_validation()
        return {f"val_{name}": value for name, value in logs.items()}

    def _finish_epoch(self, label: int, logs: dict[str, Any], seen: dict[str, Any], seconds: float) -> None:
        """Record an epoch: ``logs`` are the loop's own, ``seen`` those that the History has, with all additions."""
        self.position = replace(self.position, epoch=self.position.epoch + 1)
        recorded = numbers(seen)
        if any(value != value or value in (float("inf"), float("-inf")) for value in recorded.values()):
            self.good = False
        self.recorder.put_epoch(
            EpochRecord(
                fit=self.record.number,
                epoch=self.position.epoch - 1,
                label=label,
                logs=recorded,
                learning_rate=current_rate(self.model, self.engine.variables.known),
                steps=self.done.steps,
                step=self.position.step,
                samples=self.position.samples,
                seconds=seconds,
                ended=time.time(),
            )
        )
        self.done = FitProgress(epochs=self.done.epochs + 1)
        self.record = replace(self.record, epochs_done=self.done.epochs)
        if found := arrays(seen):
            earlier = self.record.detail.get("array_logs", {})
            detail = {**self.record.detail, "array_logs": {**earlier, str(self.position.epoch - 1): found}}
            self.record = replace(self.record, detail=detail)
        self.progress.epoch_end(label, recorded, seconds)
        self.last_logs = logs
        self._safe = None
        if self.recorder.due():
            self._checkpoint_inside()

    # The end

    def _end(self) -> tuple[Snapshot, Snapshot]:
        """Do what Keras does at the end of fit, and keep the state on both sides of it."""
        resume = self._safe = self.snapshot()
        reached = 0 < self.done.epochs == self.record.epochs_planned
        swapping = finalize_averages(self.callbacks.callbacks, params=self.callbacks.params, whole=reached)
        if self.record.epochs_planned > 0 and _keras.finalize_weights(self.model):
            self.engine.variables.known.forget()
        averaged = self._weights()
        self.callbacks.on_train_end(self.last_logs)
        unchanged = all(now is before for now, before in zip(self._weights(), averaged, strict=True))
        rewriters = self._keys_of(swapping)
        if not unchanged:
            rewriters += self._keys_of(c for c in self.callbacks.callbacks if may_rewrite_weights(c))
        stopped = bool(self.model.stop_training)
        self.position = replace(self.position, fit=self.record.number)
        for part, source in (("source", self.feed.source), ("validation", self._validation_source)):
            from_source, tensors = source_state(source, part=part)
            if from_source is not None and not tensors:
                # A replay needs it also where the state around it is not kept.
                plain = {name: value for name, value in from_source.items() if name != "marks"}
                self.record = replace(self.record, detail={**self.record.detail, part: plain})
        # Nobody has drawn since the resume point where there is no callback.
        result = self.snapshot(random_state=None if self._watched else resume.state["randomness"])
        self.record = replace(
            self.record,
            status="stopped" if stopped else "finished",
            stop_training=stopped,
            ended=time.time(),
            detail={
                **self.record.detail,
                "rewriters": [*self.record.detail["facts"]["rewriters"], *rewriters],
                **(small_things(result, began=self.began) if self.recorder.durable else {}),
            },
        )
        self.recorder.put_fit(self.record)
        whole = joined(result, resume)
        self.recorder.checkpoint(
            kind="end",
            fit=self.record.number,
            position=self.position,
            tensors=whole.tensors,
            state=whole.state,
            good=self.good,
        )
        self.progress.end(self.recorder.epochs.last_logs(self.record.number))
        return result, resume

    def _weights(self) -> list[Any]:
        """Return the arrays that the model's variables hold."""
        found = self.engine.variables
        return found.known.values([*found.trainable, *found.non_trainable])

    def _keys_of(self, callbacks: Iterable[Any]) -> list[str]:
        """Return the keys of callbacks of the fit."""
        keys = dict(zip(map(id, self.callbacks.callbacks), self.record.detail["callbacks"], strict=False))
        return [keys[id(callback)] for callback in callbacks if id(callback) in keys]  # the loop's own have none

    def _checkpoint_inside(self, *, wait: bool = False, snapshot: Snapshot | None = None) -> None:
        snapshot = snapshot or self.snapshot()
        self.recorder.put_fit(self.record)
        self.recorder.checkpoint(
            kind="inside",
            fit=self.record.number,
            position=Position(**snapshot.state["position"]),
            tensors=snapshot.tensors,
            state=snapshot.state,
            good=self.good,
            wait=wait,
            now=True,
        )

    def _keep_interrupted(self, reason: str) -> None:
        """Keep the last finished step, whatever went wrong; never hide what did."""
        self.progress.abort()
        self.engine.variables.known.forget()
        message = f"Fit {self.record.number} was {reason}, {self._place()}."
        self.recorder.event(
            "interrupted", message, fit=self.record.number, epoch=self.position.epoch, step=self.position.step
        )
        if self.engine.is_lost():
            self._recover()
        elif self.start is not None:
            tensors = {**self.start.tensors, **self.engine.variables.values()}
            self.interrupted = Snapshot(tensors, self.start.state)
        elif self._begun:
            self.interrupted = self._safe or self.snapshot()
        if self.interrupted is None:
            return
        try:
            self._checkpoint_inside(wait=True, snapshot=self.interrupted)
        except RunFolderError as error:
            warn(f"The interrupted fit could not be written: {error}")
            with suppress(RunFolderError):
                self.recorder.check()  # the same trouble, told already

    def _recover(self) -> None:
        """Bring the model back to the newest checkpoint of the fit, after a dispatch took its state with it."""
        self.is_lost = True
        self.engine.unsettled = False
        checkpoint = self.recorder.newest(fit=self.record.number)
        if checkpoint is None:
            return  # the run goes back to the end of the fit before
        _, resume = parted(*self.recorder.load(checkpoint))
        self.engine.variables.assign(resume.variables())
        self.position = checkpoint.position
        self.done = FitProgress.from_json(resume.state["progress"])
        self.interrupted = resume
        message = f"The model was brought back to the checkpoint after step {checkpoint.position.step} of the run."
        self.recorder.event("notice", message, fit=self.record.number)
        warn(message)

    def _poll(self) -> None:
        self.recorder.check()
        if self._interrupts.noted:
            raise _LeaveError

    def _place(self) -> str:
        epoch = self.first_label + self.done.epochs + 1
        return f"in fit {self.record.number}, epoch {epoch}, step {self.done.steps}"
