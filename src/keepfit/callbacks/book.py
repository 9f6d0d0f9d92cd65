"""The memories of all callbacks of a fit, taken and given back as one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import keras

from keepfit import _keras
from keepfit.callbacks import files
from keepfit.callbacks.attributes import put_attribute
from keepfit.callbacks.identity import IdentityMap
from keepfit.callbacks.memory import Memory, Mode, restore, settings_since, take
from keepfit.callbacks.origin import callback_keys, is_stock

if TYPE_CHECKING:
    from keepfit.callbacks.plain import Array

# Memories of callbacks that are not there any more; more than anyone uses, so that a run stays bounded.
_MOST_ABSENT = 64
# What was taken of each object last, to see which settings a script changes between two fits.
_LEFT: IdentityMap[Memory] = IdentityMap()


@dataclass(frozen=True)
class SavedMemories:
    """The memories in a snapshot.

    Args:
        entries: JSON, one for each callback with a memory.
        tensors: Name -> array, those of callbacks named ``callbacks/<entry>/…``; others are not looked at.
    """

    entries: Sequence[Mapping[str, Any]] = ()
    tensors: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_state(cls, entries: Sequence[Mapping[str, Any]], tensors: Mapping[str, Any]) -> SavedMemories:
        """Return the memories that `CallbackMemory.take` gave."""
        return cls(entries, tensors)

    def memories(self) -> dict[str, Memory]:
        """Return key -> memory."""
        found = {}
        for index, entry in enumerate(self.entries):
            tensors = {name: self.tensors[f"callbacks/{index}/{name}"] for name in entry["tensors"]}
            found[entry["key"]] = Memory(**{**entry, "tensors": tensors})
        return found


class CallbackMemory:
    """Take and give back what the callbacks of one fit remember.

    Args:
        callbacks: The callbacks, in the order in which they are called.
        fresh: Callbacks or classes that start without memory.
    """

    def __init__(self, callbacks: Sequence[Any], *, fresh: Sequence[Any] = ()) -> None:
        shown = (keras.callbacks.History, keras.callbacks.ProgbarLogger)  # the run has a history and a bar of its own
        members = [callback for callback in callbacks if not isinstance(callback, shown)]
        self._members = dict(zip(callback_keys(members), members, strict=True))
        self._fresh = {key for key, member in self._members.items() if _is_among(member, fresh)}
        self._absent: list[Memory] = []
        self._taken: dict[str, Mapping[str, Array]] = {}
        self._by_hand: dict[str, dict[str, Any]] = {}
        self.unsaved: dict[str, Sequence[str]] = {}

    def before_begin(self, saved: SavedMemories, *, resumed: bool = False) -> list[str]:
        """Do what must be done before ``on_train_begin``: files go on where they were.

        Args:
            saved: The memories.
            resumed: The fit goes on inside. Then the memory is all that counts: what was to start fresh has started,
                and what an interrupted hook changed was not set by hand.

        Returns:
            What a user should know, a sentence each.
        """
        found = saved.memories()
        if resumed:
            self._fresh = set()
        else:
            notes = {key: (member, _LEFT.get(member)) for key, member in self._members.items()}
            self._by_hand = {key: settings_since(member, left) for key, (member, left) in notes.items() if left}
        absent = [memory.without_task() for key, memory in found.items() if key not in self._members]
        self._absent = [memory for memory in absent if memory][-_MOST_ABSENT:]
        said = [
            files.before_begin(callback, memory.file) for callback, memory in self._remembered(found) if memory.file
        ]
        return [text for text in said if text]

    def after_begin(self, saved: SavedMemories, *, mode: Mode = "all", drop_best_weights: bool = False) -> list[str]:
        """Give memories back after ``on_train_begin``, which resets Keras's callbacks.

        Args:
            saved: The memories.
            mode: ``"all"``; ``"best"`` keeps best values and what goes on whatever the task is; ``"none"`` only that.
            drop_best_weights: Leave best weights out: they belong to other data.

        Returns:
            What a user should know, a sentence each.

        Raises:
            InvalidArgument: A callback's ``get_state`` gave something that cannot be saved.
        """
        found = saved.memories()
        said: list[str] = []
        for callback, memory in self._remembered(found):
            if memory.file:
                files.after_begin(callback, memory.file)
            said += restore(callback, memory, mode=mode, drop_best_weights=drop_best_weights)
            for name, value in self._by_hand.get(memory.key, {}).items():
                put_attribute(callback, name, value)
            if isinstance(callback, keras.callbacks.TensorBoard):
                _keras.point_summaries(callback)
            self._taken[memory.key] = memory.tensors
        # Taken once now, so that what cannot be saved is known before anything is trained.
        self.take()
        return said + self.say_unsaved()

    def say_unsaved(self) -> list[str]:
        """Return what was not in the last memories because it cannot be saved, a sentence for each callback."""
        return [
            f"{type(self._members[key]).__name__} holds what cannot be saved: {', '.join(names)}. After a restart "
            "that is as the script makes it. Give the callback get_state() and set_state(state) to say itself what "
            "it remembers."
            for key, names in self.unsaved.items()
        ]

    def put_back(self, saved: SavedMemories) -> None:
        """Give memories back where no hook is called: what a script reads of a callback is right."""
        for callback, memory in self._remembered(saved.memories()):
            restore(callback, memory)
        self.take()

    def take(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Return the memories as JSON, and their arrays as tensors ``callbacks/<entry>/…``."""
        memories = [take(member, key, known=self._taken.get(key)) for key, member in self._members.items()]
        self._taken = {memory.key: memory.tensors for memory in memories}
        for member, memory in zip(self._members.values(), memories, strict=True):
            if not is_stock(member):
                _LEFT.put(member, memory)
        self.unsaved = {memory.key: memory.unsaved for memory in memories if memory.unsaved}
        entries: list[dict[str, Any]] = []
        tensors: dict[str, Any] = {}
        for index, memory in enumerate(memory for memory in (*memories, *self._absent) if memory):
            entries.append({**vars(memory), "tensors": list(memory.tensors)})
            tensors.update({f"callbacks/{index}/{name}": array for name, array in memory.tensors.items()})
        return entries, tensors

    def history_lengths(self, callbacks: Any) -> dict[str, int]:
        """Return how many values of each log the History callback has; see `last_history_logs`."""
        return {name: len(values) for name, values in _history_of(callbacks).items()}

    def last_history_logs(self, callbacks: Any, *, since: Mapping[str, int]) -> dict[str, Any]:
        """Return what the History callback recorded in the last epoch, additions of other callbacks included.

        Args:
            callbacks: The callback list.
            since: The lengths before that epoch ended: a log that an epoch lacks has its last value from another.
        """
        return {name: values[-1] for name, values in _history_of(callbacks).items() if len(values) > since.get(name, 0)}

    def _remembered(self, found: Mapping[str, Memory]) -> Iterator[tuple[Any, Memory]]:
        for key, member in self._members.items():
            if key in found and key not in self._fresh:
                yield member, found[key]


def _history_of(callbacks: Any) -> dict[str, list[Any]]:
    history = next((c for c in callbacks.callbacks if isinstance(c, keras.callbacks.History)), None)
    return getattr(history, "history", {})


def _is_among(callback: Any, fresh: Sequence[Any]) -> bool:
    return any(callback is item or (isinstance(item, type) and isinstance(callback, item)) for item in fresh)
