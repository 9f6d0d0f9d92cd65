"""keepfit against keras.Model.fit, side by side in one run: ratios of medians, no asserts.

``python benchmarks/spine.py [--quick] [--workload NAME]``
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import keepfit  # before keras
import keras
import numpy as np

BATCH = 64
# Keras runs one step at a time on PyTorch, whatever it is told.
EXECUTIONS = (1,) if keras.backend.backend() == "torch" else (1, 8, 32, 128)


def dense() -> tuple[Any, tuple[int, ...], int]:
    """A small dense net: the loop is what costs."""
    layers = keras.layers
    return keras.Sequential([keras.Input((32,)), layers.Dense(64, activation="relu"), layers.Dense(1)]), (32,), 256


def tabular() -> tuple[Any, tuple[int, ...], int]:
    """A net for tables: three layers with batch normalisation and dropout."""
    layers = keras.layers
    stack: list[Any] = [keras.Input((40,))]
    for _ in range(3):
        stack += [layers.Dense(128), layers.BatchNormalization(), layers.ReLU(), layers.Dropout(0.2)]
    return keras.Sequential([*stack, layers.Dense(1)]), (40,), 128


def cnn() -> tuple[Any, tuple[int, ...], int]:
    """A small convolutional net."""
    layers = keras.layers
    stack = [
        keras.Input((16, 16, 3)),
        layers.Conv2D(16, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(32, 3, activation="relu"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(1),
    ]
    return keras.Sequential(stack), (16, 16, 3), 24


def lstm() -> tuple[Any, tuple[int, ...], int]:
    """A recurrent net over twenty steps."""
    return keras.Sequential([keras.Input((20, 16)), keras.layers.LSTM(32), keras.layers.Dense(1)]), (20, 16), 32


def transformer() -> tuple[Any, tuple[int, ...], int]:
    """One transformer block over 24 tokens of 32 numbers."""
    layers = keras.layers
    inputs = keras.Input((24, 32))
    hidden = layers.LayerNormalization()(inputs + layers.MultiHeadAttention(4, 8)(inputs, inputs))
    wide = layers.Dense(32)(layers.Dense(64, activation="relu")(hidden))
    hidden = layers.LayerNormalization()(hidden + wide)
    return keras.Model(inputs, layers.Dense(1)(layers.GlobalAveragePooling1D()(hidden))), (24, 32), 24


WORKLOADS: dict[str, Callable[[], tuple[Any, tuple[int, ...], int]]] = {
    maker.__name__: maker for maker in (dense, tabular, cnn, lstm, transformer)
}


def compiled(maker: Callable[..., Any], executions: int = 1) -> Any:
    """Return a fresh compiled model of a workload."""
    keras.utils.set_random_seed(0)
    model = maker()[0]
    model.compile("adam", "mse", steps_per_execution=executions)
    return model


def seconds(call: Callable[[], Any]) -> float:
    """Return how long a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def turns(calls: list[Callable[[], Any]], passes: int) -> list[list[float]]:
    """Return the seconds of each call in each pass; the calls take turns."""
    for call in calls:
        call()
    return [[seconds(call) for call in calls] for _ in range(passes)]


def medians(taken: list[list[float]]) -> list[float]:
    """Return the median seconds of each call."""
    return [statistics.median(times) for times in zip(*taken, strict=True)]


def workload_row(name: str, passes: int) -> str:
    """Return the line of one workload."""
    maker = WORKLOADS[name]
    _, shape, steps = maker()
    generator = np.random.default_rng(0)
    x = generator.normal(size=(steps * BATCH, *shape)).astype("float32")
    y = generator.normal(size=(steps * BATCH, 1)).astype("float32")
    options: dict[str, Any] = {"batch_size": BATCH, "verbose": 0}
    models = [compiled(maker, executions) for executions in EXECUTIONS]
    ours = compiled(maker)
    with keepfit.Run(ours) as run:
        calls = [lambda model=model: model.fit(x, y, **options) for model in models]
        taken = turns([*calls, lambda: run.fit(x, y, **options)], 2 * passes)
        plan = run.recorder.fits[1].plan["plan"]
    # Chosen in every other pass and compared in the rest: the least of several noisy medians is not their truth.
    chosen = min(range(len(EXECUTIONS)), key=medians(taken[::2]).__getitem__)
    *kerases, mine = medians(taken[1::2])
    best = kerases[chosen]
    micro = 1e6 / steps
    return (
        f"{name:<12} {plan:<9} {kerases[0] * micro:>9.0f} {best * micro:>9.0f} "
        f"(at {EXECUTIONS[chosen]:>3}) {mine * micro:>9.0f} {kerases[0] / mine:>8.2f} {best / mine:>8.2f}"
    )


def one_batch(passes: int) -> str:
    """Return the lines about a fit call of one batch."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(BATCH, 32)).astype("float32")
    y = generator.normal(size=(BATCH, 1)).astype("float32")
    options: dict[str, Any] = {"batch_size": BATCH, "verbose": 0}
    plain, memory, durable = (compiled(dense) for _ in range(3))
    with (
        tempfile.TemporaryDirectory() as place,
        keepfit.Run(memory) as one,
        keepfit.Run(durable, place + "/run") as two,
    ):
        calls = [lambda: plain.fit(x, y, **options), lambda: one.fit(x, y, **options), lambda: two.fit(x, y, **options)]
        for call in calls:
            for _ in range(20):
                call()
        keras_s, memory_s, durable_s = medians(turns(calls, passes))
        # Keras's call leaves caches and allocators to ours as it likes.
        (alone_s,) = medians(turns(calls[1:2], passes))
    return (
        f"one-batch fit call: Keras {keras_s * 1e3:.2f} ms, in memory {memory_s * 1e3:.2f} ms "
        f"(Keras / keepfit {keras_s / memory_s:.2f}), durable {durable_s * 1e3:.2f} ms "
        f"({(durable_s - keras_s) * 1e3:+.2f} ms against Keras); in memory by itself {alone_s * 1e3:.2f} ms"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three passes instead of nine")
    parser.add_argument("--workload", choices=WORKLOADS)
    given = parser.parse_args()
    passes = 3 if given.quick else 9
    print(
        f"keras {keras.__version__}, {keras.backend.backend()}, {os.cpu_count()} cores, python {sys.version.split()[0]}"
    )
    print(f"{'workload':<12} {'plan':<9} {'us/step:':>9} {'':>9} {'':>8} {'':>9} {'Keras / keepfit':>17}")
    print(f"{'':<12} {'':<9} {'plain':>9} {'best':>9} {'':>8} {'keepfit':>9} {'plain':>8} {'best':>8}")
    for name in [given.workload] if given.workload else WORKLOADS:
        print(workload_row(name, passes), flush=True)
    print(one_batch(passes * 20))


if __name__ == "__main__":
    main()
