"""Train on partitions ten times the memory budget, and tell how far the process's memory rose; run as a script.

``python -m tests.behaviour.bounded FOLDER MEMORY``; with a MEMORY of 0 there is no budget, and all partitions are one
window.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import keras
import numpy as np
import psutil

import keepfit

FEATURES, ROWS, PARTS = 256, 6_400, 100  # 6.5 MB each


def write(folder: Path) -> list[Path]:
    """Write the data set, partition by partition."""
    paths = [folder / f"part-{number}.npz" for number in range(PARTS)]
    generator = np.random.default_rng(0)
    for path in paths:
        x = generator.normal(size=(ROWS, FEATURES)).astype("float32")
        np.savez(path, x=x, y=x[:, :1])
    return paths


class Peak(threading.Thread):
    """The most memory that the process had while this was watching, in bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes = 0
        self.ended = threading.Event()

    def run(self) -> None:
        process = psutil.Process()
        while not self.ended.is_set():
            self.bytes = max(self.bytes, process.memory_info().rss)
            time.sleep(0.002)


def train(folder: Path, memory: int) -> int:
    """Return by how many bytes training on all of the data raised the process's memory."""
    paths = sorted(folder.glob("part-*.npz"))
    model = keras.Sequential([keras.Input((FEATURES,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    options = {"batch_size": 64, "verbose": 0}
    run = keepfit.Run(model, seed=1)
    # Compiles, and lets the backend take what it takes.
    run.fit(np.zeros((8192, FEATURES), "float32"), np.zeros((8192, 1), "float32"), epochs=2, **options)
    base = psutil.Process().memory_info().rss
    peak = Peak()
    peak.start()
    run.fit(keepfit.partitions(paths, window=4 if memory else PARTS, memory=memory or None), epochs=2, **options)
    peak.ended.set()
    peak.join()
    return peak.bytes - base


if __name__ == "__main__":
    print(train(Path(sys.argv[1]), int(sys.argv[2])))
