"""One call of ``fit``: find out what it means, then replay, resume or train."""

from __future__ import annotations

import time
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import keras

from keepfit import randomness
from keepfit.callbacks import (
    CallbackMemory,
    SavedMemories,
    callback_keys,
    depends_on_epoch_numbers,
    drop_backup_and_restore,
    hold_averages_back,
    make_progress,
)
from keepfit.clock import Position
from keepfit.data import StreamSource, evaluation_source, split_validation, training_source
from keepfit.ends import Ends, phase_of, rewound, set_by_hand
from keepfit.errors import InvalidArgument, NotCompiled
from keepfit.feed import Cursor, Feed
from keepfit.journal import FitRecord
from keepfit.logs import array
from keepfit.loop import FitLoop, FitProgress, Validation, current_rate
from keepfit.recipe import Recipe, learning_rate_config, recipe_changed
from keepfit.request import FitRequest
from keepfit.snapshot import Snapshot, parted, source_state_of
from keepfit.task import describe_difference, recipe_of, task_facts
from keepfit.timeline import Decision, OpenFit, decide

if TYPE_CHECKING:
    from keepfit.run import Run


class FitCall:
    """One call of ``fit`` on a run.

    Args:
        run: The run.
        request: The arguments of the call.
    """

    def __init__(self, run: Run, request: FitRequest) -> None:
        self.run = run
        self.request = request
        self.place = run.place
        self.model = run.model
        self.recorder = run.recorder

    def perform(self) -> Any:
        """Do what the call means.

        Returns:
            The ``keras.callbacks.History`` of the fit.
        """
        self._prepare()
        decision = self._decide()
        if decision.kind == "changed":
            decision = self._branch(decision)
        for path, pair in decision.comparison.warns.items():
            self.run.notice(
                f"Fit {decision.number}: {path} differs from what was recorded.", kind="recipe", data={path: pair}
            )
        if decision.kind == "replay":
            return self._replay(decision)
        if decision.kind == "resume":
            return self._resume(decision)
        return self._train_new(decision.number)

    # What is asked

    def _prepare(self) -> None:
        """Check the arguments, read the sources, and bring the model to where the run stands."""
        request = self.request
        if not self.model.compiled or self.model.optimizer is None:
            raise NotCompiled(
                "The model is not compiled. Nothing was changed. Call model.compile(optimizer, loss) before fit()."
            )
        given = keras.tree.flatten(request.callbacks) if request.callbacks else []
        self.callbacks, dropped = drop_backup_and_restore(given)
        if dropped:
            self.run.notice(dropped)
        x, y, weights = request.x, request.y, request.sample_weight
        validation = request.validation_data
        if request.validation_split and validation is None:
            (x, y, weights), validation = split_validation(x, y, weights, request.validation_split)
        self.source = training_source(
            x,
            y,
            weights,
            batch_size=request.batch_size,
            steps_per_epoch=request.steps_per_epoch,
            shuffle=request.shuffle,
            class_weight=request.class_weight,
            seed=self.run.seed,
        )
        self.validation_source = None
        if validation is not None:
            value_x, value_y, value_weights = keras.utils.unpack_x_y_sample_weight(validation)
            self.validation_source = evaluation_source(
                value_x,
                value_y,
                value_weights,
                batch_size=request.validation_batch_size or request.batch_size,
                steps=request.validation_steps,
            )
        # A generator may draw from the global generators while it is brought to where the run stands.
        self.randomness = randomness.take() if isinstance(self.source, StreamSource) else None
        self.batch = self.source.peek()
        self.run.ready(
            self.batch, fresh_optimizer="optimizer" in [item for item in request.fresh if isinstance(item, str)]
        )
        self.variables = self.run.engine.variables
        self._recipe: Recipe | None = None

    @property
    def recipe(self) -> Recipe:
        """What the call asks for; made when something is compared with it, or when it is recorded."""
        if self._recipe is None:
            self._recipe = recipe_of(
                self.model,
                self.request,
                variables=self.variables,
                ends=self.place.ends,
                batch_size=self.source.batch_size,
            )
        return self._recipe

    def _decide(self) -> Decision:
        place = self.place
        if place.open is not None:
            return self._after_interruption(place.open)
        if self.run.mode == "replay" and not self.recorder.fits.get(place.fits + 1):
            return Decision("new", place.fits + 1)
        return decide(self.recorder, place, self.recipe, mode=self.run.mode, describe=describe_difference)

    def _after_interruption(self, left: OpenFit) -> Decision:
        """The same recipe goes on; another one closes the interrupted fit as it stands and begins a new one."""
        number = left.record.number
        if left.snapshot is None:
            self.place.open = None
            return Decision("new", number)
        asked = self.recipe
        touched = set_by_hand(self.variables, left.values) or learning_rate_config(self.model.optimizer) != left.rate
        strict = {
            **asked.strict,
            "start": left.recipe.strict["start"],
            "learning_rate": left.recipe.strict["learning_rate"],
        }
        same = replace(asked, strict=strict, warned=left.recipe.warned) == left.recipe
        if same and not touched:
            return Decision("resume", number, left.record)
        self.run.close_interrupted(left)
        self._recipe = None
        return Decision("new", self.place.fits + 1)

    def _branch(self, decision: Decision) -> Decision:
        change = self.request.on_change if self.request.on_change != "raise" else self.run.on_change
        number = decision.number
        if change != "branch":
            raise recipe_changed(
                number,
                decision.record.name if decision.record else None,
                decision.comparison,
                directory=self.run.directory,
                describe=describe_difference,
            )
        if self.place.missing is not None:
            self.run.stand_at(number - 1, must=True)
        self.recorder.branch(after=number - 1)
        self.run.notice(
            f"Fit {number} has another recipe than recorded ({', '.join(list(decision.comparison.raises)[:5])}): "
            f"the recorded fit and what follows it were closed as a branch, training goes on after fit {number - 1}.",
            kind="branch",
            fit=number,
        )
        return Decision("new", number)

    # What is done

    def _replay(self, decision: Decision) -> Any:
        """Return the recorded history and put the fit's end state in the model; nothing is trained."""
        record = decision.record
        assert record is not None
        progress = self._progress(record)
        restored = self.run.stand_at(record.number)
        callbacks = self._callback_list(record)
        if restored is not None:
            memory = CallbackMemory(callbacks.callbacks)
            saved = SavedMemories.from_state(restored.state.get("callbacks", []), restored.tensors)
            memory.put_back(saved)
        if isinstance(self.source, StreamSource):
            self.run.owe(self.request.x, record.detail.get("consumed", 0))
        self.model.stop_training = record.stop_training
        history = self._history(callbacks, record)
        last = self.recorder.epochs.last_logs(record.number)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in last.items())
        epochs = f"{record.epochs_done} epoch{'' if record.epochs_done == 1 else 's'}"
        progress.say(f"fit {record.number} was done before: {epochs}{', ' + shown if shown else ''}")
        return history

    def _train_new(self, number: int) -> Any:
        place = self.place
        if place.missing is not None:
            self.run.stand_at(number - 1, must=True)
        ends = place.ends
        facts = task_facts(self.model, self.request, variables=self.variables)
        changed = set_by_hand(self.variables, ends.values)
        keys = callback_keys(self.callbacks)
        phase, reason = phase_of(ends, facts, changed=changed, callback_keys=keys)
        recipe = self.recipe if self.recorder.durable else None
        back = rewound(ends) if phase == "continues" else {}
        if back:
            self.variables.assign(back, skip=lambda name: name not in back)
        if phase == "new":
            self.run.say_once(f"phase {number}", f"Fit {number} is a new phase: {reason}.", kind="phase")
        record = FitRecord(
            number=number,
            name=self.request.name,
            phase=phase,  # type: ignore[arg-type]
            phase_reason=reason,
            recipe=recipe.to_json() if recipe else {},
            epochs_planned=self.request.planned_epochs,
            first_epoch=place.position.epoch,
            first_step=place.position.step,
            first_samples=place.position.samples,
            started=time.time(),
            learning_rate=current_rate(self.model),
            detail={"facts": facts, "callbacks": keys},
        )
        point = ends.resume if phase == "continues" else ends.result
        mode: Literal["all", "best", "none"] = "all" if phase == "continues" else self._memory_mode(ends, facts)
        drop = facts["data"] is not None and ends.facts().get("data") != facts["data"]
        return self._train(record, point=point, done=FitProgress(), mode=mode, drop_best_weights=drop)

    def _memory_mode(self, ends: Ends, facts: dict[str, Any]) -> Literal["best", "none"]:
        same = all(ends.facts().get(name) == facts.get(name) for name in ("loss", "metrics", "validation"))
        return "best" if ends.record is not None and same else "none"

    def _resume(self, decision: Decision) -> Any:
        """Go on inside a fit that was killed, interrupted, or is asked for more epochs."""
        record = decision.record
        assert record is not None
        left = self.place.open
        if left is not None and left.snapshot is not None:
            snapshot = left.snapshot
        else:
            checkpoint = self.recorder.newest(fit=record.number, kinds=("inside", "end"))
            if checkpoint is None:
                # Killed before its first checkpoint: it begins again, from the end of the fit before it.
                return self._train_new(record.number)
            snapshot = parted(*self.recorder.load(checkpoint))[1]
        if decision.comparison.more_epochs:
            self._warn_of_length(record)
        done = FitProgress.from_json(snapshot.state["progress"])
        self.run.restore(snapshot)
        self.place.open = None
        self.place.position = Position.from_json(snapshot.state["position"])
        record = replace(
            record,
            status="open",
            epochs_planned=self.request.planned_epochs,
            epochs_done=done.epochs,
            recipe=self.recipe.to_json() if decision.comparison.more_epochs else record.recipe,
            ended=None,
        )
        epoch = self._first_label(record) + done.epochs + 1
        message = f"fit {record.number} resumed at epoch {epoch}, step {done.steps}"
        self.recorder.event(
            "resumed", message, fit=record.number, epoch=self.place.position.epoch, step=self.place.position.step
        )
        return self._train(record, point=snapshot, done=done, mode="all", drop_best_weights=False, message=message)

    def _train(
        self,
        record: FitRecord,
        *,
        point: Snapshot,
        done: FitProgress,
        mode: Literal["all", "best", "none"],
        drop_best_weights: bool,
        message: str | None = None,
    ) -> Any:
        run, place = self.run, self.place
        plan = run.engine.prepare(self.batch, plan=record.plan.get("plan") or run.plan)
        resumed = message is not None
        cursor = self._cursor(point, resumed=resumed)
        feed = Feed(
            self.source, cursor=cursor, steps_per_epoch=self.request.steps_per_epoch, most_steps=run.engine.most_steps
        )
        approximate = self._bring_source(point, resumed=resumed)
        for text in approximate:
            run.notice(f"Fit {record.number}: {text}.", kind="approximate", fit=record.number)
        # On a resume the plan was asked for by the record; why it was chosen is what the record says.
        reason = {"reason": record.plan["reason"]} if record.plan.get("plan") == plan.kind else {}
        record = replace(record, plan={**plan.to_json(), **reason}, approximate=[*record.approximate, *approximate])
        self._compare_plan(point, record)
        self.recorder.put_fit(record)
        callbacks = self._callback_list(record)
        hold_averages_back(callbacks.callbacks)
        memory = CallbackMemory(callbacks.callbacks, fresh=self.request.fresh)
        saved = SavedMemories.from_state(point.state.get("callbacks", []), point.under("callbacks/"))
        for text in memory.before_begin(saved, resumed=resumed):
            run.say_once(text, text)
        if not resumed:
            self._say_epoch_numbers(record)
        self.model.stop_training = bool(point.state.get("stop_training")) if resumed else False
        progress = self._progress(record)
        loop = FitLoop(
            model=self.model,
            engine=run.engine,
            recorder=self.recorder,
            record=record,
            feed=feed,
            validation=self._validation(),
            callbacks=callbacks,
            memory=memory,
            progress=progress,
            position=place.position,
            done=done,
            first_label=self._first_label(record),
            pace=run.pace,
        )
        progress.begin(message)

        def begin() -> None:
            for text in memory.after_begin(saved, mode=mode, drop_best_weights=drop_best_weights):
                run.say_once(text, text)
            self._history(callbacks, record)

        point.release_variables()
        place.ends.release()
        loop.start = point if resumed else None
        try:
            result, resume = loop.run(begin)
        except BaseException:
            self._note_open(loop)
            raise
        finally:
            place.position = loop.position
        self._close(loop, result, resume)
        for text in memory.say_unsaved():
            run.say_once(text, text)
        return self.model.history

    def _close(self, loop: FitLoop, result: Snapshot, resume: Snapshot) -> None:
        place = self.place
        place.fits = loop.record.number
        place.open = None
        place.ends = Ends(loop.record, result, resume, self.run.engine.variables.values())

    def _note_open(self, loop: FitLoop) -> None:
        recipe = Recipe.from_json(loop.record.recipe) if loop.record.recipe else self.recipe
        if loop.interrupted is None:
            # Nothing was trained: what the fit would have begun with is still what the variables hold.
            values = self.run.engine.variables.values()
            for end in (self.place.ends.result, self.place.ends.resume):
                end.tensors.update(values)
            self.place.ends.values = values
        self.place.open = OpenFit(
            record=loop.record,
            snapshot=loop.interrupted,
            recipe=recipe,
            rate=learning_rate_config(self.model.optimizer),
            values=self.run.engine.variables.values(),
        )

    # Parts

    def _validation(self) -> Validation | None:
        if self.validation_source is None:
            return None
        feed = Feed(
            self.validation_source, steps_per_epoch=self.request.validation_steps, most_steps=self.run.engine.most_steps
        )
        return Validation(feed, self.request.validation_freq)

    def _cursor(self, point: Snapshot, *, resumed: bool) -> Cursor:
        """Go on in the data where the run stands; other data, batch size or shuffle begin a new pass."""
        found = point.state.get("cursor") or self.place.ends.resume.state.get("cursor")
        if not found:
            return Cursor()
        cursor = Cursor.from_json(found)
        if resumed or cursor.offset == 0 or self._same_feed():
            return cursor
        return Cursor(cursor.passes + 1, 0)

    def _same_feed(self) -> bool:
        last = self.place.ends.record
        if last is None or self.request.steps_per_epoch is None:
            return False
        before = last.detail.get("feed")
        return before is None or before == self._feed_facts()

    def _feed_facts(self) -> dict[str, Any]:
        strict = self.recipe.strict
        return {name: strict[name] for name in ("data", "batch_size", "shuffle")}

    def _bring_source(self, point: Snapshot, *, resumed: bool) -> list[str]:
        """Bring the source to where the run stands in it.

        Returns:
            What is not exact about that.
        """
        source = self.source
        said = [f"the position in {type(self.request.x).__name__} was reached by going through it again"]
        if isinstance(source, StreamSource):
            found = point.state.get("source") or {}
            target = int(found.get("consumed", 0)) if resumed else self.run.owed(self.request.x)
            if target <= source.consumed:
                return []
            source.replay_to(target)
            randomness.restore(point.state["randomness"] if resumed else self.randomness or {})
            return said
        if resumed and (state := source_state_of(point)) is not None:
            source.set_state(state)
        if resumed and source.exactness != "exact":
            return (
                said if source.exactness == "replay" else [f"{type(self.request.x).__name__} has randomness of its own"]
            )
        return []

    def _first_label(self, record: FitRecord) -> int:
        return record.first_epoch if self.request.initial_epoch is None else self.request.initial_epoch

    def _say_epoch_numbers(self, record: FitRecord) -> None:
        """Say once that epoch numbers go on, where that decides what a callback does."""
        if record.first_epoch == 0 or self.request.initial_epoch is not None:
            return
        names = sorted({type(c).__name__ for c in self.callbacks if depends_on_epoch_numbers(c)})
        if names:
            self.run.say_once(
                "epoch numbers",
                f"Epoch numbers go on over fits: the first epoch of fit {record.number} is number {record.first_epoch} "
                f"(from 0) for {', '.join(names)}. With initial_epoch=0 numbers begin at 0, as in Keras.",
                fit=record.number,
            )

    def _callback_list(self, record: FitRecord) -> Any:
        first = self._first_label(record)
        return keras.callbacks.CallbackList(
            list(self.callbacks),
            add_history=True,
            model=self.model,
            verbose=self.request.verbose,
            epochs=first + self.request.planned_epochs,
            steps=self.request.steps_per_epoch or self.source.num_batches,
        )

    def _history(self, callbacks: Any, record: FitRecord) -> Any:
        """Fill the History callback with the epochs of this fit that are done."""
        history = next(c for c in callbacks.callbacks if isinstance(c, keras.callbacks.History))
        epochs = self.recorder.epochs.of(record.number)
        history.epoch = [epoch.label for epoch in epochs]
        history.history = {}
        for epoch in epochs:
            for name, value in epoch.logs.items():
                history.history.setdefault(name, []).append(value)
            for name, stored in record.detail.get("array_logs", {}).get(str(epoch.epoch), {}).items():
                history.history.setdefault(name, []).append(array(stored))
        self.model.history = history
        return history

    def _progress(self, record: FitRecord) -> Any:
        return make_progress(
            self.request.verbose,
            fit=record.number,
            name=record.name,
            epochs=record.epochs_planned,
            first_epoch=self._first_label(record),
            steps=self.request.steps_per_epoch or self.source.num_batches,
        )

    def _compare_plan(self, point: Snapshot, record: FitRecord) -> None:
        """Say when a resumed fit runs on something else than before, for then the last bits may differ."""
        before = point.state.get("plan") or {}
        changed = [
            f"{name}: {before[name]} before, {record.plan.get(name)} now"
            for name in ("backend", "plan", "device", "threads", "jax", "torch", "keras")
            if name in before and before[name] != record.plan.get(name)
        ]
        if changed:
            self.run.notice(
                f"Fit {record.number} goes on under other conditions ({'; '.join(changed)}): "
                "equal to rounding, not to the bit.",
                kind="approximate",
                fit=record.number,
            )

    def _warn_of_length(self, record: FitRecord) -> None:
        depends = [type(c).__name__ for c in self.callbacks if isinstance(c, keras.callbacks.SwapEMAWeights)]
        rate = learning_rate_config(self.model.optimizer)
        if isinstance(rate, dict):
            depends.append(str(rate.get("class", "schedule")))
        if depends:
            self.run.notice(
                f"Fit {record.number} is asked for {self.request.planned_epochs} epochs, "
                f"not {record.epochs_planned} as before; "
                f"{', '.join(depends)} may depend on the planned length, so the result is not that of one longer fit.",
                fit=record.number,
            )


def check_arguments(arguments: dict[str, Any]) -> FitRequest:
    """Return the request that arguments of ``fit`` make.

    Raises:
        InvalidArgument: An argument is unknown, or has no meaning.
    """
    known = FitRequest.__dataclass_fields__
    unknown = [name for name in arguments if name not in known]
    if unknown:
        raise InvalidArgument(
            f"fit() has no argument {unknown[0]!r}. Nothing was changed. "
            "It takes those of keras.Model.fit and name=, fresh=, on_change=.",
            argument=unknown[0],
        )
    return _capped(FitRequest(**arguments))


def _capped(request: FitRequest) -> FitRequest:
    """Return the request within the limits of ``keras.config``, which are meant for trying things out."""
    epochs, steps = keras.config.max_epochs(), keras.config.max_steps_per_epoch()
    if epochs and epochs < request.epochs:
        warnings.warn(f"Limiting epochs to {epochs}", stacklevel=4)
        request = replace(request, epochs=epochs)
    if steps and (request.steps_per_epoch is None or steps < request.steps_per_epoch):
        warnings.warn(f"Limiting steps_per_epoch to {steps}", stacklevel=4)
        request = replace(request, steps_per_epoch=steps)
    return request
