"""Processes played in one: each builds its model anew, with other weights, and opens the folder."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakSet

import keras
import pytest

import keepfit
from keepfit.errors import KeepfitWarning
from tests.models import make

SHORT: dict[str, Any] = {"batch_size": 16, "epochs": 2, "verbose": 0}


def built(maker: str = "plain_dense") -> tuple[Any, Any, Any]:
    """Return a model of the list with its data, and with weights that no other process has."""
    model, x, y = make(maker)
    model.set_weights([weight + 1 for weight in model.get_weights()])
    return model, x, y


def attached(directory: Path, maker: str = "plain_dense", **settings: Any) -> tuple[Any, Any, Any]:
    """Return a model that is attached to a folder, with its data; in a folder that is there, other weights first."""
    model, x, y = (built if directory.exists() else make)(maker)
    return attach_quietly(model, directory, **settings), x, y


def attach_quietly(model: Any, directory: Path, **settings: Any) -> Any:
    """Attach without the notice that the model now holds the recorded start."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The model now holds the state", KeepfitWarning)
        return keepfit.attach(model, directory, **settings)


@contextmanager
def process(directory: Path, maker: str = "plain_dense", **settings: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Yield what `attached` returns, and end the process."""
    model, x, y = attached(directory, maker, **settings)
    try:
        yield model, x, y
    finally:
        model.run.close()


_ARMED: WeakSet[Interrupt] = WeakSet()


class Interrupt(keras.callbacks.Callback):
    """Ctrl-C at the end of an epoch, numbered over the run, once in the life of the object."""

    def __init__(self, epoch: int, *, armed: bool = True) -> None:
        super().__init__()
        self.epoch = epoch
        if armed:
            _ARMED.add(self)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch == self.epoch and self in _ARMED:
            _ARMED.discard(self)
            raise KeyboardInterrupt


class Stop(keras.callbacks.Callback):
    """Ctrl-C at a step, counted over the life of the object, once."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self._left = [step]

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._left[0] -= 1
        if self._left[0] == 0:
            raise KeyboardInterrupt


def interrupt(model: Any, x: Any, y: Any, *, epoch: int, **arguments: Any) -> Interrupt:
    """Call ``fit`` and press Ctrl-C at the end of an epoch; the callback, which will not do so again, is returned."""
    callback = Interrupt(epoch)
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, callbacks=[callback], **arguments)
    return callback


def numbers(run: Any) -> dict[int, str]:
    """Return fit -> status of what the journal has."""
    return {number: record.status for number, record in run.recorder.fits.items()}


def copied(directory: Path, target: Path) -> Path:
    """Return a copy of a run as it is on disk, without its lock."""
    return Path(shutil.copytree(directory, target, ignore=shutil.ignore_patterns("lock")))
