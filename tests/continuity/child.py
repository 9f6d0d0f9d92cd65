"""The script that the kill tests run, kill and run again; it trains in three fits.

Run as ``python -m tests.continuity.child DIRECTORY MODEL SECONDS_PER_EPOCH``; ``MODEL@partitions`` reads its data from
files, a few at a time; with ``MODEL@phases`` layers, rates and variables change from fit to fit; with
``MODEL@rehearsal`` every fit has data of its own, and samples of the fits before it mixed in.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keepfit
from keepfit import features, fitting
from keepfit.rehearsal import kept, reservoir
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


def in_partitions(x: Any, y: Any) -> dict[str, Any]:
    """Write data as files of several sizes, and return them as partitions that take a while to read."""
    ends = [0, 20, 20, 33, 47, len(x)]
    for number, (start, stop) in enumerate(itertools.pairwise(ends)):
        np.savez(f"part-{number}.npz", x=x[start:stop], y=y[start:stop])
    return {"x": keepfit.partitions([f"part-{n}.npz" for n in range(5)], load=slowly, window=2)}


def slowly(path: str) -> tuple[Any, Any]:
    """Read a partition; slowly, so that a kill falls inside an epoch."""
    time.sleep(Slow.seconds / 5)
    with np.load(path) as arrays:
        return arrays["x"], arrays["y"]


def forget(prefix: str) -> None:
    """Let a resume leave tensors or a part of the state out, so that the kill tests can be seen to fail."""
    parted = fitting.parted

    def forgetful(*given: Any) -> Any:
        ends = parted(*given)
        for end in ends:
            for name in [name for name in end.tensors if name.startswith(prefix)]:
                del end.tensors[name]
            end.state.pop(prefix, None)
        return ends

    fitting.parted = forgetful


def keep_features_on_disk(seconds: float) -> None:
    """Let the features of frozen layers be files, whose making takes a while, so that a kill falls amid it."""
    features.MEMORY_BYTES = 0
    compute = features.computed

    def slowly(*given: Any) -> Any:
        Path("doing").write_text("features")
        for batch in compute(*given):
            time.sleep(seconds / 4)
            yield batch
        Path("doing").write_text("training")

    features.computed = slowly


def keep_samples_slowly(seconds: float) -> None:
    """Let the keeping of samples take a while, piece by piece, so that a kill falls amid it."""
    kept._PIECE_BYTES = 200
    give = reservoir.with_keys

    def slowly(*given: Any, **how: Any) -> Any:
        Path("doing").write_text("samples")
        for piece in give(*given, **how):
            time.sleep(seconds / 20)
            yield piece
        Path("doing").write_text("training")

    reservoir.with_keys = slowly


def phases(model: Any, phase: int) -> dict[str, Any]:
    """Return what a fit of a schedule of phases asks for; the last one comes after a layer got LoRA."""
    layers = [layer for layer in model.layers if layer.weights]
    if phase == 2:
        next(layer for layer in layers if isinstance(layer, keras.layers.Dense)).enable_lora(2)
    warm = keepfit.schedules.WarmUp(keepfit.schedules.Cosine(1e-2), over=5)
    return (
        {"train": layers[-1], "learning_rate": warm},
        {"train": "all", "learning_rate": (keepfit.schedules.OneCycle(5e-3), slice(0.1, 1.0))},
        {"train": "all", "learning_rate": 5e-3},
    )[phase]


def main(directory: str, name: str, seconds: float) -> None:
    """Train, tell on stdout when training begins, and end."""
    Slow.seconds = seconds
    # Where files lie is remembered, and compared: relative to a folder of its own it is the same for all.
    Path(f"{directory}-files").mkdir(exist_ok=True)
    os.chdir(f"{directory}-files")
    if os.environ.get("TORTURE_FORGET"):
        forget(os.environ["TORTURE_FORGET"])
    if name == "frozen_backbone":
        keep_features_on_disk(seconds)
    name, _, kind = name.partition("@")
    if kind == "rehearsal":
        keep_samples_slowly(seconds)
    model, x, y = make(name)
    data = in_partitions(x, y) if kind == "partitions" else {"x": x, "y": y}
    model = keepfit.attach(model, directory, checkpoint_share=0.5, plan=os.environ.get("TORTURE_PLAN") or None)
    print("training", flush=True)
    for phase in range(3):
        if kind == "rehearsal":
            data = {"x": x + phase, "y": y, "rehearse": 0.3}
        model.fit(
            **data,
            batch_size=10,
            epochs=4,
            verbose=0,
            validation_data=(x, y),
            callbacks=[
                keras.callbacks.EarlyStopping("loss", patience=30, restore_best_weights=True),
                keras.callbacks.CSVLogger("log.csv"),
                Slow(),
            ],
            **(phases(model, phase) if kind == "phases" else {}),
        )
        if name != "schedule" and kind != "phases":
            model.optimizer.learning_rate = 5e-3 / (phase + 2)
    print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
