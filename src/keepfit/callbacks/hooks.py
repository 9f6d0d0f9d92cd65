"""Which hooks the callbacks of a fit look at."""

from __future__ import annotations

from collections.abc import Iterable
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


def has_train_batch_hooks(callbacks: Iterable[Any]) -> bool:
    """Return whether any callback looks at training batches, so that steps are dispatched as it asks."""
    return any(_looks(callback, _TRAIN) for callback in callbacks)


def has_test_batch_hooks(callbacks: Iterable[Any]) -> bool:
    """Return whether any callback looks at test batches."""
    return any(_looks(callback, _TEST) for callback in callbacks)


def has_predict_batch_hooks(callbacks: Iterable[Any]) -> bool:
    """Return whether any callback looks at predicted batches."""
    return any(_looks(callback, _PREDICT) for callback in callbacks)


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
