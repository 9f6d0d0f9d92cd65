"""What Keras's own adapters read: tf.data, torch DataLoaders, Grain and custom adapters.

A stream that begins again with each pass, and goes on inside one where
``steps_per_epoch`` left it. Its position is reached again from a mark where
there is one, else by reading all that came before.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from keepfit import _keras, randomness
from keepfit.data.checks import check_batch
from keepfit.data.generator import warn_no_way_back
from keepfit.data.marks import (
    EVERY,
    Mark,
    as_set,
    at_rest,
    can_seek,
    draws_order,
    end_pass,
    generators_of,
    given,
    held,
    held_within,
    hold,
    is_hidden,
    note,
    own_generators_of,
    position_of,
    seek,
    set_generators,
)
from keepfit.data.memory import ObjectMemory
from keepfit.data.source import Exactness, StreamSource
from keepfit.data.tensorflow_data import TensorFlowBatches, shuffles_anew
from keepfit.errors import InvalidData


@dataclass(eq=False)
class _Place:
    """Where the reading of a data set stands.

    Args:
        consumed: Batches taken so far.
        passes: Passes that have ended.
        taken: Batches taken of the current pass.
        iterator: Gives the rest of the current pass, once that has begun.
        waiting: The peeked batch.
        marks: The last two places from which it can be read on.
        saved_s: When a state was saved that is worth its cost only now and then.
        begins_alike: Whether a new pass can be begun without the one before.
        held: What the data set held when the current pass began.
        has_failed: Whether the iterator raised: most have ended then, or are a batch further on. The place counts until
            it is asked for the next batch, since a checkpoint is written of where training stands.
    """

    consumed: int = 0
    passes: int = 0
    taken: int = 0
    iterator: Iterator[Any] | None = None
    waiting: list[Any] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    saved_s: float = field(default_factory=time.monotonic)
    begins_alike: bool = True
    has_failed: bool = False
    held: Mark = field(default_factory=dict)

    def mark(self, **facts: Any) -> None:
        """Note a place from which the data set can be read on."""
        counts = {"consumed": self.consumed, "passes": self.passes, "taken": self.taken}
        self.marks = [*self.marks[-1:], {**counts, **facts}]

    def begin_again(self) -> None:
        """Stand before the current pass, whose iterator has failed."""
        self.iterator, self.has_failed = None, False
        self.waiting.clear()
        self.consumed -= self.taken
        self.taken = 0

    def end_pass(self, data: Any = None) -> None:
        """Begin anew with the next batch.

        Args:
            data: The data set, where its marks tell how the next pass is decided.
        """
        self.iterator, self.has_failed = None, False
        self.waiting.clear()
        self.passes += 1
        self.taken = 0
        if self.marks and self.begins_alike:
            self.mark(**at_rest(data))


_PLACES = ObjectMemory(_Place)
# Those of validation, which may be on the same data set.
_VALIDATED = ObjectMemory(_Place)

# An iterator keeps its data set alive, so passes that were left unfinished are kept open for these many only.
_MOST_OPEN = 4
_OPEN: list[_Place] = []


class ForeignSource(StreamSource):
    """Batches of a data set that only Keras's adapters know.

    Args:
        data: The data set.
        class_weight: Class number -> weight, or None.
        steps: Batches in an epoch; None where every epoch is a new pass.
        training: Whether the place in the data goes on from one source to the
            next; otherwise every epoch is a new pass.
        counted: Whether a resume brings the data back to where it was: of data that a fit validates on, to the
            beginning of the same pass.
    """

    def __init__(
        self,
        data: Any,
        *,
        class_weight: Mapping[int, float] | None,
        steps: int | None,
        training: bool,
        counted: bool = True,
    ) -> None:
        self._data = data
        self._kind = type(data).__name__
        self._adapter = _keras.foreign_adapter(data, class_weight)
        self._place = _PLACES.of(data) if training else _VALIDATED.of(data) if counted else _Place()
        note(data)
        self._training = training
        self._goes_on = training and steps is not None
        self.begins_anew = not (training or counted)
        self.num_batches = _optional(self._adapter, "num_batches")
        self._number: int | None = None

    @property
    def consumed(self) -> int:
        """Batches taken so far over the life of the data set; 0 where every epoch is a new pass."""
        return self._place.consumed if self._training else 0

    def peek(self) -> Any:
        """Return the next batch; it stays the next one."""
        place = self._place
        if place.has_failed:
            place.begin_again()
        if not place.waiting:
            batch = self._drawn()
            if batch is None and place.taken:
                self._end_pass()
                batch = self._drawn()
            if batch is None:
                raise self._empty()
            check_batch(batch, self._kind)
            place.waiting.append(batch)
        return place.waiting[0]

    def begin_pass(self, number: int, *, resumed: bool = False) -> None:
        """Begin an epoch, and a new pass unless the epoch goes on inside the one under way."""
        ended = self.num_batches is not None and self._place.taken >= self.num_batches
        other = self._number is not None and number != self._number
        if self._place.taken and not resumed and (not self._goes_on or ended or other):
            if ended and self._place.iterator is not None:
                next(self._place.iterator, None)  # to its end, where loaders count their passes
            self._place.end_pass(self._data)
        self._number = number
        self._adapter.on_epoch_begin()

    def end_pass(self) -> None:
        """Tell the adapter that the epoch ended."""
        self._adapter.on_epoch_end()
        if not self._training:
            self._end_pass()

    def as_set(self) -> AbstractContextManager[None]:
        """Leave what a script has set in the data set, whatever is done inside."""
        return as_set(self._data)

    def _end_pass(self) -> None:
        end_pass(self._data, self._place.held)
        self._place.end_pass(self._data)

    def next_batch(self) -> Any:
        """Take the next batch; after the end of a pass the next one begins."""
        place = self._place
        batch = place.waiting.pop() if place.waiting else self._drawn()
        if batch is None:
            self._end_pass()
            raise StopIteration
        place.taken += 1
        place.consumed += 1
        if self._training and not place.waiting and place.taken % EVERY == 0 and self._can_seek():
            self._mark_position()
        return batch

    def put_back(self, *batches: Any) -> None:
        """Take back the batch that was taken last."""
        place = self._place
        place.waiting.extend(batches)
        place.taken -= 1
        place.consumed -= 1

    def skip(self, count: int) -> None:
        """Take batches and drop them, over the ends of passes."""
        ended = False
        while count:
            try:
                self.next_batch()
            except StopIteration:
                if ended:
                    raise self._empty() from None
                ended = True
            else:
                count -= 1
                ended = False

    def replay_to(self, consumed: int) -> None:
        """Go on until as many batches are taken."""
        if consumed < self.consumed:
            warn_no_way_back(self._kind, taken=self.consumed, wanted=consumed)
        self.skip(max(0, consumed - self.consumed))

    def marks(self, consumed: int) -> dict[str, Any]:
        """Return the last mark before a place, if there is one; of validation, what decides the next pass."""
        if not self._training:
            return {"passes": self._place.passes, "marks": at_rest(self._data)}
        found = [mark for mark in self._place.marks if mark["consumed"] <= consumed]
        return {"marks": found[-1]} if found else {}

    def go_to(self, state: Mapping[str, Any]) -> Exactness:
        """Go to the mark, and read on from there; without one, read all."""
        if not self._training:
            return self._go_to_pass(state)
        consumed, mark = int(state.get("consumed", 0)), state.get("marks")
        if mark is None or consumed <= self.consumed:
            return super().go_to(state)
        place = self._place
        place.iterator, place.has_failed, place.marks = None, False, [mark]
        place.waiting.clear()
        place.consumed, place.passes, place.taken = (int(mark[name]) for name in ("consumed", "passes", "taken"))
        again = consumed - place.consumed
        if "held" in mark:
            hold(self._data, mark["held"])
        if (states := mark.get("generators") or mark.get("rest")) is not None:
            set_generators(self._data, states)
        if (position := mark.get("position")) is not None:
            self._begin(position)
        if "later" in mark:
            self.peek()  # a loader draws from its generator when its first batch is asked for
            set_generators(self._data, mark["later"])
        if "generators" in mark:
            self.peek()  # a pass is decided when its first batch is drawn
        self.skip(again)
        if is_hidden(self._data):
            return "approximate"
        return "exact" if not again or self._can_seek() else "replay"

    def _go_to_pass(self, state: Mapping[str, Any]) -> Exactness:
        """Let the next pass be the one that it was, which is decided by what the data set holds or by their number."""
        place, passes = self._place, int(state.get("passes", 0))
        if not passes:
            return "exact"
        place.iterator, place.has_failed = None, False
        place.waiting.clear()
        if draws_order(self._data):
            place.passes = passes
            if (mark := state.get("marks")) is None:
                return "approximate"
            hold(self._data, mark["held"])
            if "rest" in mark:
                set_generators(self._data, mark["rest"])
            if "position" in mark:
                self._data.load_state_dict(given(mark["position"]))
            return "approximate" if is_hidden(self._data) else "exact"
        if not shuffles_anew(self._adapter):
            place.passes = passes
            return "exact"
        if place.passes > passes:
            return "approximate"
        before = randomness.take()
        while place.passes < passes:
            self._drawn()
            self._end_pass()
        randomness.restore(before)
        return "replay"

    def get_state(self) -> dict[str, Any]:
        """Return the passes that have ended and the batches taken of this one."""
        return {"passes": self._place.passes, "taken": self._place.taken}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Read what is missing of the passes before, and of this one."""
        passes, taken = int(state["passes"]), int(state["taken"])
        while self._place.passes < passes:
            self._finish_pass()
        self.skip(max(0, taken - self._place.taken))

    def _finish_pass(self) -> None:
        # To the end, even if that pass was left early: data sets that shuffle count passes, not batches.
        passes = self._place.passes
        while self._place.passes == passes:
            try:
                self.next_batch()
            except StopIteration:
                return

    def _drawn(self) -> Any:
        """Return the next batch of the pass, None at its end."""
        try:
            return next(self._place.iterator or self._begin(None), None)
        except BaseException:
            self._place.has_failed = True
            raise

    def _begin(self, position: Any) -> Iterator[Any]:
        """Begin a pass, or go on inside one at a position."""
        place = self._place
        if draws_order(self._data):
            place.held = held(self._data)
            if self._training and position is None:
                place.mark(**at_rest(self._data), generators=generators_of(self._data))
        of_tensorflow = _keras.reads_tensorflow(self._adapter)
        iterator: Iterator[Any] = (TensorFlowBatches if of_tensorflow else _keras.foreign_iterator)(self._adapter)
        place.iterator, place.begins_alike = iterator, not of_tensorflow
        if position is not None:
            seek(self._data, iterator, position)
        elif self._training and of_tensorflow:
            self._mark_position()
        elif self._training and can_seek(self._data, iterator) and not draws_order(self._data):
            place.mark()
        _keep_open(place)
        return iterator

    def _mark_position(self) -> None:
        place = self._place
        assert place.iterator is not None
        if isinstance(place.iterator, TensorFlowBatches):
            if not place.iterator.may_be_saved(place.saved_s):
                return
            place.saved_s = time.monotonic()
        # What a loader's own generator gives next decides later passes, which its position does not tell.
        own = own_generators_of(self._data)
        later = {} if own is None else {"later": own}
        within = held_within(self._data, place.held)
        place.mark(position=position_of(self._data, place.iterator), **within, **later)

    def _can_seek(self) -> bool:
        return self._place.iterator is not None and can_seek(self._data, self._place.iterator)

    def _empty(self) -> InvalidData:
        return InvalidData(
            f"The {self._kind} gave no batch. Nothing was changed. Give a data set with at least one batch."
        )


def _keep_open(place: _Place) -> None:
    if place in _OPEN:
        _OPEN.remove(place)
    _OPEN.append(place)
    if len(_OPEN) > _MOST_OPEN:
        oldest = _OPEN.pop(0)
        if oldest.iterator is not None:
            oldest.end_pass()


def _optional(adapter: Any, name: str) -> int | None:
    """Return a property that custom adapters need not have."""
    try:
        value = getattr(adapter, name)
    except NotImplementedError:
        return None
    return None if value is None else int(value)
