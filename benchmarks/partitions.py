"""Partitions on disk against arrays in memory: throughput, and how well a window mixes. No asserts.

``python benchmarks/partitions.py [--quick]``
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import keepfit  # before keras
import keras
import numpy as np
from spine import medians, turns

FEATURES, CLASSES, PARTS = 64, 10, 20


def files(folder: Path, x: Any, y: Any) -> list[tuple[Path, Path]]:
    """Write data as partitions of one size."""
    paths = []
    for number, (some_x, some_y) in enumerate(zip(np.split(x, PARTS), np.split(y, PARTS), strict=True)):
        pair = (folder / f"x-{number}.npy", folder / f"y-{number}.npy")
        np.save(pair[0], some_x)
        np.save(pair[1], some_y)
        paths.append(pair)
    return paths


def data(samples: int) -> tuple[Any, Any]:
    """Return blobs, sorted by class, so that each partition holds half of one class."""
    generator = np.random.default_rng(0)
    y = np.sort(generator.integers(0, CLASSES, samples)).astype("int32")
    centres = generator.normal(size=(CLASSES, FEATURES))
    return (0.5 * centres[y] + generator.normal(size=(samples, FEATURES))).astype("float32"), y


def net(width: int, depth: int, *, rate: float = 0.05) -> Any:
    """A dense net; its width decides how long a step takes."""
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(width, activation="relu") for _ in range(depth)]
    model = keras.Sequential([keras.Input((FEATURES,)), *hidden, keras.layers.Dense(CLASSES)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), loss, metrics=["accuracy"])
    return model


def speed(folder: Path, *, passes: int, quick: bool) -> None:
    """Print seconds a pass, and ratios: in memory to partitions, and plain reading to partitions."""
    print(
        f"{'':<6} {'ms/step':>8} {'memory':>8} {'plain':>8} {'window':>7} {'ours':>8} {'of memory':>10} {'of plain':>9}"
    )
    several = (1, 4, PARTS)
    for name, width, depth, samples, batch, windows in (
        ("tiny", 32, 1, 40_000 if quick else 200_000, 64, several),
        ("many", 32, 1, 40_000 if quick else 1_000_000, 64, (4,)),
        ("large", 512, 3, 4_000 if quick else 20_000, 64, several),
        ("5 ms", 800, 3, 4_000 if quick else 20_000, 64, several),
    ):
        x, y = data(samples)
        paths = files(folder, x, y)
        options: dict[str, Any] = {"batch_size": batch, "verbose": 0}
        for window in windows:
            # Many passes over sorted data: at a higher rate the wide nets come to NaN.
            runs = [keepfit.Run(net(width, depth, rate=1e-3), seed=1) for _ in range(3)]
            parts = keepfit.partitions(paths, window=window)

            def plain(run: Any = runs[1], paths: Any = paths) -> None:
                """Read file after file, and train on each."""
                for one, other in paths:
                    run.fit(np.load(one), np.load(other), **options)

            taken = turns([lambda: runs[0].fit(x, y, **options), plain, lambda: runs[2].fit(parts, **options)], passes)
            memory, read, ours = medians(taken)
            for run in runs:
                run.close()
            step = memory / samples * batch * 1e3
            print(
                f"{name:<6} {step:>8.2f} {memory:>8.3f} {read:>8.3f} {window:>7} {ours:>8.3f} {memory / ours:>10.2f} "
                f"{read / ours:>9.2f}",
                flush=True,
            )


def mixing(*, quick: bool) -> None:
    """Print what class-sorted data comes to: in memory, in windows, and with one fit for each partition."""
    samples, epochs, seeds = (4_000, 3, (1,)) if quick else (20_000, 5, (1, 2, 3, 4, 5))
    x, y = data(samples)
    order = np.random.default_rng(1).permutation(samples)
    held, keep = order[: samples // 5], np.sort(order[samples // 5 :])
    mine, targets = x[keep], y[keep]
    steps = epochs * len(keep) // 32
    options: dict[str, Any] = {"batch_size": 32, "verbose": 0}
    print(f"\n{'class-sorted data, accuracy':<34} {'one rate':>9} {'falling':>9} {'classes in a batch of 32':>25}")

    def accuracy(train: Any, falls: bool, seed: int) -> float:
        model = net(32, 1)
        if falls:
            model.optimizer.learning_rate = keras.optimizers.schedules.CosineDecay(0.05, steps)
        with keepfit.Run(model, seed=seed) as run:
            train(run)
            return float(run.evaluate(x[held], y[held], verbose=0)[1])

    def told(name: str, train: Any, batches: Any) -> None:
        found = [np.mean([accuracy(train, falls, seed) for seed in seeds]) for falls in (False, True)]
        classes = np.mean([len(np.unique(targets[batch])) for batch in batches])
        print(f"{name:<34} {found[0]:>9.3f} {found[1]:>9.3f} {classes:>25.2f}", flush=True)

    from keepfit.data import training_source

    def batches_of(source: Any) -> Any:
        return [source.order(0, start, start + 32) for start in range(0, len(keep) - 32, 32)]

    in_memory = training_source(mine, targets, batch_size=32, seed=1)
    told("in memory", lambda run: run.fit(mine, targets, epochs=epochs, **options), batches_of(in_memory))
    for count in (PARTS, 5 * PARTS, PARTS * PARTS):
        pairs = list(zip(np.array_split(mine, count), np.array_split(targets, count), strict=True))
        for window in (16, 8, 4, 2, 1):
            parts = keepfit.partitions([lambda pair=pair: pair for pair in pairs], window=window)
            source = training_source(parts, batch_size=32, seed=1)
            told(
                f"{count} partitions, window {window}",
                lambda run, parts=parts: run.fit(parts, epochs=epochs, **options),
                batches_of(source),
            )
    pairs = list(zip(np.array_split(mine, PARTS), np.array_split(targets, PARTS), strict=True))

    def one_fit_each(run: Any) -> None:
        for _ in range(epochs):
            for pair in pairs:
                run.fit(*pair, **options)

    rows = np.arange(len(keep) // 32 * 32)
    told(f"one fit for each of {PARTS} partitions", one_fit_each, np.split(rows, len(keep) // 32))


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as folder:
        speed(Path(folder), passes=3 if quick else 5, quick=quick)
    mixing(quick=quick)


if __name__ == "__main__":
    main()
