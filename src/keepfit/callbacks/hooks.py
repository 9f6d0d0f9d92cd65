"""Which hooks the callbacks of a fit look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import keras

from keepfit import _keras

_TRAIN = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")
_TEST = ("on_test_batch_begin", "on_test_batch_end")
_PREDICT = ("on_predict_batch_begin", "on_predict_batch_end")


# Keras's callbacks that do something at the end of a fit, and nothing to weights.
_WRITERS = (
    keras.callbacks.CSVLogger,
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.TensorBoard,
    keras.callbacks.ProgbarLogger,
)


def may_rewrite_weights(callback: Any) -> bool:
    """Return whether a callback does something at the end of a fit that may change weights."""
    return not isinstance(callback, _WRITERS) and not _keras.is_default_hook(getattr(callback, "on_train_end", None))


def may_change_settings(callback: Any) -> bool:
    """Return whether a callback is the user's code, which may give a layer another setting."""
    kind = type(callback)
    return kind is keras.callbacks.LambdaCallback or kind.__module__.partition(".")[0] not in ("keras", "keepfit")


def has_train_batch_hooks(callbacks: Iterable[Any]) -> bool:
    """Return whether any callback looks at training batches, so that steps are dispatched as it asks."""
    return any(_looks(callback, _TRAIN) for callback in callbacks)


def has_test_batch_hooks(callbacks: Iterable[Any]) -> bool:
    """Return whether any callback looks at test batches."""
    return any(_looks(callback, _TEST) for callback in callbacks)


def has_predict_batch_hooks(callbacks: Iterable[Any]) -> bool:
    """Return whether any callback looks at predicted batches."""
    return any(_looks(callback, _PREDICT) for callback in callbacks)


class BatchHooks:
    """Call batch hooks with Keras's numbers: one pair of calls for every ``steps_per_execution`` batches.

    A pair may take several dispatches: a batch of another size has one of its
    own. Where the data end inside a pair, Keras numbers it as if it were whole.

    Args:
        begin: Called with the number of the pair's first batch, from 0.
        end: Called with the number of its last one, and the logs after it.
        every: Batches in a pair, 1 or more.
    """

    def __init__(self, begin: Callable[..., None], end: Callable[..., None], *, every: int) -> None:
        self._begin = begin
        self._end = end
        self._every = every
        self._logs: Callable[[], Any] | None = None

    @property
    def is_open(self) -> bool:
        """Whether a pair has begun and not ended."""
        return self._logs is not None

    def most(self, done: int) -> int:
        """Return how many batches the next dispatch may have."""
        return self._every - done % self._every

    def before(self, done: int) -> None:
        """Note that a dispatch comes, after ``done`` batches of the epoch."""
        if done % self._every == 0:
            self._begin(done)

    def after(self, done: int, logs: Callable[[], Any]) -> None:
        """Note that a dispatch was made; ``done`` batches are finished now."""
        self._logs = logs
        if done % self._every == 0:
            self.close(done)

    def close(self, done: int) -> None:
        """End the pair that the end of the data cut short, if there is one."""
        logs, self._logs = self._logs, None
        if logs is not None:
            self._end(-(-done // self._every) * self._every - 1, logs())


def _looks(callback: Any, names: tuple[str, ...]) -> bool:
    if isinstance(callback, keras.callbacks.CallbackList):
        return any(_looks(member, names) for member in callback.callbacks)
    if names is _TRAIN and _saves_by_epoch(callback):
        return False
    # Read from the object: a LambdaCallback has its functions there. Keras marks the hooks that do nothing.
    return any(not _keras.is_default_hook(getattr(callback, name, None)) for name in names)


def _saves_by_epoch(callback: Any) -> bool:
    """Return whether a callback has a batch hook that does nothing because it saves once an epoch."""
    names = ("ModelCheckpoint", "OrbaxCheckpoint")
    saves = any(type(callback) is getattr(keras.callbacks, name, None) for name in names)
    return saves and callback.save_freq == "epoch"
