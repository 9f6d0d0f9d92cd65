"""``keras.utils.PyDataset`` as a source: any batch at any time, its hooks once per epoch."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keepfit import _keras, randomness
from keepfit.data import attributes
from keepfit.data.checks import check_batch
from keepfit.data.draws import generators_of, restore, take, undrawn
from keepfit.data.memory import ObjectMemory
from keepfit.data.order import epoch_order
from keepfit.data.prefetch import Prefetch
from keepfit.data.source import BatchSource
from keepfit.data.weights import class_weighted
from keepfit.errors import InvalidData, warn

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass
class _Life:
    """What a data set's hooks have done.

    Args:
        epochs: Epochs that they saw to their end.
        within: Whether one has begun.
        changed: Paths of the attributes that they have changed.
    """

    epochs: int = 0
    within: bool = False
    changed: set[str] = field(default_factory=set)


_LIVES = ObjectMemory(_Life)


class _Length:
    """How many batches a data set had when it was seen for the first time."""

    def __init__(self) -> None:
        self.first: int | None = None
        self.is_known = False


_LENGTHS = ObjectMemory(_Length)


def told_length(dataset: Any) -> int | None:
    """Return the number of batches by which a PyDataset is known from one process to the next.

    Of one that changes itself in its hooks the number that it was made with: a
    process that passes through fits which are done does not call them.
    """
    found = _LENGTHS.of(dataset)
    if not found.is_known:
        found.first, found.is_known = dataset.num_batches, True
    return found.first if _changes_itself(dataset) else dataset.num_batches


def _changes_itself(dataset: Any) -> bool:
    hooks = ("on_epoch_begin", "on_epoch_end")
    return any(getattr(type(dataset), hook) is not getattr(keras.utils.PyDataset, hook) for hook in hooks)


class PyDatasetSource(BatchSource):
    """Batches of a PyDataset, in our order where they are shuffled.

    As exact as ``dataset[index]`` is a function of ``index`` and of the random
    generators that the data set holds, whose states are kept. A data set
    that changes itself in its hooks is replayed by calling them as often as
    before, and gets the numbers, lists and arrays back that they changed, unless
    it has ``get_state()`` and ``set_state(state)`` of its own.
    Where items draw as well, or are made by workers, that is approximate.

    Args:
        dataset: The data set.
        seed: Seed of the orders.
        shuffle: Whether batches come in random order; without a length they never do.
        class_weight: Class number -> weight, or None.
        steps_per_epoch: Batches in an epoch, so that none is made in vain, or None.
        counted: Whether the epochs count as the data set's own, which a resume replays: those of a fit and its
            validations do, those of ``evaluate`` are gone through again by the script.
    """

    def __init__(
        self,
        dataset: keras.utils.PyDataset,
        *,
        seed: int,
        shuffle: bool,
        class_weight: Mapping[int, float] | None,
        steps_per_epoch: int | None,
        counted: bool = True,
    ) -> None:
        self._dataset: Any = dataset
        self._seed = seed
        self._shuffle = shuffle
        self._class_weight = class_weight
        self._steps = steps_per_epoch
        self._life = _LIVES.of(dataset) if counted else _Life()
        self._peeked: Any = None
        self._order: tuple[tuple[int, int], NDArray[np.int64]] | None = None
        self._ahead: Prefetch | None = None
        self._coming: tuple[int, int] | None = None  # pass and index of the next item
        self._left = steps_per_epoch
        self._is_begun = False  # whether what `begin_pass` is to begin has begun
        self._has_state = hasattr(dataset, "get_state") and hasattr(dataset, "set_state")
        self._generators = {} if self._has_state else generators_of(dataset)
        self._draws_from_all = False  # whether items draw from the global generators
        self._before: tuple[dict[str, Any], randomness.State] = ({}, {})
        self._replays = not self._has_state and _changes_itself(dataset)
        self._roots = {"data": dataset}
        told_length(dataset)
        if self._replays:
            self.exactness = "replay"
        self._count()

    def peek(self) -> Any:
        """Return the batch at index 0; made once."""
        if self._peeked is None:
            if self._overrides("on_epoch_begin") and not self._life.within:
                # Keras too begins the epoch before its first look; `begin_pass` then does not begin it again.
                self._begin()
                self._is_begun = True
            # A look must leave no trace, or it would matter how often `fit` is called.
            with undrawn(self._generators) as drawn:
                batch = self._finished(self._dataset[0])
            self._draws_from_all = drawn.others
            if drawn and not self._has_state:
                self._draws_in_items()
            check_batch(batch, "PyDataset")
            self._peeked = batch
        return self._peeked

    def _draws_in_items(self) -> None:
        """Note that items are random: exact where nothing but their own generators, in order, decides them."""
        if self._replays or self._workers > 0:
            self.exactness = "approximate"

    def begin_pass(self, number: int, *, resumed: bool = False) -> None:  # noqa: ARG002 - the interface
        """Call the data set's hook, unless this epoch has begun already."""
        if not self._life.within:
            self._begin()
        elif not (resumed or self._is_begun):
            # The epoch before was left by an exception or a stop: its end is made up for.
            self.end_pass()
            self._begin()
        self._is_begun = False
        self._left = self._steps
        self._count()

    def end_pass(self) -> None:
        """Stop the workers and call the data set's hook."""
        self.close()
        self._hear(self._dataset.on_epoch_end)
        self._life.within = False
        self._life.epochs += 1

    def batch(self, pass_number: int, index: int) -> Any:
        """Return a batch, made ahead where the data set asks for workers."""
        if self._workers < 1:
            self._before = take(self._generators), randomness.take() if self._draws_from_all else {}
            try:
                return self._finished(self._dataset[self._at(pass_number, index)])
            except BaseException:
                self.put_back()  # what it drew, it will draw again
                raise
        try:
            item = self._item_ahead(pass_number, index)
        except BaseException:
            self.close()  # what was made ahead no longer stands at a known place
            raise
        self._coming = (pass_number, index + 1)
        if self._left:
            self._left -= 1
        return self._finished(item)

    def put_back(self, *_: Any) -> None:
        """Let the generators stand where they did before the last batch."""
        own, others = self._before
        restore(self._generators, own)
        randomness.restore(others)

    def get_state(self) -> dict[str, Any] | None:
        """Return the data set's own state, or how many epochs its hooks saw and its generators' states, or None."""
        state = self.small_state()
        if self._replays and state:
            now = attributes.take(self._roots)
            state["changed"] = {path: _told(now[path]) for path in sorted(self._life.changed & now.keys())}
        return state

    def small_state(self) -> dict[str, Any] | None:
        """Return `get_state` without what the hooks have changed: to call them again may give the same."""
        if self._has_state:
            return {"own": self._dataset.get_state()}
        state: dict[str, Any] = {}
        if self._replays:
            state |= {"epochs": self._life.epochs, "within": self._life.within}
        if self._generators:
            state["generators"] = take(self._generators)
        return state or None

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Give the data set its state; else call its hooks for epochs not seen, and set what they changed."""
        if "own" in state:
            self._dataset.set_state(state["own"])
            return
        before = randomness.take()
        self._see_epochs(int(state.get("epochs", self._life.epochs)))
        if state.get("within") and not self._life.within:
            self._begin()  # what its hook draws, it has drawn
            self._is_begun = True
        randomness.restore(before)
        changed = {path: _read(value) for path, value in state.get("changed", {}).items()}
        self._life.changed |= changed.keys()
        attributes.put(self._roots, changed)
        restore(self._generators, state.get("generators", {}))

    def _see_epochs(self, epochs: int) -> None:
        if self._life.epochs > epochs:
            warn(
                f"This {type(self._dataset).__name__} went through {self._life.epochs} epochs already and cannot go "
                f"back to {epochs}: its batches may differ from those of then. Make a new one to see the same again."
            )
        while self._life.epochs < epochs:
            if not self._life.within:
                self._begin()
            self.end_pass()

    def close(self) -> None:
        """Stop the workers."""
        if self._ahead is not None:
            self._ahead.close()
        self._ahead = None
        self._coming = None

    @property
    def _workers(self) -> int:
        """Workers to use, 0 for none: as in Keras, one thread alone is not worth it."""
        workers = int(self._dataset.workers)
        return workers if workers > 1 or (workers > 0 and self._dataset.use_multiprocessing) else 0

    def _begin(self) -> None:
        self._hear(self._dataset.on_epoch_begin)
        self._life.within = True

    def _hear(self, hook: Callable[[], Any]) -> None:
        """Call a hook, and note what it changes."""
        if not self._replays:
            hook()
            return
        before = attributes.copies(self._roots)
        hook()
        self._life.changed |= attributes.changed(before, attributes.take(self._roots))

    def _count(self) -> None:
        count = self._dataset.num_batches
        self.num_batches = None if count is None else int(count)
        if self.num_batches == 0:
            raise InvalidData("The PyDataset has no batches: its length is 0. Nothing was changed.")

    def _at(self, pass_number: int, index: int) -> int:
        if self.num_batches is None or not self._shuffle:
            return index
        key = (pass_number, self.num_batches)
        if self._order is None or self._order[0] != key:
            self._order = (key, epoch_order(self._seed, pass_number, self.num_batches))
        return int(self._order[1][index])

    def _item_ahead(self, pass_number: int, index: int) -> Any:
        if self._ahead is not None and self._coming == (pass_number, index) and self._ahead.has_next:
            return self._ahead.next_item()
        return self._start(pass_number, index).next_item()

    def _start(self, pass_number: int, index: int) -> Prefetch:
        if self._ahead is None:
            self._ahead = Prefetch(
                self._dataset,
                workers=self._workers,
                processes=bool(self._dataset.use_multiprocessing),
                size=int(self._dataset.max_queue_size),
            )
        self._ahead.start(self._coming_indices(pass_number, index))
        return self._ahead

    def _coming_indices(self, pass_number: int, index: int) -> Iterator[int]:
        stop = None if self._left is None else index + max(1, self._left)
        if self.num_batches is not None:
            stop = self.num_batches if stop is None else min(stop, self.num_batches)
        places = itertools.count(index) if stop is None else range(index, stop)
        return (self._at(pass_number, place) for place in places)

    def _finished(self, batch: Any) -> Any:
        if isinstance(batch, np.ndarray):
            batch = (batch,)
        if isinstance(batch, list):
            batch = tuple(batch)
        if not isinstance(batch, dict):
            if not isinstance(batch, tuple) or len(batch) not in (1, 2, 3):
                raise InvalidData(
                    "PyDataset.__getitem__ must return a dict, or a tuple (x,), (x, y) or (x, y, sample_weight), but "
                    f"it returned a {_described(batch)}. Return one of these."
                )
            batch = self._weighted(batch)
        return _keras.backend_batch(batch)

    def _weighted(self, batch: tuple[Any, ...]) -> tuple[Any, ...]:
        if self._class_weight is None or len(batch) == 1:
            return batch
        if len(batch) == 3:
            raise InvalidData(
                "class_weight was given, but the batches of the PyDataset have sample weights. Nothing was changed. "
                "Give one of them, or multiply the class weights into the sample weights."
            )
        return (*batch, class_weighted(batch[1], self._class_weight))

    def _overrides(self, hook: str) -> bool:
        return getattr(type(self._dataset), hook) is not getattr(keras.utils.PyDataset, hook)


def _told(value: Any) -> Any:
    """Return an array as it is, anything else as text: a list would be taken apart."""
    return value if isinstance(value, np.ndarray) else json.dumps(attributes.told(value))


def _read(told: Any) -> Any:
    return attributes.read(json.loads(told)) if isinstance(told, str) else told


def _described(batch: Any) -> str:
    return f"tuple of {len(batch)}" if isinstance(batch, tuple) else type(batch).__name__
