"""One call of ``fit``: find out what it means, then replay, resume or train."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from keepfit import nested, randomness
from keepfit.audience import callback_list, fill_history, progress_of
from keepfit.callbacks import (
    CallbackMemory,
    SavedMemories,
    callback_keys,
    drop_backup_and_restore,
)
from keepfit.caveats import other_length, other_validation
from keepfit.clock import Position
from keepfit.compiled import check_trains
from keepfit.ends import Ends, phase_of, rewound, set_by_hand
from keepfit.first_look import explained
from keepfit.fit_data import FitData
from keepfit.fit_progress import FitProgress
from keepfit.journal import FitRecord
from keepfit.left import left_by
from keepfit.phases import Asked, begin_clocks, current_rate, goes_by_fractions, has_trained, optimizer_values
from keepfit.place import Decision, OpenFit, decide, longer
from keepfit.recipe import Comparison, Recipe, learning_rate_config, recipe_changed, told_differences
from keepfit.request import FitRequest
from keepfit.snapshot import parted
from keepfit.standing import close_interrupted, close_left_open, restore, stand_at
from keepfit.task import describe_difference, feed_facts, recipe_of, task_facts
from keepfit.training import Training

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
        self.run.inventory.say_changes()
        self.run.inventory.seat_optimizer()
        self.variables = self.run.engine.variables
        if decision.left_open is not None:
            closed = close_left_open(self.run, decision.left_open)
            decision = Decision("new", decision.number if closed else decision.left_open.number)
            self._recipe = None
        mix = self.data.mix
        decision = self.data.settle(decision)
        if self.data.mix is not mix:
            self._recipe = None
        if decision.comparison.warns:
            self._say_warned(decision)
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
        check_trains(self.model, "fit")
        given = nested.flatten(request.callbacks) if request.callbacks else []
        self.callbacks, self._dropped = drop_backup_and_restore(given)
        self.data = FitData(self.run, request)
        if request.train is not None:
            self._asked.train(request.train)
        fresh_optimizer = "optimizer" in [item for item in request.fresh if isinstance(item, str)]
        # What was compiled before the last call that trained has gone on already.
        self._fresh_in_vain = fresh_optimizer and self.run.inventory.optimizer is self.model.optimizer
        with explained(self.model, self.data.batch, "the first batch"):
            self.run.inventory.ready(self.data.batch, fresh_optimizer=fresh_optimizer)
        if request.learning_rate is not None:
            self._asked.rate(request.learning_rate)
            self.run.inventory.list_anew()
        if self._asked.clock(self.data.steps_of_fit(request.planned_epochs)):
            self.run.inventory.list_anew()
        self.variables = self.run.engine.variables
        self.began = self.data.randomness or (randomness.take() if self.recorder.durable else None)
        self._recipe = None

    def _is_alone(self) -> bool:
        """Return whether nobody else's code runs during the fit but the model's own: no callback, no generator."""
        return not self.callbacks and self.data.validation is None and getattr(self.data.source, "resident", False)

    @property
    def recipe(self) -> Recipe:
        """What the call asks for; made when something is compared with it, or when it is recorded."""
        if self._recipe is None:
            self._recipe = recipe_of(
                self.model,
                self.request,
                variables=self.variables,
                ends=self.place.ends,
                batch_size=self.data.source.batch_size,
                signature=self.recorder.meta.get("model"),
                rehearsed=self.data.mix.facts,
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

    def _say_warned(self, decision: Decision) -> None:
        """Say what differs without being refused, and what the call does with it."""
        what = "is not trained again for that" if decision.kind == "replay" else "goes on with what is given now"
        self.run.notice(
            f"Fit {decision.number} was recorded with other code or settings, and {what}: "
            f"{told_differences(decision.comparison.warns)}.",
            kind="recipe",
            data=decision.comparison.warns,
        )

    # What is done

    def _replay(self, decision: Decision) -> Any:
        """Return the recorded history and put the fit's end state in the model; nothing is trained."""
        record = decision.record
        assert record is not None
        progress = progress_of(self.request, record, steps=self.data.steps)
        # A name that is looked up in an appending run leaves the model and the position at the run's end.
        looked_up = self.run.mode == "append" and record.number != self.place.fits
        restored = None if looked_up else stand_at(self.run, record.number)
        callbacks = callback_list(self.model, self.request, self.callbacks, record, steps=self.data.steps)
        if restored is not None:
            saved = SavedMemories.from_state(restored.state.get("callbacks", []), restored.tensors)
            CallbackMemory(callbacks.callbacks).put_back(saved)
        elif not looked_up:
            entries, generators = left_by(record.detail)
            CallbackMemory(callbacks.callbacks).put_back(SavedMemories.from_state(entries, {}))
            randomness.restore(dict(generators))
        for part, _, data in self.data.parts():
            self.run.debts.owe(data, restored, record, part=part)
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
        if self._fresh_in_vain and has_trained(optimizer_values(self.variables.values())):
            self.run.notice(
                f'Fit {number}: fresh=["optimizer"] changes nothing, since the optimizer is the one that trained '
                "before. Compile the model with a new one to begin without its state.",
                fit=number,
            )
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
        if begin_clocks(self.model.optimizer, self.data.steps_of_fit(self.request.planned_epochs)):
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
                "feed": feed_facts(self.request, batch_size=self.data.source.batch_size, rehearsed=self.data.mix.facts),
                **self.data.sampled,
                **self.data.mix.detail,
            },
        )
        point = ends.resume if phase == "continues" else ends.result
        mode: Literal["all", "best", "none"] = "all" if phase == "continues" else self._memory_mode(ends, facts)
        if text := other_validation(self.request, facts, ends.facts()):
            self.run.say_once("another validation split", text, fit=number)
        drop = facts["data"] is not None and ends.facts().get("data") != facts["data"]
        return self._training().perform(record, point=point, done=FitProgress(), mode=mode, drop_best_weights=drop)

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
        if decision.comparison.more_epochs and (text := other_length(self.model, self.request, record, self.callbacks)):
            self.run.notice(text, fit=record.number)
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
        return self._training().perform(
            record, point=snapshot, done=done, mode="all", drop_best_weights=False, message=message
        )

    def _training(self) -> Training:
        return Training(
            self.run,
            self.request,
            self.data,
            callbacks=self.callbacks,
            began=self.began,
            rewound=self._rewound,
            recipe=lambda: self.recipe,
        )
