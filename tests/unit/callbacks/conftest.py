"""Shared pieces of the callbacks' tests."""

from __future__ import annotations

import json
from typing import Any

import keras
import numpy as np
import pytest

from keepfit.callbacks import CallbackMemory, SavedMemories


def small_model(units: int = 2, **optimizer: Any) -> keras.Model:
    """Return a compiled model with weights that depend on nothing."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(units)])
    model.compile(keras.optimizers.SGD(0.5, **optimizer), "mse")
    model.optimizer.build(model.trainable_variables)
    for index, weight in enumerate(model.weights):
        weight.assign(np.full(weight.shape, index + 1.0))
    return model


def bound(callback: Any, model: keras.Model | None = None, *, epochs: int = 9) -> Any:
    """Return a callback that knows its model, as at the beginning of a fit."""
    callback.set_params({"epochs": epochs, "steps": 4, "verbose": 0})
    callback.set_model(model or small_model())
    return callback


def drive(callback: Any, losses: Any, *, first: int = 0, batches: int = 4) -> None:
    """Let a callback see epochs that end with the given losses; the weights become the epoch's number."""
    model = callback.model
    for epoch, loss in enumerate(losses, first):
        callback.on_epoch_begin(epoch)
        for weight in model.weights:
            weight.assign(np.full(weight.shape, float(epoch)))
        for batch in range(batches):
            callback.on_train_batch_begin(batch, logs={})
            callback.on_train_batch_end(batch, logs={"loss": loss})
        callback.on_epoch_end(epoch, {"loss": loss, "val_loss": loss})


def begin(callback: Any, saved: SavedMemories, **options: Any) -> tuple[CallbackMemory, list[str]]:
    """Begin a fit with one callback as the loop does; return its memory book and what was said."""
    fresh = options.pop("fresh", ())
    book = CallbackMemory([callback], fresh=fresh)
    said = book.before_begin(saved, resumed=options.pop("resumed", False))
    callback.on_train_begin()
    return book, said + book.after_begin(saved, **options)


def stored(book: CallbackMemory) -> SavedMemories:
    """Return what a book takes, after the way through a file."""
    entries, tensors = book.take()
    copies = {name: np.array(array) for name, array in tensors.items()}
    return SavedMemories.from_state(json.loads(json.dumps(entries, allow_nan=False)), copies)


@pytest.fixture(autouse=True, scope="module")
def _few_layers_in_memory():
    # Once a module: it collects garbage, which takes longer than most of these tests.
    yield
    keras.utils.clear_session()
