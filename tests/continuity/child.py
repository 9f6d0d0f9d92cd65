"""The script that the kill tests run, kill and run again; it trains in three fits.

Run as ``python -m tests.continuity.child DIRECTORY MODEL SECONDS_PER_EPOCH``.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import keras

import keepfit
from keepfit import fitting
from tests.models import make


class Slow(keras.callbacks.Callback):
    """Make an epoch last a little, so that a kill falls inside the training."""

    # Of the class, not of the object: what an object holds is remembered, and compared.
    seconds = 0.0

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        time.sleep(self.seconds)

    def on_test_begin(self, logs: object = None) -> None:
        Path("doing").write_text("validation")
        time.sleep(self.seconds / 2)

    def on_test_end(self, logs: object = None) -> None:
        Path("doing").write_text("training")


def forget(prefix: str) -> None:
    """Let a resume leave tensors out, so that the kill tests can be seen to fail."""
    parted = fitting.parted

    def forgetful(*given: Any) -> Any:
        ends = parted(*given)
        for end in ends:
            for name in [name for name in end.tensors if name.startswith(prefix)]:
                del end.tensors[name]
        return ends

    fitting.parted = forgetful


def main(directory: str, name: str, seconds: float) -> None:
    """Train, tell on stdout when training begins, and end."""
    Slow.seconds = seconds
    # Where files lie is remembered, and compared: relative to a folder of its own it is the same for all.
    Path(f"{directory}-files").mkdir(exist_ok=True)
    os.chdir(f"{directory}-files")
    if os.environ.get("TORTURE_FORGET"):
        forget(os.environ["TORTURE_FORGET"])
    model, x, y = make(name)
    model = keepfit.attach(model, directory, checkpoint_share=0.5)
    print("training", flush=True)
    for phase in range(3):
        model.fit(
            x,
            y,
            batch_size=10,
            epochs=4,
            verbose=0,
            validation_data=(x, y),
            callbacks=[
                keras.callbacks.EarlyStopping("loss", patience=30, restore_best_weights=True),
                keras.callbacks.CSVLogger("log.csv"),
                Slow(),
            ],
        )
        if name != "schedule":
            model.optimizer.learning_rate = 5e-3 / (phase + 2)
    print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
