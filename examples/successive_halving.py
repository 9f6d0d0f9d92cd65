"""Successive halving: one common fit, forked into several learning rates, the better half trained on at each rung.

Run it, kill it at any moment, run it again: it goes on where it was, and ends
with the same winner and the same bits. Nothing in here knows of the kill.

    python examples/successive_halving.py runs/halving

It needs scikit-learn for its handwritten digits: ``pip install "keepfit[demo]"``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import keepfit  # before keras, so that an installed backend is chosen


def main() -> None:
    """Train, fork, and halve."""
    given = arguments()
    import keras
    import numpy as np

    keras.utils.set_random_seed(given.seed)
    x, y, x_held, y_held = digits(given.samples)

    def train(run: keepfit.Run, epochs: int, name: str) -> float:
        history = run.fit(x, y, epochs=epochs, validation_data=(x_held, y_held), name=name, verbose=0)
        loss = history.history["val_loss"][-1]
        print(f"{name}: learning rate {run.learning_rate:.5f}, validation loss {loss:.6f}", flush=True)
        return loss

    common = keepfit.Run(network(1e-3), given.directory / "common")
    train(common, given.epochs, "common")

    # Each fork begins with all that the common fit left: weights, optimizer state, random generators, data position.
    rates = [float(rate) for rate in np.geomspace(1e-4, 3e-2, given.candidates)]
    runs = {
        rate: common.fork(given.directory / f"rate-{number}", at=1, model=network(rate))
        for number, rate in enumerate(rates)
    }
    for rung in range(1, given.candidates.bit_length()):
        losses = {rate: train(run, given.epochs * 2 ** (rung - 1), f"rung {rung}") for rate, run in runs.items()}
        better = sorted(losses, key=losses.__getitem__)[: len(losses) // 2]
        for rate in set(runs) - set(better):
            runs.pop(rate).close()
    ((rate, winner),) = runs.items()
    print(f"winner: learning rate {rate:.5f}, {winner.position.epoch} epochs, validation loss {losses[rate]!r}")


def network(rate: float) -> Any:
    """Return a small compiled classifier."""
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((64,)), layers.Dense(32, activation="relu"), layers.Dropout(0.2), layers.Dense(10)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    return model


def digits(samples: int) -> Any:
    """Return inputs and labels to train on, and a quarter of them held out."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    # A fixed seed: every process must see the same split.
    x, x_held, y, y_held = train_test_split(
        images[:samples].astype("float32") / 16, labels[:samples], test_size=0.25, random_state=0
    )
    return x, y, x_held, y_held


def arguments() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description="Successive halving over learning rates.")
    parser.add_argument("directory", type=Path, help="folder for the runs")
    parser.add_argument("--candidates", type=int, default=8, help="learning rates to begin with, a power of two")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of the common fit and of the first rung")
    parser.add_argument("--samples", type=int, default=1797, help="images to use")
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    if given.candidates < 2 or given.candidates & (given.candidates - 1):
        parser.error(f"--candidates: expected a power of two, 2 or more, received {given.candidates}")
    return given


if __name__ == "__main__":
    main()
