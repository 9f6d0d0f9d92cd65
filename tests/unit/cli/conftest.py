"""Run folders as a recorder leaves them, and the command in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from keepfit.cli import command
from keepfit.clock import Position
from keepfit.journal import EpochRecord, FitRecord
from keepfit.recorder import DiskRecorder

STARTED = 1.79e9
FITS = ((1, "warm-up", 2), (2, None, 1))


def write_run(directory: Path, *, name: str | None = "warm-up") -> DiskRecorder:
    """Record two fits of three epochs and return the recorder, still open."""
    recorder = DiskRecorder.open(directory, share="each")
    recorder.set_meta("seed", 1234)
    recorder.set_meta("lineage", {"directory": "runs/base", "run": None, "at": 2})
    recorder.set_meta("model", {"model/dense/kernel": [[64, 10], "float32"]})
    done = 0
    checkpoint(recorder, "start", 0, done)
    for number, _, length in FITS:
        facts = {
            "number": number,
            "name": name if number == 1 else None,
            "phase": "first" if number == 1 else "continues",
            "epochs_planned": length,
            "first_epoch": done,
            "first_step": done * 45,
            "first_samples": done * 1437,
            "started": STARTED,
            "learning_rate": 1e-3,
            "plan": {"plan": "fused", "backend": "jax", "versions": {"keras": "3.99"}},
            "approximate": ["the generator was resumed by replay"] if number == 2 else [],
        }
        recorder.put_fit(FitRecord(**facts))
        for _ in range(length):
            done += 1
            logs = {"loss": 1.0 / done, "val_loss": 1.5 / done, "accuracy": 1 - 0.5 / done}
            recorder.put_epoch(
                EpochRecord(
                    fit=number,
                    epoch=done - 1,
                    label=done - 1,
                    logs=logs,
                    learning_rate=1e-3,
                    steps=45,
                    step=done * 45,
                    samples=done * 1437,
                    seconds=0.25,
                )
            )
        if number == 2:
            recorder.event("died", "an earlier process ended without closing the run", fit=2, epoch=2, step=100)
            recorder.event("resumed", "fit 2 resumed at epoch 1, step 10", fit=2, epoch=2, step=100)
        recorder.put_fit(FitRecord(**facts, status="finished", epochs_done=length, ended=STARTED + 1))
        checkpoint(recorder, "end", number, done)
    return recorder


def checkpoint(recorder: DiskRecorder, kind: str, fit: int, epochs: int) -> None:
    kernel = np.full((200, 100), epochs, "float32")  # large enough for a file of its own
    recorder.checkpoint(
        kind=kind,
        fit=fit,
        position=Position(fit=fit, epoch=epochs, step=epochs * 45, samples=epochs * 1437),
        tensors={"model/kernel": kernel, "optimizer/iterations": np.array(epochs)},
        state={},
        wait=True,
    )


@pytest.fixture
def open_run(tmp_path: Path) -> Iterator[Path]:
    """A run folder that its recorder still has open."""
    recorder = write_run(tmp_path / "digits")
    yield tmp_path / "digits"
    recorder.close()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder that was closed."""
    write_run(tmp_path / "digits").close()
    return tmp_path / "digits"


@pytest.fixture
def keepfit() -> Callable[..., Result]:
    """The command, run with arguments."""

    def call(*arguments: object) -> Result:
        result = CliRunner().invoke(command, [str(argument) for argument in arguments], prog_name="keepfit")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call
