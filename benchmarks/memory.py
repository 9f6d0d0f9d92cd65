"""Memory and disk over many fit calls: slopes after a warm-up, no asserts.

``python benchmarks/memory.py [--calls 1000] [--backend torch] [--where memory] [--schedules]``
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

# Keras chooses its backend when it is imported.
if "--backend" in sys.argv:
    os.environ["KERAS_BACKEND"] = sys.argv[sys.argv.index("--backend") + 1]
os.environ.setdefault("KERAS_BACKEND", "jax")

import keepfit  # before keras
import keras
import numpy as np
import psutil


def resident_kib() -> float:
    """Return the memory of this process, in KiB."""
    gc.collect()
    return psutil.Process().memory_info().rss / 1024


def folder_kib(directory: Path) -> float:
    """Return the size of a folder, in KiB."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) / 1024


def measure(directory: Path | None, calls: int, *, schedules: bool) -> None:
    """Call fit many times with changing rates, or a schedule of its own for each, and print what it cost."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(32, activation="relu"), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    generator = np.random.default_rng(0)
    x = generator.normal(size=(64, 16)).astype("float32")
    y = generator.normal(size=(64, 1)).astype("float32")
    points: list[tuple[int, float, float]] = []
    with keepfit.Run(model, directory) as run:
        for call in range(calls + calls // 2):
            rate = 1e-3 / (1 + call % 7)
            model.optimizer.learning_rate = (
                keras.optimizers.schedules.CosineDecay(rate + call * 1e-6, 1000) if schedules else rate
            )
            run.fit(x, y, batch_size=32, verbose=0)
            if call + 1 >= calls // 2 and (call + 1) % (calls // 4) == 0:
                run.recorder.flush()
                points.append((call + 1, resident_kib(), folder_kib(directory) if directory else 0.0))
    first, last = points[0], points[-1]
    slope: Any = np.polyfit([p[0] for p in points], [p[1] for p in points], 1)[0]
    where = "durable" if directory else "in memory"
    print(f"{where}: {slope:+.3f} KiB a call (fitted over calls {first[0]} to {last[0]})")
    if directory:
        print(f"  folder: {first[2]:.0f} KiB after {first[0]} fits, {last[2]:.0f} KiB after {last[0]}")
        print(f"  of it in objects: {folder_kib(directory / 'objects'):.0f} KiB")


def main() -> None:
    """Measure in memory and in a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--backend", choices=("jax", "tensorflow", "torch"), default=keras.backend.backend())
    parser.add_argument("--where", choices=("memory", "folder", "both"), default="both")
    parser.add_argument("--schedules", action="store_true", help="every fit has a schedule with numbers of its own")
    given = parser.parse_args()
    print(f"keras {keras.__version__}, {given.backend}")
    if given.where != "folder":
        measure(None, given.calls, schedules=given.schedules)
    if given.where == "memory":
        return
    with tempfile.TemporaryDirectory() as place:
        measure(Path(place) / "run", given.calls, schedules=given.schedules)


if __name__ == "__main__":
    main()
