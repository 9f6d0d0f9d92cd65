"""A notebook's life: the build cell run twice, the fit cell three times, the kernel restarted.

Each function below stands for a cell, each process for a kernel.

    python examples/notebook_journey.py runs/notebook

What it shows: running the build-and-attach cell again closes the earlier run
and counts from fit 1; after a restart the fit cell returns what was done
before, as often as it was run, and then trains on.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from typing import Any

import keepfit  # before keras, so that an installed backend is chosen


def build_cell(directory: str) -> Any:
    """Build, compile and attach the model."""
    import keras

    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.Dropout(0.1),
            keras.layers.Dense(1),
        ]
    )
    model.compile("adam", "mse")
    return keepfit.attach(model, directory)


def data_cell() -> tuple[Any, Any]:
    """Make the data; with a seed, since every kernel must see the same."""
    import numpy as np

    x = np.random.default_rng(0).normal(size=(256, 4)).astype("float32")
    return x, (x**2).sum(axis=1)


def fit_cell(model: Any, x: Any, y: Any) -> None:
    """Train for two epochs more."""
    model.fit(x, y, epochs=2, batch_size=32, verbose=2)


def first_kernel(directory: str) -> None:
    """Run the build cell twice, as one does, and the fit cell three times."""
    model = build_cell(directory)
    model = build_cell(directory)
    x, y = data_cell()
    for _ in range(3):
        fit_cell(model, x, y)


def second_kernel(directory: str) -> None:
    """Begin at the top after a restart: three calls return at once, the fourth trains."""
    model = build_cell(directory)
    x, y = data_cell()
    for _ in range(4):
        fit_cell(model, x, y)
    print(model.run.history.table())


def main() -> None:
    """Run one kernel after the other."""
    parser = argparse.ArgumentParser(description="A notebook whose kernel is restarted.")
    parser.add_argument("directory", help="folder for the run")
    parser.add_argument("--kernel", type=int, choices=(1, 2), help="run this one only, in this process")
    given = parser.parse_args()
    if given.kernel is None:
        for number, title in ((1, "first kernel"), (2, "kernel restarted")):
            print(f"--- {title}", flush=True)
            subprocess.run([sys.executable, __file__, given.directory, "--kernel", str(number)], check=True)
    elif given.kernel == 1:
        first_kernel(given.directory)
    else:
        second_kernel(given.directory)


if __name__ == "__main__":
    main()
