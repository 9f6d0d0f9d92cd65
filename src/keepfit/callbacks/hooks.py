"""Which hooks the callbacks of a fit look at."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras

from keepfit import _keras

_TRAIN = ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end")
_TEST = ("on_test_batch_begin", "on_test_batch_end")
_PREDICT = ("on_predict_batch_begin", "on_predict_batch_end")


def has_train_batch_hooks(callbacks: Iterable[Any]) -> bool:
    """Return whether any callback looks at training batches, so that steps are dispatched as it asks."""
    return any(_overrides(callback, _TRAIN) for callback in callbacks)


def has_test_batch_hooks(callbacks: Iterable[Any]) -> bool:
    """Return whether any callback looks at test batches."""
    return any(_overrides(callback, _TEST) for callback in callbacks)


def has_predict_batch_hooks(callbacks: Iterable[Any]) -> bool:
    """Return whether any callback looks at predicted batches."""
    return any(_overrides(callback, _PREDICT) for callback in callbacks)


def _overrides(callback: Any, names: tuple[str, ...]) -> bool:
    if isinstance(callback, keras.callbacks.ModelCheckpoint) and callback.save_freq == "epoch":
        names = tuple(name for name in names if name not in _TRAIN) if type(callback) is keras.callbacks.ModelCheckpoint else names
    return any(not _keras.is_default_hook(getattr(callback, name, None)) for name in names)
