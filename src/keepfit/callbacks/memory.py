"""The memory of callbacks: it belongs to the run, not to the callback object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from keepfit.callbacks import files
from keepfit.callbacks.keys import callback_keys, constructor_names, is_stock
from keepfit.callbacks.plain import NotPlain, decode, encode

# What Keras sets up by itself, or what is not about training.
_NEVER = frozenset({"_model", "model", "params", "validation_data"})
_DERIVED = frozenset({"monitor_op", "min_delta"})
# The memory of a task, as against counters of the run.
_BEST = frozenset({"best", "best_weights", "best_epoch"})
_COUNTERS = frozenset({"wait", "cooldown_counter", "stopped_epoch"})


@dataclass(frozen=True)
class SavedMemories:
    """The memories in a snapshot.

    Args:
        entries: One for each callback: ``key``, ``state`` (encoded), ``how`` it was taken.
        tensors: Name -> array.
    """

    entries: Sequence[Mapping[str, Any]] = ()
    tensors: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_state(cls, entries: Sequence[Mapping[str, Any]], tensors: Mapping[str, Any]) -> SavedMemories:
        """Return the memories that `CallbackMemory.take` gave."""
        return cls(entries, tensors)

    def of(self, key: str) -> tuple[str, Any] | None:
        """Return how the memory under a key was taken, and the memory itself; None if there is none."""
        for entry in self.entries:
            if entry["key"] == key:
                return entry["how"], decode(entry["state"], self.tensors)
        return None


class CallbackMemory:
    """Take and give back what the callbacks of one fit remember.

    Args:
        callbacks: The callbacks, in the order in which they are called.
        fresh: Callbacks or classes that start without memory.
    """

    def __init__(self, callbacks: Sequence[Any], *, fresh: Sequence[Any] = ()) -> None:
        self._callbacks = [c for c in callbacks if not isinstance(c, (keras.callbacks.History, keras.callbacks.ProgbarLogger))]
        self._keys = callback_keys(self._callbacks)
        self._fresh = [
            any(callback is item or (isinstance(item, type) and isinstance(callback, item)) for item in fresh)
            for callback in self._callbacks
        ]
        self.unsaved: dict[str, list[str]] = {}

    def __len__(self) -> int:
        """Return how many callbacks there are beside those of the loop itself."""
        return len(self._callbacks)

    def before_begin(self, saved: SavedMemories) -> None:
        """Do what must be done before ``on_train_begin``: files go on where they were."""
        for callback, memory in self._remembered(saved):
            files.before_begin(callback, memory[1])

    def after_begin(self, saved: SavedMemories, *, mode: str, drop_best_weights: bool = False) -> list[str]:
        """Give memories back after ``on_train_begin``, which resets Keras's callbacks.

        Args:
            saved: The memories.
            mode: ``"all"``; ``"best"`` keeps best values and weights and the run's counters; ``"none"`` the counters only.
            drop_best_weights: Leave best weights out: they belong to other data.

        Returns:
            What a user should know, one sentence each.
        """
        said: list[str] = []
        for callback, (how, state) in self._remembered(saved):
            files.after_begin(callback, state)
            self._give(callback, how, state, mode=mode, drop_best_weights=drop_best_weights, said=said)
        return said

    def put_back(self, saved: SavedMemories) -> None:
        """Give memories back where no hook is called: what a script reads of a callback is right."""
        for callback, (how, state) in self._remembered(saved):
            self._give(callback, how, state, mode="all", drop_best_weights=False, said=[])

    def take(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Return the memories as JSON, and their arrays as tensors ``callbacks/…``."""
        entries, tensors = [], {}
        for index, (callback, key) in enumerate(zip(self._callbacks, self._keys, strict=True)):
            how, state = self._memory(callback, key)
            entries.append({"key": key, "how": how, "state": encode(state, f"callbacks/{index}", tensors)})
        return entries, tensors

    def last_history_logs(self, callbacks: Any) -> dict[str, Any]:
        """Return what the History callback recorded for the last epoch, additions of other callbacks included."""
        history = next((c for c in callbacks.callbacks if isinstance(c, keras.callbacks.History)), None)
        if history is None or not getattr(history, "epoch", None):
            return {}
        return {name: values[-1] for name, values in history.history.items() if values}

    def _remembered(self, saved: SavedMemories) -> list[tuple[Any, tuple[str, Any]]]:
        found = []
        for callback, key, fresh in zip(self._callbacks, self._keys, self._fresh, strict=True):
            memory = None if fresh else saved.of(key)
            if memory is not None:
                found.append((callback, memory))
        return found

    def _memory(self, callback: Any, key: str) -> tuple[str, Any]:
        if hasattr(callback, "get_state") and hasattr(callback, "set_state"):
            return "state", callback.get_state()
        skipped = _NEVER | (_DERIVED | set(constructor_names(type(callback))) if is_stock(callback) else frozenset())
        skipped = skipped - _BEST
        state: dict[str, Any] = {}
        unsaved = []
        for name, value in vars(callback).items():
            if name in skipped:
                continue
            try:
                encode(value, "", {})
            except NotPlain:
                if not is_stock(callback) and not callable(value):
                    unsaved.append(name)
                continue
            state[name] = value
        state.update(files.state_of(callback))
        if unsaved:
            self.unsaved[key] = unsaved
        return "attributes", state

    def _give(
        self, callback: Any, how: str, state: Any, *, mode: str, drop_best_weights: bool, said: list[str]
    ) -> None:
        if how == "state":
            callback.set_state(state)
            return
        for name, value in state.items():
            if name.startswith(files.PREFIX) or not _carried(callback, name, mode):
                continue
            if name == "best_weights" and value is not None:
                if drop_best_weights:
                    continue
                if not _fits(callback, value):
                    said.append(
                        f"{type(callback).__name__}: its best weights do not fit the model any more and were left out."
                    )
                    continue
            setattr(callback, name, value)


def _carried(callback: Any, name: str, mode: str) -> bool:
    if mode == "all":
        return True
    if name in _BEST:
        return mode == "best"
    if not is_stock(callback):
        # A user's callback cannot say what of it is about the task; only with get_state does it go on.
        return False
    return name not in _COUNTERS


def _fits(callback: Any, weights: Any) -> bool:
    model = getattr(callback, "model", None)
    if model is None or not isinstance(weights, (list, tuple)):
        return True
    return [np.shape(w) for w in weights] == [tuple(v.shape) for v in model.weights]
