"""One fit under way: begin the loop where a state stands, and note what it leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from keepfit import _keras
from keepfit.audience import callback_list, fill_history, progress_of
from keepfit.callbacks import CallbackMemory, Progress, SavedMemories, hold_averages_back
from keepfit.caveats import epoch_numbers, other_conditions
from keepfit.ends import Ends
from keepfit.feed import Feed
from keepfit.first_look import look
from keepfit.fit_data import FitData
from keepfit.fit_progress import FitProgress
from keepfit.fit_state import FitState
from keepfit.frozen import Ground
from keepfit.journal import FitRecord
from keepfit.loop import FitLoop, Validation
from keepfit.phases import is_zero_throughout
from keepfit.place import OpenFit
from keepfit.placing import bring, cursor_at
from keepfit.recipe import Recipe, learning_rate_config
from keepfit.request import FitRequest
from keepfit.snapshot import Snapshot
from keepfit.standing import stand_at

if TYPE_CHECKING:
    from keepfit.run import Run


class Training:
    """What a call of ``fit`` trains, from a new fit's beginning or from where it was left.

    Args:
        run: The run.
        request: The arguments of the call.
        data: Its data.
        callbacks: Its callbacks.
        began: The global generators before the call, where they are known.
        rewound: Name -> what the variables held before a continuing fit began at the resume point.
        recipe: Gives what the call asks for.
    """

    def __init__(
        self,
        run: Run,
        request: FitRequest,
        data: FitData,
        *,
        callbacks: list[Any],
        began: Any,
        rewound: dict[str, Any],
        recipe: Callable[[], Recipe],
    ) -> None:
        self.run = run
        self.request = request
        self.data = data
        self.callbacks = callbacks
        self.place = run.place
        self.model = run.model
        self.recorder = run.recorder
        self._began = began
        self._rewound = rewound
        self._recipe = recipe

    def perform(
        self,
        record: FitRecord,
        *,
        point: Snapshot,
        done: FitProgress,
        mode: Literal["all", "best", "none"],
        drop_best_weights: bool,
        message: str | None = None,
    ) -> Any:
        """Train the fit to its end.

        Args:
            record: The fit, as the journal is to have it.
            point: The state that it goes on from, with the memory of callbacks and the places in data.
            done: How far it has come.
            mode: What callbacks remember: all, their best value alone, or nothing.
            drop_best_weights: Whether weights that a callback keeps for later are of another task.
            message: What a person is told of a resume; None where the fit begins.

        Returns:
            The ``keras.callbacks.History`` of the fit.
        """
        run, place, resumed = self.run, self.place, message is not None
        progress = progress_of(self.request, record, steps=self.data.steps)
        ground = self._ground(progress)
        engine, batch = ground.engine, self.data.batch if ground.source is self.data.source else ground.source.peek()
        plan = look(self.model, ground, batch, plan=record.plan.get("plan") or run.plan)
        if record.phase == "new" and not resumed:
            text = f"Fit {record.number} is a new phase: {record.phase_reason}."
            run.say_once(f"phase {record.number}", text, kind="phase", fit=record.number)
        cursor = cursor_at(point, place.ends, record, resumed=resumed)
        feed = Feed(
            ground.source, cursor=cursor, steps_per_epoch=self.request.steps_per_epoch, most_steps=engine.most_steps
        )
        approximate = [*engine.inexact(), *self._bring(point, resumed=resumed)]
        for text in approximate:
            run.say_once(text, f"Fit {record.number}: {text}.", kind="approximate", fit=record.number)
        # On a resume the plan was asked for by the record; why it was chosen is what the record says.
        why = {"reason": record.plan["reason"]} if record.plan.get("plan") == plan.kind else {}
        record = replace(
            record,
            plan={**plan.to_json(), **why, **ground.facts},
            approximate=list(dict.fromkeys([*record.approximate, *approximate])),
        )
        self._say_conditions(record, point, resumed=resumed)
        self.recorder.put_fit(record)
        data, mixed = self.data, self.data.mix.detail
        run.leaks.begin(point, fit=record.number, source=data.source, given=data.given, resumed=resumed, mixed=mixed)
        if self._will_validate(record, done):
            run.leaks.compare(self.data.validation, self.data.validation_given)
        callbacks = callback_list(self.model, self.request, self.callbacks, record, steps=self.data.steps)
        hold_averages_back(callbacks.callbacks)
        memory = CallbackMemory(callbacks.callbacks, fresh=self.request.fresh)
        saved = SavedMemories.from_state(point.state.get("callbacks", []), point.under("callbacks/"))
        self._say_all(memory.before_begin(saved, resumed=resumed))
        if not resumed and (numbers := epoch_numbers(self.request, record, self.callbacks)):
            run.say_once("epoch numbers", numbers, fit=record.number)
        stop = bool(point.state.get("stop_training")) if resumed else False
        if getattr(self.model, "stop_training", None) is not stop:  # to set an attribute of a model takes a while
            self.model.stop_training = stop
        loop = FitLoop(
            model=self.model,
            engine=engine,
            recorder=self.recorder,
            state=FitState(record, place.position, done, self.request.first_label(record)),
            feed=feed,
            validation=self._validation(ground),
            callbacks=callbacks,
            memory=memory,
            progress=progress,
            pace=run.pace,
            leaks=run.leaks,
            attributes=run.attributes,
        )
        progress.begin(message)

        def begin() -> None:
            self._say_all(memory.after_begin(saved, mode=mode, drop_best_weights=drop_best_weights))
            fill_history(callbacks, self.recorder, record)

        point.release_variables()
        place.ends.release()
        loop.keeper.start = point if resumed else None
        loop.began = None if resumed else self._began
        with loop.interrupts:
            self._close(loop, *self._run(loop, begin))
            self._say_all(memory.say_unsaved())
            if loop.interrupts.noted:
                self.recorder.flush()
        return self.model.history

    def _run(self, loop: FitLoop, begin: Callable[[], None]) -> tuple[Snapshot, Snapshot]:
        """Run the loop; whatever ends it, the place in the run is known."""
        try:
            return loop.run(begin)
        except BaseException:
            self.place.position = loop.state.position
            self._note_open(loop)
            raise
        finally:
            for text in self.data.source.take_told():
                self.recorder.event("skipped", text, fit=loop.state.record.number)

    def _ground(self, progress: Progress) -> Ground:
        """Return what the fit trains on, which may be features of frozen layers, that are computed now."""
        sources = self.data.source, self.data.validation
        try:
            return self.run.frozen.ground(self.run, self.request, *sources, told=progress.features)
        except BaseException:  # computing features may take minutes, and be interrupted
            self.run.engine.variables.assign(self._rewound, skip=lambda name: name not in self._rewound)
            raise
        finally:
            progress.features_end()

    def _bring(self, point: Snapshot, *, resumed: bool) -> list[str]:
        """Bring the sources to where the state stands; return where that cannot be exact."""
        approximate = []
        for part, source, data in self.data.parts():
            owed = self.run.debts.take(data, part)
            inexact = bring(source, point, owed=owed, drawn=self.data.randomness, resumed=resumed, part=part)
            if inexact:
                role = "validation " if part == "validation" else ""
                approximate.append(f"the position in {role}{type(data).__name__} {inexact}")
        return approximate

    def _say_conditions(self, record: FitRecord, point: Snapshot, *, resumed: bool) -> None:
        """Say what a person would want to know before the fit trains."""
        steps, known = self.data.steps_of_fit(record.epochs_planned), self.run.engine.variables.known
        if not resumed and is_zero_throughout(self.model.optimizer, steps, known=known):
            self.run.notice(
                f"The learning rate of fit {record.number} is zero throughout: no weight will be trained. "
                "Set model.optimizer.learning_rate, or give learning_rate=.",
                fit=record.number,
            )
        if other := other_conditions(point.state.get("plan") or {}, record, resumed=resumed):
            self.run.notice(other, kind="approximate", fit=record.number)

    def _say_all(self, texts: Iterable[str]) -> None:
        for text in texts:
            self.run.say_once(text, text)

    def _close(self, loop: FitLoop, result: Snapshot, resume: Snapshot) -> None:
        place = self.place
        place.position = loop.state.position
        place.fits = loop.state.record.number
        place.open = None
        place.ends = Ends(loop.state.record, result, resume, result.variables())

    def _note_open(self, loop: FitLoop) -> None:
        recipe = Recipe.from_json(loop.state.record.recipe) if loop.state.record.recipe else self._recipe()
        if loop.keeper.interrupted is None and loop.keeper.is_lost:
            stand_at(self.run, self.place.fits)
            self.run.notice(
                f"The model was brought back to the end of fit {self.place.fits}, the newest state there is."
            )
        elif loop.keeper.interrupted is None or loop.state.position.step == loop.state.record.first_step:
            # Nothing was trained: what the fit would have begun with is still what the variables hold.
            values = self.run.engine.variables.values()
            for end in (self.place.ends.result, self.place.ends.resume):
                end.tensors.update(values)
            self.place.ends.values = values
        self.place.open = OpenFit(
            record=loop.state.record,
            snapshot=loop.keeper.interrupted,
            recipe=recipe,
            rate=learning_rate_config(self.model.optimizer),
            values=self.run.engine.variables.values(),
        )

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
        return self.data.validation is not None and any(
            _keras.should_validate(self.model, label, frequency) for label in to_come
        )
