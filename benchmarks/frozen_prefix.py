"""A frozen convolutional backbone with a small head, against keras.Model.fit: ratios of medians, no asserts.

Epochs after the first, in which keepfit trains the head on features that it computed once; the first fit,
with what computing them takes, stands beside them. ``python benchmarks/frozen_prefix.py [--quick]``
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import keepfit  # before keras
import keras
import numpy as np

SAMPLES = 512
BATCH = 32


def transfer() -> Any:
    """Return a compiled model: eight frozen convolutions with batch normalisation, and a head of two layers."""
    layers = keras.layers
    keras.utils.set_random_seed(0)
    inputs = keras.Input((32, 32, 3))
    hidden = inputs
    for filters in (32, 64, 128, 128):
        for stride in (1, 2):
            hidden = layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False)(hidden)
            hidden = layers.ReLU()(layers.BatchNormalization()(hidden))
    backbone = keras.Model(inputs, layers.GlobalAveragePooling2D()(hidden), name="backbone")
    backbone.trainable = False
    outer = keras.Input((32, 32, 3))
    head = layers.Dense(64, activation="relu")(layers.Dropout(0.2)(backbone(outer)))
    model = keras.Model(outer, layers.Dense(10, activation="softmax")(head))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class Clock(keras.callbacks.Callback):
    """Notes how long each epoch takes."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seconds.append(time.perf_counter() - self._began)


def epochs_of(fit: Any, epochs: int, data: dict[str, Any]) -> tuple[float, list[float]]:
    """Return the seconds of a whole call, and of its epochs after the first."""
    clock = Clock()
    began = time.perf_counter()
    fit(**data, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=[clock])
    return time.perf_counter() - began, clock.seconds[1:]


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one turn instead of three")
    turns = 1 if parser.parse_args().quick else 3
    generator = np.random.default_rng(0)
    x = generator.normal(size=(SAMPLES, 32, 32, 3)).astype("float32")
    y = generator.integers(0, 10, size=(SAMPLES,))
    held = {"validation_data": (x[:256], y[:256])}
    print(
        f"keras {keras.__version__}, {keras.backend.backend()}, {os.cpu_count()} cores, python {sys.version.split()[0]}"
    )
    print(f"{'':<22} {'ms/epoch:':>10} {'':>10} {'':>10} {'Keras / keepfit':>16} {'whole first call':>17}")
    print(f"{'':<22} {'Keras':>10} {'off':>10} {'keepfit':>10} {'off':>7} {'on':>8} {'Keras / keepfit':>17}")
    for title, extra in (("training", {}), ("with validation", held)):
        plain, off, on = transfer(), transfer(), transfer()
        with keepfit.Run(off) as off_run, keepfit.Run(on) as on_run:
            fits = {
                "keras": plain.fit,
                "off": lambda run=off_run, **given: run.fit(cache_frozen=False, **given),
                "on": on_run.fit,
            }
            data = {"x": x, "y": y, **extra}
            taken: dict[str, list[float]] = {name: [] for name in fits}
            first: dict[str, float] = {}
            for _ in range(turns):
                for name, fit in fits.items():
                    whole, later = epochs_of(fit, 3 if name != "on" else 21, data)
                    first.setdefault(name, whole if name != "on" else whole - sum(later[2:]))
                    taken[name] += later
        keras_s, off_s, on_s = (statistics.median(taken[name]) for name in fits)
        print(
            f"{title:<22} {keras_s * 1e3:>10.1f} {off_s * 1e3:>10.1f} {on_s * 1e3:>10.2f} "
            f"{keras_s / off_s:>7.2f} {keras_s / on_s:>8.1f} {first['keras'] / first['on']:>17.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
