"""Training on data larger than its memory budget, in both ways, with a picture of the memory over time.

It writes a data set in partitions, sorted by class as such data often is, and trains on it with one ``fit`` over all
of them, and with a loop of one ``fit`` for each. Kill it at any moment and run it again: it goes on where it was.

    python examples/larger_than_memory.py runs/large

It needs matplotlib and psutil for the picture: ``pip install "keepfit[plot]" psutil``.
"""

from __future__ import annotations

import argparse
import threading
import time
from pathlib import Path
from typing import Any

import keepfit  # before keras, so that an installed backend is chosen

FEATURES, CLASSES = 128, 10


def main() -> None:
    """Write, train in both ways, draw."""
    given = arguments()
    import keras

    paths = written(given.directory / "data", rows=given.rows, parts=given.parts)
    total = sum(path.stat().st_size for path in paths)
    memory = int(given.memory * 1e6)
    print(f"{len(paths)} partitions, {total / 1e6:.0f} MB; a budget of {memory / 1e6:.0f} MB", flush=True)
    keras.utils.set_random_seed(1)
    warm_up()
    watch = Watch()
    watch.start()

    watch.mark("one fit over all partitions")
    data = keepfit.partitions(paths, window=given.window, memory=memory)
    model = keepfit.attach(network(), given.directory / "one-fit", seed=1)
    model.fit(data, epochs=given.epochs, batch_size=64, verbose=0)
    report("one fit over all partitions", model, data)

    data.close()
    watch.mark("one fit for each partition")
    model = keepfit.attach(network(), given.directory / "loop", seed=1)
    for _ in range(given.epochs):
        for path in paths:
            x, y = loaded(path)
            model.fit(x, y, batch_size=64, verbose=0)
    report("one fit for each partition ", model, data)
    watch.end()
    watch.draw(given.directory / "memory.png", total=total, memory=memory)


def arguments() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--parts", type=int, default=240)
    parser.add_argument("--rows", type=int, default=3_000, help="samples in a partition")
    parser.add_argument("--window", type=int, default=20, help="partitions that are mixed at once")
    parser.add_argument("--memory", type=float, default=60, help="budget for data, in MB")
    parser.add_argument("--epochs", type=int, default=2)
    return parser.parse_args()


def written(folder: Path, *, rows: int, parts: int) -> list[Path]:
    """Write the data set where it is not there yet; each partition holds samples of one class only."""
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    centres = np.random.default_rng(0).normal(size=(CLASSES, FEATURES))
    paths = [folder / f"part-{number:03}.npz" for number in range(parts)]
    for number, path in enumerate(paths):
        if not path.exists():
            generator = np.random.default_rng(number + 1)
            label = number * CLASSES // parts
            x = (0.3 * centres[label] + generator.normal(size=(rows, FEATURES))).astype("float32")
            aside = path.with_suffix(".part")
            with aside.open("wb") as file:  # whole or not at all, also where this is killed
                np.savez(file, x=x, y=np.full(rows, label, "int32"))
            aside.replace(path)
    return paths


def loaded(path: Path) -> tuple[Any, Any]:
    """Return the arrays of a partition."""
    import numpy as np

    with np.load(path) as arrays:
        return arrays["x"], arrays["y"]


def network() -> Any:
    """Return a small network, the same each time."""
    import keras

    keras.utils.set_random_seed(1)
    layers = keras.layers
    model = keras.Sequential([keras.Input((FEATURES,)), layers.Dense(64, activation="relu"), layers.Dense(CLASSES)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
    return model


def warm_up() -> None:
    """Let the backend take the memory that it takes once, so that the picture shows that of the data."""
    import numpy as np

    with keepfit.Run(network()) as run:
        run.fit(np.zeros((8192, FEATURES), "float32"), np.zeros(8192, "int32"), batch_size=64, epochs=2, verbose=0)


def report(way: str, model: Any, data: Any) -> None:
    """Print how well a model knows all classes."""
    print(f"{way}: accuracy on all data {model.evaluate(data, batch_size=1024, verbose=0)[1]:.4f}", flush=True)


class Watch(threading.Thread):
    """Notes the memory of the process while it trains."""

    def __init__(self) -> None:
        import psutil

        super().__init__(daemon=True)
        self._process = psutil.Process()
        self._began = time.monotonic()
        self._base = self._process.memory_info().rss
        self._points: list[tuple[float, float]] = []
        self._marks: list[tuple[float, str]] = []
        self._ended = threading.Event()

    def run(self) -> None:
        """Look a hundred times a second."""
        while not self._ended.wait(0.01):
            self._points.append((time.monotonic() - self._began, self._process.memory_info().rss - self._base))

    def mark(self, title: str) -> None:
        """Note that something begins."""
        self._marks.append((time.monotonic() - self._began, title))

    def end(self) -> None:
        """Stop looking."""
        self._ended.set()
        self.join()

    def draw(self, path: Path, *, total: int, memory: int) -> None:
        """Draw the memory over time, beside the budget and the size of the data."""
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot as plt

        figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
        axes.plot(
            [at for at, _ in self._points], [size / 1e6 for _, size in self._points], label="memory of the process"
        )
        axes.axhline(memory / 1e6, color="tab:red", linestyle="--", label="budget of the partitions")
        axes.axhline(total / 1e6, color="tab:grey", linestyle=":", label="the data set")
        for at, title in self._marks:
            axes.axvline(at, color="black", linewidth=0.8)
            axes.annotate(
                title, (at, 0.8), xycoords=("data", "axes fraction"), xytext=(4, 0), textcoords="offset points"
            )
        axes.set(xlabel="seconds", ylabel="MB above the process's own", ylim=(0, total / 1e6 * 1.08))
        axes.legend(loc="center right")
        figure.savefig(path, dpi=120)
        plt.close(figure)
        most = max((size for _, size in self._points), default=0)
        print(f"most memory: {most / 1e6:.0f} MB, drawn in {path}", flush=True)


if __name__ == "__main__":
    main()
