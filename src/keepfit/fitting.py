"""One call of ``fit``: find out what it means, then replay, resume or train."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import keras

from keepfit import _keras, nested, randomness
from keepfit.audience import callback_list, fill_history, progress_of
from keepfit.callbacks import (
    CallbackMemory,
    SavedMemories,
    callback_keys,
    drop_backup_and_restore,
    hold_averages_back,
)
from keepfit.caveats import epoch_numbers, other_conditions, other_length, other_validation
from keepfit.clock import Position
from keepfit.counted import count_once
from keepfit.data import Source, StreamSource, evaluation_source, split_validation, training_source
from keepfit.ends import Ends, phase_of, rewound, set_by_hand
from keepfit.errors import NotCompiled
from keepfit.feed import Feed
from keepfit.first_look import explained, look
from keepfit.frozen import Ground
from keepfit.journal import FitRecord
from keepfit.left import left_by
from keepfit.loop import FitLoop, FitProgress, Validation, current_rate
from keepfit.phases import Asked, begin_clocks, goes_by_fractions, is_zero_throughout
from keepfit.place import Decision, OpenFit, decide, longer, number_asked
from keepfit.placing import bring, cursor_at
from keepfit.recipe import Comparison, Recipe, learning_rate_config, recipe_changed
from keepfit.rehearsal import SAMPLED, Mix, Rehearsal
from keepfit.request import FitRequest
from keepfit.snapshot import Snapshot, parted
from keepfit.standing import close_interrupted, close_left_open, restore, stand_at
from keepfit.task import describe_difference, feed_facts, recipe_of, task_facts

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
        self._recipe: Recipe | None = None
        self._asked = Asked(self.model)
        # What the variables held before a continuing fit began at the resume point.
        self._rewound: dict[str, Any] = {}

    def perform(self) -> Any:
        """Do what the call means.

        Returns:
            The ``keras.callbacks.History`` of the fit.
        """
        try:
            self._prepare()
            decision = self._decide()
            if decision.kind == "changed":
                decision = self._branch(decision)
        except BaseException:
            self._asked.take_back()
            raise
        if decision.gives_way:
            self.recorder.branch(after=decision.number - 1)
        if self._dropped:
            self.run.notice(self._dropped)
        self.run.say_changes()
        self.run.seat_optimizer()
        self.variables = self.run.engine.variables
        if decision.left_open is not None:
            closed = close_left_open(self.run, decision.left_open)
            decision = Decision("new", decision.number if closed else decision.left_open.number)
            self._recipe = None
        decision = self._settle_rehearsal(decision)
        for path, pair in decision.comparison.warns.items():
            self.run.notice(
                f"Fit {decision.number}: {path} differs from what was recorded.", kind="recipe", data={path: pair}
            )
        if decision.kind == "replay":
            return self._replay(decision)
        if decision.kind == "resume":
            return self._resume(decision)
        with self.variables.known.undisturbed() if self._is_alone() else nullcontext():
            return self._train_new(decision.number)

    # What is asked

    def _prepare(self) -> None:
        """Check the arguments, read the sources, and bring the model to where the run stands."""
        request = self.request
        if not self.model.compiled or self.model.optimizer is None:
            raise NotCompiled(
                "The model is not compiled. Nothing was changed. Call model.compile(optimizer, loss) before fit()."
            )
        given = nested.flatten(request.callbacks) if request.callbacks else []
        self.callbacks, self._dropped = drop_backup_and_restore(given)
        count_once(self.recorder, request.x)
        x, y, weights = request.x, request.y, request.sample_weight
        validation = request.validation_data
        if request.validation_split and validation is None:
            (x, y, weights), validation = split_validation(x, y, weights, request.validation_split)
        self._given = (x, y)
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
        self.validation_source = self._validation_data = self._validation_given = None
        if validation is not None:
            value_x, value_y, value_weights = keras.utils.unpack_x_y_sample_weight(validation)
            self._validation_data = value_x
            self._validation_given = (value_x, value_y)
            self.validation_source = evaluation_source(
                value_x,
                value_y,
                value_weights,
                batch_size=request.validation_batch_size or request.batch_size,
                steps=request.validation_steps,
                counted=True,
            )
        self._rehearse()
        # A generator may draw from the global generators while it is brought to where the run stands.
        streams = any(isinstance(each, StreamSource) for each in (self.source, self.validation_source))
        self.randomness = randomness.take() if streams else None
        self.batch = self.source.peek()
        if request.train is not None:
            self._asked.train(request.train)
        with explained(self.model, self.batch, "the first batch"):
            self.run.ready(
                self.batch, fresh_optimizer="optimizer" in [item for item in request.fresh if isinstance(item, str)]
            )
        if request.learning_rate is not None:
            self._asked.rate(request.learning_rate)
            self.run.list_anew()
        if self._asked.clock(self._steps_of_fit(request.planned_epochs)):
            self.run.list_anew()
        self.variables = self.run.engine.variables
        self.began = self.randomness or (randomness.take() if self.recorder.durable else None)
        self._recipe = None

    def _rehearse(self) -> None:
        """Mix in samples of earlier fits, where the call asks for it."""
        run, request = self.run, self.request
        self._rehearsal: Rehearsal | None = None
        self._sampled: dict[str, Any] = {}
        self._mix = Mix(self.source)
        if run.past.wants(request):
            self._rehearsal = Rehearsal(run.past, request, self.source, self.validation_source)
            self._mix_in(number_asked(self.recorder, self.place, name=request.name, mode=run.mode))
        self.steps = request.steps_per_epoch or self.source.num_batches

    def _mix_in(self, number: int) -> None:
        assert self._rehearsal is not None
        self._mix = self._rehearsal.mixed(number)
        self.source = self._mix.source
        self._mixed_for = number

    def _settle_rehearsal(self, decision: Decision) -> Decision:
        """Keep samples for later fits, now that the fit has its number."""
        if decision.kind == "new":
            self.run.past.forget(decision.number)
        elif decision.kind == "resume":
            self.run.past.retested.forget(decision.number, later=False)
        if self.validation_source is not None:
            self.run.past.validated.note(decision.number, self.request)
        if self._rehearsal is None:
            return decision
        if self._mixed_for != decision.number:  # an interrupted fit was closed, and is an earlier one now
            self._mix_in(decision.number)
            self.steps = self.request.steps_per_epoch or self.source.num_batches
            self.batch = self.source.peek()
            self._recipe = None
        self._sampled, told = self._rehearsal.keep(decision.number)
        for text in (*told, *self._rehearsal.gaps(decision.number, self._mix, self.recorder.fits)):
            self.run.say_once(text, text, fit=decision.number)
        record = decision.record
        if record is None or decision.kind == "new" or SAMPLED in record.detail or not self._sampled:
            return decision
        record = replace(record, detail={**record.detail, **self._sampled})  # asked for since
        self.recorder.put_fit(record)
        return replace(decision, record=record)

    def _is_alone(self) -> bool:
        """Return whether nobody else's code runs during the fit but the model's own: no callback, no generator."""
        return not self.callbacks and self.validation_source is None and getattr(self.source, "resident", False)

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
                signature=self.recorder.meta.get("model"),
                rehearsed=self._mix.facts,
            )
        return self._recipe

    def _decide(self) -> Decision:
        place = self.place
        if place.open is not None:
            return self._after_interruption(place.open)
        if self.run.mode == "replay" and not self.recorder.fits.get(place.fits + 1):
            return Decision("new", place.fits + 1)
        found = decide(self.recorder, place, self.recipe, mode=self.run.mode, describe=describe_difference)
        return longer(found, self.recipe) if goes_by_fractions(self.model.optimizer) else found

    def _after_interruption(self, left: OpenFit) -> Decision:
        """The same recipe goes on; another one closes the interrupted fit as it stands and begins a new one."""
        number = left.record.number
        if left.snapshot is None:
            self.place.open = None
            return Decision("new", number)
        asked = self.recipe
        before = left.recipe
        rate = learning_rate_config(self.model.optimizer)
        # A rate that the call gives is the one to begin with; one set by hand, the one to go on with.
        other_rate = rate != (left.rate if self.request.learning_rate is None else before.strict["learning_rate"])
        longer_now = asked.epochs > before.epochs and goes_by_fractions(self.model.optimizer)
        touched = set_by_hand(self.variables, left.values) or other_rate or longer_now
        strict = {**asked.strict, **{name: before.strict[name] for name in ("start", "learning_rate")}}
        same = replace(asked, strict=strict, warned=before.warned, epochs=before.epochs) == before
        if same and not touched and asked.epochs >= before.epochs:
            return Decision("resume", number, left.record, Comparison(more_epochs=asked.epochs > before.epochs))
        self._recipe = None
        if left.trained_nothing:
            self.place.open = None
            return Decision("new", number, gives_way=True)
        close_interrupted(self.run, left)
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
            stand_at(self.run, number - 1, must=True)
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
        progress = progress_of(self.request, record, steps=self.steps)
        # A name that is looked up in an appending run leaves the model and the position at the run's end.
        looked_up = self.run.mode == "append" and record.number != self.place.fits
        restored = None if looked_up else stand_at(self.run, record.number)
        callbacks = callback_list(self.model, self.request, self.callbacks, record, steps=self.steps)
        if restored is not None:
            saved = SavedMemories.from_state(restored.state.get("callbacks", []), restored.tensors)
            CallbackMemory(callbacks.callbacks).put_back(saved)
        elif not looked_up:
            entries, generators = left_by(record.detail)
            CallbackMemory(callbacks.callbacks).put_back(SavedMemories.from_state(entries, {}))
            randomness.restore(dict(generators))
        for part, _, data in self._sources():
            self.run.owe(data, restored, record, part=part)
        self.model.stop_training = record.stop_training
        history = fill_history(callbacks, self.recorder, record)
        last = self.recorder.epochs.last_logs(record.number)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in last.items())
        epochs = f"{record.epochs_done} epoch{'' if record.epochs_done == 1 else 's'}"
        progress.say(f"fit {record.number} was done before: {epochs}{', ' + shown if shown else ''}")
        return history

    def _train_new(self, number: int) -> Any:
        place = self.place
        if place.missing is not None:
            stand_at(self.run, number - 1, must=True)
        ends = place.ends
        facts = task_facts(self.model, self.request, variables=self.variables)
        changed = ends.changed(self.variables)
        keys = callback_keys(self.callbacks)
        phase, reason = phase_of(ends, facts, changed=changed, callback_keys=keys)
        recipe = self.recipe if self.recorder.durable else None
        back = rewound(ends) if phase == "continues" else {}
        if back:
            self.variables.assign(back, skip=lambda name: name not in back)
        self._rewound = {name: ends.result.tensors[name] for name in back if name in ends.result.tensors}
        if begin_clocks(self.model.optimizer, self._steps_of_fit(self.request.planned_epochs)):
            self.variables.known.forget()
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
            learning_rate=current_rate(self.model, self.variables.known),
            detail={
                "facts": facts,
                "callbacks": keys,
                "feed": feed_facts(self.request, batch_size=self.source.batch_size, rehearsed=self._mix.facts),
                **self._sampled,
                **self._mix.detail,
            },
        )
        point = ends.resume if phase == "continues" else ends.result
        mode: Literal["all", "best", "none"] = "all" if phase == "continues" else self._memory_mode(ends, facts)
        self._say(other_validation(self.request, facts, ends.facts()), record, once="another validation split")
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
            self._say(other_length(self.model, self.request, record, self.callbacks), record)
        done = FitProgress.from_json(snapshot.state["progress"])
        restore(self.run, snapshot)
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
        epoch = self.request.first_label(record) + done.epochs + 1
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
        progress = progress_of(self.request, record, steps=self.steps)
        try:
            ground = run.frozen.ground(run, self.request, self.source, self.validation_source, told=progress.features)
        except BaseException:  # computing features may take minutes, and be interrupted
            self.variables.assign(self._rewound, skip=lambda name: name not in self._rewound)
            raise
        finally:
            progress.features_end()
        engine, batch = ground.engine, self.batch if ground.source is self.source else ground.source.peek()
        plan = look(self.model, ground, batch, plan=record.plan.get("plan") or run.plan)
        resumed = message is not None
        if record.phase == "new" and not resumed:
            number, reason = record.number, record.phase_reason
            run.say_once(f"phase {number}", f"Fit {number} is a new phase: {reason}.", kind="phase", fit=number)
        cursor = cursor_at(point, place.ends, record, resumed=resumed)
        feed = Feed(
            ground.source, cursor=cursor, steps_per_epoch=self.request.steps_per_epoch, most_steps=engine.most_steps
        )
        approximate = engine.inexact(batch)
        for part, source, data in self._sources():
            owed = run.take_debt(data, part)
            inexact = bring(source, point, owed=owed, drawn=self.randomness, resumed=resumed, part=part)
            if inexact:
                role = "validation " if part == "validation" else ""
                approximate.append(f"the position in {role}{type(data).__name__} {inexact}")
        for text in approximate:
            run.say_once(text, f"Fit {record.number}: {text}.", kind="approximate", fit=record.number)
        # On a resume the plan was asked for by the record; why it was chosen is what the record says.
        why = {"reason": record.plan["reason"]} if record.plan.get("plan") == plan.kind else {}
        record = replace(
            record,
            plan={**plan.to_json(), **why, **ground.facts},
            approximate=list(dict.fromkeys([*record.approximate, *approximate])),
        )
        if not resumed and is_zero_throughout(self.model.optimizer, self._steps_of_fit(record.epochs_planned)):
            run.notice(
                f"The learning rate of fit {record.number} is zero throughout: no weight will be trained. "
                "Set model.optimizer.learning_rate, or give learning_rate=.",
                fit=record.number,
            )
        before = point.state.get("plan") or {}
        self._say(other_conditions(before, record, resumed=resumed), record, kind="approximate")
        self.recorder.put_fit(record)
        run.leaks.begin(point, fit=record.number, source=self.source, given=self._given, resumed=resumed)
        if self._will_validate(record, done):
            run.leaks.compare(self.validation_source, self._validation_given)
        callbacks = callback_list(self.model, self.request, self.callbacks, record, steps=self.steps)
        hold_averages_back(callbacks.callbacks)
        memory = CallbackMemory(callbacks.callbacks, fresh=self.request.fresh)
        saved = SavedMemories.from_state(point.state.get("callbacks", []), point.under("callbacks/"))
        for text in memory.before_begin(saved, resumed=resumed):
            run.say_once(text, text)
        if not resumed:
            self._say(epoch_numbers(self.request, record, self.callbacks), record, once="epoch numbers")
        stop = bool(point.state.get("stop_training")) if resumed else False
        if getattr(self.model, "stop_training", None) is not stop:  # to set an attribute of a model takes a while
            self.model.stop_training = stop
        loop = FitLoop(
            model=self.model,
            engine=engine,
            recorder=self.recorder,
            record=record,
            feed=feed,
            validation=self._validation(ground),
            callbacks=callbacks,
            memory=memory,
            progress=progress,
            position=place.position,
            done=done,
            first_label=self.request.first_label(record),
            pace=run.pace,
            leaks=run.leaks,
        )
        progress.begin(message)

        def begin() -> None:
            for text in memory.after_begin(saved, mode=mode, drop_best_weights=drop_best_weights):
                run.say_once(text, text)
            fill_history(callbacks, self.recorder, record)

        point.release_variables()
        place.ends.release()
        loop.start = point if resumed else None
        loop.began = None if resumed else self.began
        try:
            result, resume = loop.run(begin)
        except BaseException:
            place.position = loop.position
            self._note_open(loop)
            raise
        finally:
            for text in self.source.take_told():
                self.recorder.event("skipped", text, fit=record.number)
        place.position = loop.position
        self._close(loop, result, resume)
        for text in memory.say_unsaved():
            run.say_once(text, text)
        return self.model.history

    def _close(self, loop: FitLoop, result: Snapshot, resume: Snapshot) -> None:
        place = self.place
        place.fits = loop.record.number
        place.open = None
        place.ends = Ends(loop.record, result, resume, result.variables())

    def _note_open(self, loop: FitLoop) -> None:
        recipe = Recipe.from_json(loop.record.recipe) if loop.record.recipe else self.recipe
        if loop.interrupted is None and loop.is_lost:
            stand_at(self.run, self.place.fits)
            self.run.notice(
                f"The model was brought back to the end of fit {self.place.fits}, the newest state there is."
            )
        elif loop.interrupted is None or loop.position.step == loop.record.first_step:
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

    def _sources(self) -> Iterator[tuple[str, Source, Any]]:
        """Yield what has a place in data: the part of a state that holds it, the source, the data as given."""
        yield "source", self.source, self.request.x
        if self.validation_source is not None:
            yield "validation", self.validation_source, self._validation_data

    def _validation(self, ground: Ground) -> Validation | None:
        if ground.validation is None:
            return None
        engine = ground.validation_engine
        feed = Feed(ground.validation, steps_per_epoch=self.request.validation_steps, most_steps=engine.most_steps)
        return Validation(feed, engine, self.request.validation_freq)

    def _will_validate(self, record: FitRecord, done: FitProgress) -> bool:
        """Return whether any epoch that is to come validates."""
        first, frequency = self.request.first_label(record), self.request.validation_freq
        to_come = range(first + done.epochs, first + record.epochs_planned)
        return self.validation_source is not None and any(
            _keras.should_validate(self.model, label, frequency) for label in to_come
        )

    def _steps_of_fit(self, epochs: int) -> int | None:
        return None if self.steps is None else self.steps * epochs

    def _say(self, message: str | None, record: FitRecord, *, kind: str = "notice", once: str | None = None) -> None:
        if message is None:
            return
        if once is None:
            self.run.notice(message, kind=kind, fit=record.number)
        else:
            self.run.say_once(once, message, kind=kind, fit=record.number)
