"""The one loop, for all backends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import keras

from keepfit import _keras
from keepfit.attributes import Attributes
from keepfit.callbacks import (
    BatchHooks,
    CallbackMemory,
    Progress,
    finalize_averages,
    has_test_batch_hooks,
    has_train_batch_hooks,
    may_change_settings,
    may_rewrite_weights,
)
from keepfit.engine.base import Engine, Outcome
from keepfit.errors import warn
from keepfit.evaluation import evaluate
from keepfit.feed import Feed
from keepfit.fit_state import FitState
from keepfit.interrupts import Interrupts
from keepfit.journal import EpochRecord
from keepfit.keeper import Keeper
from keepfit.leaks import LeakGuard
from keepfit.logs import arrays, numbers
from keepfit.pace import Pace
from keepfit.phases import current_rate, fresh_values
from keepfit.recorder import Recorder
from keepfit.snapshot import Snapshot
from keepfit.state import unbuilt_optimizers


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
        state: Where the fit stands.
        feed: Training data.
        validation: Validation data, if any.
        callbacks: A ``keras.callbacks.CallbackList`` with a History.
        memory: The memory of its callbacks.
        progress: What a person sees.
        pace: How many steps to dispatch at once.
        leaks: Knows which rows were trained on.
        attributes: Knows which attributes of the model have changed.
    """

    def __init__(
        self,
        *,
        model: Any,
        engine: Engine,
        recorder: Recorder,
        state: FitState,
        feed: Feed,
        validation: Validation | None,
        callbacks: Any,
        memory: CallbackMemory,
        progress: Progress,
        pace: Pace,
        leaks: LeakGuard,
        attributes: Attributes,
    ) -> None:
        self.model = model
        self.engine = engine
        self.recorder = recorder
        self.state = state
        self.feed = feed
        self.validation = validation
        self.callbacks = callbacks
        self.memory = memory
        self.progress = progress
        self.pace = pace
        self.leaks = leaks
        self.interrupts = Interrupts()
        self._batch_hooks: BatchHooks | None = None
        if has_train_batch_hooks(callbacks.callbacks):
            self._batch_hooks = BatchHooks(
                callbacks.on_train_batch_begin, callbacks.on_train_batch_end, every=model.steps_per_execution
            )
        self._test_hooks = has_test_batch_hooks(callbacks.callbacks)
        own = [c for c in callbacks.callbacks if type(c) is not keras.callbacks.History]
        self._may_change = any(map(may_change_settings, own))
        # Where nobody else's code runs, nobody changes any.
        self._attributes = attributes if self._may_change or attributes.may_change(engine.variables) else None
        self.keeper = Keeper(
            state,
            model=model,
            engine=engine,
            recorder=recorder,
            feed=feed,
            validation=None if validation is None else validation.feed.source,
            memory=memory,
            leaks=leaks,
            attributes=self._attributes,
            watched=bool(own) or validation is not None,
        )
        self._said_nonfinite = False
        # Optimizers that the first step has yet to build, and what it builds to be listed.
        self._unbuilt = bool(unbuilt_optimizers(model))
        self.last_logs: dict[str, Any] = {}
        # The global generators before the fit, where they are known.
        self.began: Any = None

    def run(self, begin: Callable[[], None]) -> tuple[Snapshot, Snapshot]:
        """Train what is left of the fit, under `interrupts`.

        Args:
            begin: Called after ``on_train_begin``; gives callbacks their memory back.

        Returns:
            The two ends of the fit: the result and the resume point.
        """
        try:
            if self._attributes is not None:
                self._attributes.begin(everything=self.engine.heeds_attributes())
            self.callbacks.on_train_begin()
            begin()
            self.keeper.start = None
            while self.state.done.epochs < self.state.record.epochs_planned and not self._is_stopped():
                self._epoch()
                if self.feed.is_dry:
                    break
            else:
                # Who is interrupted here calls the same fit again, which is to end and not to begin another.
                self._poll()
            return self._end()
        except _LeaveError:
            self._keep("interrupted by a signal")
            self.interrupts.leave()
            raise KeyboardInterrupt from None
        except BaseException as error:
            self._keep(f"interrupted by {type(error).__name__}")
            error.add_note(self.state.place)
            raise

    # One epoch

    def _is_stopped(self) -> bool:
        """Return whether no epoch comes any more; as in Keras, one that has begun ends, and the first one begins."""
        return bool(self.model.stop_training) and self.state.done.epochs > 0 and not self.state.done.begun

    def _epoch(self) -> None:
        started = time.perf_counter()
        label = self.state.label
        self._poll()
        self.keeper.make_safe()
        if self.state.done.begun:
            # A resumed epoch: its beginning has happened already, and schedules must not act twice.
            if not self.state.done.trained:
                self.feed.resume_epoch(self.state.done.steps)
        else:
            self.engine.reset_metrics()
            self.callbacks.on_epoch_begin(label)
            self.state.begin_epoch()
            self.feed.begin_epoch()
        self._heed_settings()
        self.keeper.begun = True
        self.keeper.safe = None
        self.progress.epoch_begin(label)
        if not self.state.done.trained:
            self._steps()
            if self.state.done.epochs + 1 == self.state.record.epochs_planned:
                self.engine.variables.known.look(self.engine.variables.all())
            self.feed.end_epoch()
            self.state.done = replace(self.state.done, trained=True)
        self.keeper.make_safe()
        logs = {**self.state.done.logs, **self._validate(label)}
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
            while not (self.model.stop_training and self.state.done.steps and not self._is_within_pair()):
                step = self.state.done.steps
                outcome = self._dispatch()
                if outcome is None:
                    break
                if behind is not None:
                    clock = self._settle(behind, behind_step, clock)
                behind = outcome
                behind_step = step
                if self._batch_hooks is not None:
                    self._batch_hooks.after(self.state.done.steps, outcome.logs)
                if self._is_within_pair():
                    continue
                if self.recorder.due():
                    self.keeper.checkpoint()
                self._poll()
        finally:
            # An epoch that was cut short still leaves every step that was dispatched.
            if behind is not None:
                self._settle(behind, behind_step, clock)
        self.state.note_logs(self.model)

    def _dispatch(self) -> Outcome | None:
        """Train a few steps, after callbacks have heard that they come."""
        step, hooks = self.state.done.steps, self._batch_hooks
        block = self.feed.next_block(self._most_steps())
        if block is None:
            if hooks is not None:
                hooks.close(step)
            return None
        try:
            if hooks is not None:
                hooks.before(step)
                self._heed_settings()
            outcome = self.engine.train(block)
        except BaseException:
            self._begin_optimizers_anew()
            if not self.engine.is_lost():
                self.feed.put_back(block)
            raise
        self.state.count(outcome, samples=block.samples)
        # Until here a second Ctrl-C finds steps that are in the variables and not in the counters.
        self.engine.unsettled = False
        if self._unbuilt:
            self._unbuilt = False
            self.engine.refresh()
        self.leaks.trained(self.feed, block)
        return outcome

    def _heed_settings(self) -> None:
        """Let the engine see what callbacks have changed: a fit cut here would see it, too."""
        if self._may_change:
            self.engine.heed_settings()

    def _begin_optimizers_anew(self) -> None:
        """Let optimizers begin as they were made that a first step has built before it failed."""
        if self._unbuilt:
            known = set(self.engine.variables.names)
            variables = self.engine.refresh()
            fresh = fresh_values(self.model, set(variables.names) - known)
            variables.assign(fresh, skip=lambda name: name not in fresh)

    def _most_steps(self) -> int:
        """Return how many steps the next dispatch may have."""
        if self._batch_hooks is not None:
            return self._batch_hooks.most(self.state.done.steps)
        return int(self.model.steps_per_execution) if self.model.stop_training else self.pace.steps

    def _is_within_pair(self) -> bool:
        """Return whether batch hooks have been told that steps begin, and not yet that they end."""
        return self._batch_hooks is not None and self._batch_hooks.is_open

    def _settle(self, outcome: Outcome, step: int, since: float) -> float:
        """Wait for a dispatch that began after ``step`` steps, look at its loss, learn its pace; return the time."""
        outcome.wait()
        now = time.perf_counter()
        self.pace.note(outcome.count, now - since)
        self.progress.update(self.state.done.steps, outcome.logs)
        bad = outcome.first_nonfinite()
        if bad is not None:
            self.state.good = False
            self._say_nonfinite(step + bad + 1)
        return now

    def _say_nonfinite(self, step: int) -> None:
        if self._said_nonfinite:
            return
        self._said_nonfinite = True
        epoch = self.state.label + 1
        message = (
            f"The loss became NaN or infinite in fit {self.state.record.number}, epoch {epoch}, step {step}. "
            "The last good checkpoint is kept; run.load(fit=...) brings back a kept state."
        )
        self.recorder.event(
            "nonfinite", message, fit=self.state.record.number, epoch=epoch, step=self.state.position.step
        )
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
        state, recorded = self.state, numbers(seen)
        if any(value != value or value in (float("inf"), float("-inf")) for value in recorded.values()):
            state.good = False
        self.recorder.put_epoch(
            EpochRecord(
                fit=state.record.number,
                epoch=state.position.epoch,
                label=label,
                logs=recorded,
                learning_rate=current_rate(self.model, self.engine.variables.known),
                steps=state.done.steps,
                step=state.position.step,
                samples=state.position.samples,
                seconds=seconds,
                ended=time.time(),
            )
        )
        state.end_epoch(arrays(seen))
        self.progress.epoch_end(label, recorded, seconds)
        self.last_logs = logs
        self.keeper.safe = None
        if self.recorder.due():
            self.keeper.checkpoint()

    # The end

    def _end(self) -> tuple[Snapshot, Snapshot]:
        """Do what Keras does at the end of fit, and keep the state on both sides of it."""
        resume = self.keeper.safe = self.keeper.snapshot()
        reached = 0 < self.state.done.epochs == self.state.record.epochs_planned
        swapping = finalize_averages(self.callbacks.callbacks, params=self.callbacks.params, whole=reached)
        if self.state.record.epochs_planned > 0 and _keras.finalize_weights(self.model):
            self.engine.variables.known.forget()
        averaged = self._weights()
        self.callbacks.on_train_end(self.last_logs)
        unchanged = all(now is before for now, before in zip(self._weights(), averaged, strict=True))
        rewriters = self._keys_of(swapping)
        if not unchanged:
            rewriters += self._keys_of(c for c in self.callbacks.callbacks if may_rewrite_weights(c))
        result = self.keeper.keep_end(resume, rewriters=rewriters, began=self.began)
        self.progress.end(self.recorder.epochs.last_logs(self.state.record.number))
        return result, resume

    def _weights(self) -> list[Any]:
        """Return the arrays that the model's variables hold."""
        found = self.engine.variables
        return found.known.values([*found.trainable, *found.non_trainable])

    def _keys_of(self, callbacks: Iterable[Any]) -> list[str]:
        """Return the keys of callbacks of the fit."""
        keys = dict(zip(map(id, self.callbacks.callbacks), self.state.record.detail["callbacks"], strict=False))
        return [keys[id(callback)] for callback in callbacks if id(callback) in keys]  # the loop's own have none

    def _keep(self, reason: str) -> None:
        self.progress.abort()
        self.keeper.keep_interrupted(reason)

    def _poll(self) -> None:
        self.recorder.check()
        if self.interrupts.noted:
            raise _LeaveError
