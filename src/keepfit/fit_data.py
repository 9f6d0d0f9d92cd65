"""The data of one call of ``fit``: what it trains and validates on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import keras

from keepfit import randomness
from keepfit.counted import count_once
from keepfit.data import Source, StreamSource, evaluation_source, split_validation, training_source
from keepfit.place import Decision, number_asked
from keepfit.rehearsal import SAMPLED, Mix, Rehearsal

if TYPE_CHECKING:
    from keepfit.request import FitRequest
    from keepfit.run import Run


class FitData:
    """The arguments of a call as sources, with samples of earlier fits mixed in where it asks for them.

    Args:
        run: The run.
        request: The arguments of the call.

    Raises:
        InvalidArgument: The data has no meaning; nothing was changed.
    """

    def __init__(self, run: Run, request: FitRequest) -> None:
        self._run = run
        self._request = request
        count_once(run.recorder, request.x)
        x, y, weights = request.x, request.y, request.sample_weight
        validation = request.validation_data
        if request.validation_split and validation is None:
            (x, y, weights), validation = split_validation(x, y, weights, request.validation_split)
        # As it was given, less what the split took.
        self.given = (x, y)
        self.source = training_source(
            x,
            y,
            weights,
            batch_size=request.batch_size,
            steps_per_epoch=request.steps_per_epoch,
            shuffle=request.shuffle,
            class_weight=request.class_weight,
            seed=run.seed,
        )
        self.validation: Source | None = None
        self.validation_given: tuple[Any, Any] | None = None
        if validation is not None:
            value_x, value_y, value_weights = keras.utils.unpack_x_y_sample_weight(validation)
            self.validation_given = (value_x, value_y)
            self.validation = evaluation_source(
                value_x,
                value_y,
                value_weights,
                batch_size=request.validation_batch_size or request.batch_size,
                steps=request.validation_steps,
                counted=True,
            )
        # What the record of the fit says of the samples that were kept of it.
        self.sampled: dict[str, Any] = {}
        self.mix = Mix(self.source)
        self._rehearsal: Rehearsal | None = None
        if run.past.wants(request):
            self._rehearsal = Rehearsal(run.past, request, self.source, self.validation)
            self._mix_in(number_asked(run.recorder, run.place, name=request.name, mode=run.mode))
        # A generator may draw from the global generators while it is brought to where the run stands.
        streams = any(isinstance(each, StreamSource) for each in (self.source, self.validation))
        self.randomness = randomness.take() if streams else None
        self.batch = self.source.peek()

    @property
    def steps(self) -> int | None:
        """Steps of an epoch, where they are known."""
        return self._request.steps_per_epoch or self.source.num_batches

    def steps_of_fit(self, epochs: int) -> int | None:
        """Return the steps of so many epochs, where they are known."""
        return None if self.steps is None else self.steps * epochs

    def parts(self) -> Iterator[tuple[str, Source, Any]]:
        """Yield what has a place in data: the part of a state that holds it, the source, the data as given."""
        yield "source", self.source, self._request.x
        if self.validation is not None:
            assert self.validation_given is not None
            yield "validation", self.validation, self.validation_given[0]

    def settle(self, decision: Decision) -> Decision:
        """Keep samples for later fits, now that the fit has its number."""
        run = self._run
        if decision.kind == "new":
            run.past.forget(decision.number)
        elif decision.kind == "resume":
            run.past.retested.forget(decision.number, later=False)
        if self.validation is not None:
            run.past.validated.note(decision.number, self._request)
        if self._rehearsal is None:
            return decision
        # An interrupted fit was closed, and is an earlier one now; or this fit is another one than was recorded.
        if self._mixed_for != (decision.number, self._rehearsal.data(decision.number)):
            self._mix_in(decision.number)
            self.batch = self.source.peek()
        self.sampled, told = self._rehearsal.keep(decision.number)
        for text in (*told, *self._rehearsal.gaps(decision.number, self.mix, run.recorder.fits)):
            run.say_once(text, text, fit=decision.number)
        record = decision.record
        if record is None or decision.kind == "new" or SAMPLED in record.detail or not self.sampled:
            return decision
        record = replace(record, detail={**record.detail, **self.sampled})  # asked for since
        run.recorder.put_fit(record)
        return replace(decision, record=record)

    def _mix_in(self, number: int) -> None:
        assert self._rehearsal is not None
        self.mix = self._rehearsal.mixed(number)
        self.source = self.mix.source
        self._mixed_for = (number, self._rehearsal.data(number))
