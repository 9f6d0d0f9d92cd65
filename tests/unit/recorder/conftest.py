"""Shared pieces of the recorders' tests."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest

from keepfit.clock import Position
from keepfit.errors import KeepfitError
from keepfit.journal import EpochRecord, FitRecord
from keepfit.recorder import DiskRecorder, MemoryRecorder

LARGE = 10_000


def tensors(label: float) -> dict[str, np.ndarray]:
    """Return a state with something large and frozen, large and small."""
    return {
        "model/frozen": np.arange(LARGE, dtype=np.float64),
        "model/large": np.full(LARGE, label),
        "model/small": np.asarray([label, -label], np.float32),
    }


class Life:
    """Records what a training would."""

    def __init__(self, recorder) -> None:
        self.recorder = recorder

    def start(self, **options) -> None:
        """Record the state before fit 1."""
        self.checkpoint("start", 0, Position(), 0, **{"wait": True} | options)

    def checkpoint(self, kind, fit, position, label, **options) -> None:
        """Take a checkpoint whose content follows from its label."""
        self.recorder.checkpoint(
            kind=kind, fit=fit, position=position, tensors=tensors(label), state={"label": label}, **options
        )

    def begin(self, number, *, epochs=2, **facts) -> None:
        """Record that a fit has begun."""
        self.recorder.put_fit(FitRecord(number=number, epochs_planned=epochs, first_epoch=2 * (number - 1), **facts))

    def epoch(self, number, epoch, loss=1.0) -> None:
        """Record an epoch."""
        self.recorder.put_epoch(EpochRecord(fit=number, epoch=epoch, label=epoch, logs={"loss": loss}, ended=5.0))

    def inside(self, number, *, done=1, **options) -> None:
        """Take a checkpoint inside a fit."""
        epochs = 2 * (number - 1) + done
        self.checkpoint("inside", number, Position(fit=number - 1, epoch=epochs, step=epochs), number + 0.5, **options)

    def fit(self, number, *, loss=1.0, name=None, **options) -> None:
        """Record a whole fit of two epochs with its end."""
        self.begin(number, name=name)
        for epoch in (2 * number - 2, 2 * number - 1):
            self.epoch(number, epoch, loss)
        self.recorder.put_fit(
            FitRecord(
                number=number, name=name, epochs_planned=2, epochs_done=2, first_epoch=2 * number - 2, status="finished"
            )
        )
        self.checkpoint(
            "end", number, Position(fit=number, epoch=2 * number, step=2 * number), number, **{"wait": True} | options
        )


@pytest.fixture
def openers(tmp_path):
    """Return what opens recorders by kind; all are closed in the end."""
    made = []

    def disk(directory=None, **options):
        made.append(DiskRecorder.open(directory or tmp_path / "run", **options))
        return made[-1]

    yield {"disk": disk, "memory": lambda **options: MemoryRecorder(**options)}
    for recorder in made:
        with suppress(KeepfitError):
            recorder.close()


@pytest.fixture
def opened(openers):
    """Return what opens a `DiskRecorder` in the folder ``run``."""
    return openers["disk"]


@pytest.fixture
def life():
    """Return what records a training into a recorder."""
    return Life


@pytest.fixture
def state():
    """Return the function from a label to the tensors of a state."""
    return tensors
