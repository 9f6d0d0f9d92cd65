"""Transfer learning in stages: a backbone learns the digits 0 to 4, and then helps to read 5 to 9.

One run, three fits: the backbone with its first head; a new head on the frozen
backbone; everything, early layers at lower rates. Run it, kill it at any moment,
run it again: it goes on where it was. Nothing in here knows of the kill.

    python examples/transfer_learning.py runs/transfer --picture transfer.png

It needs scikit-learn for its handwritten digits, and matplotlib for the
picture: ``pip install "keepfit[demo]"``.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import keepfit  # before keras, so that an installed backend is chosen


def main() -> None:
    """Train in three stages."""
    given = arguments()
    import keras

    keras.utils.set_random_seed(given.seed)
    first, second = digits(range(5), given.samples), digits(range(5, 10), given.samples)

    # Stage 1: a backbone and a head learn 0 to 4.
    model = keepfit.attach(network(), given.directory)
    model.fit(*first[:2], epochs=given.epochs, validation_data=first[2:], name="0 to 4", verbose=0)
    report(model)

    # Stage 2: a new head learns 5 to 9. The backbone keeps every bit.
    model.pop()
    model.add(keras.layers.Dense(5, name="head"))
    found = model.run.find_learning_rate(*second[:2], train="head", lowest=1e-5, highest=1.0)
    print(f"range test: {found.suggestion:.2g} is a rate for the head", flush=True)
    rate = keepfit.schedules.WarmUp(keepfit.schedules.Cosine(found.suggestion), over=0.1)
    train(model, second, epochs=given.epochs, train="head", learning_rate=rate, name="head")

    # Stage 3: everything trains, the first layer at a twentieth of the rate.
    rates = (keepfit.schedules.OneCycle(found.suggestion / 2), slice(0.05, 1.0))
    train(model, second, epochs=given.epochs, train="all", learning_rate=rates, name="everything")

    if given.picture is not None:
        draw(model, second[2], second[3], path=given.picture)


def train(model: Any, data: Any, **settings: Any) -> None:
    """Train on digits, and say what came of it."""
    x, y, x_held, y_held = data
    model.fit(x, y, validation_data=(x_held, y_held), verbose=0, **settings)
    report(model)


def network() -> Any:
    """Return a small backbone of two blocks with a head, compiled."""
    import keras

    layers = keras.layers
    blocks = [
        keras.Sequential(
            [layers.Conv2D(filters, 3, padding="same", activation="relu"), layers.MaxPooling2D()], name=name
        )
        for name, filters in (("block1", 16), ("block2", 32))
    ]
    backbone = keras.Sequential([keras.Input((8, 8, 1)), *blocks, layers.Flatten()], name="backbone")
    model = keras.Sequential([keras.Input((8, 8, 1)), backbone, layers.Dense(5, name="first_head")])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    return model


def report(model: Any) -> None:
    """Print what the last fit trained, and how well the model reads digits that it has not seen."""
    history = model.run.history
    fit = list(history)[-1]
    trained = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    accuracy = history.logs["val_accuracy"][-1]
    print(f"{fit.name}: {fit.epochs} epochs, {trained:,} weights trained, accuracy {accuracy:.4f}", flush=True)


def draw(model: Any, images: Any, labels: Any, *, path: Path) -> None:
    """Draw the accuracy over the three fits, the rate that each ended its epochs with, and digits as they are read."""
    import numpy as np
    from matplotlib.figure import Figure

    history = model.run.history
    accuracy, rates = history.logs["val_accuracy"], history.learning_rates
    epochs = range(1, len(accuracy) + 1)
    figure = Figure(figsize=(9.0, 6.4), layout="constrained", dpi=130)
    above, below = figure.subfigures(2, 1, height_ratios=(3.6, 1))
    upper, lower = above.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    done = 0
    for number, fit in enumerate(history):
        place = slice(done, done + fit.epochs)
        for axes, values in ((upper, accuracy), (lower, rates)):
            axes.axvspan(done + 0.5, done + fit.epochs + 0.5, color=("#dfe6ee", "#f1f4f7")[number % 2], linewidth=0)
            axes.plot(epochs[place], values[place], color=("#e07b1f", "#2563ae")[number > 0], marker="o", markersize=4)
        what = "0 to 4" if number == 0 else "5 to 9"
        upper.text(done + 0.65, 1.005, f"fit {fit.number}: {fit.name}", fontsize=9, va="bottom")
        upper.annotate(what, (epochs[place][-1], accuracy[place][-1]), (0, -14), textcoords="offset points", ha="right")
        done += fit.epochs
    upper.set_ylim(min(accuracy) - 0.03, 1.04)
    upper.set_xlim(0.5, done + 0.5)
    upper.set_ylabel("accuracy on held-out digits")
    lower.set_ylabel("rate of the head")
    lower.set_xlabel("epoch")
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)

    guesses = np.argmax(model.predict(images, verbose=0), axis=1)
    wrong, right = np.flatnonzero(guesses != labels)[:4], np.flatnonzero(guesses == labels)
    shown = [*wrong, *right][:12]
    for place, index in zip(below.subplots(1, len(shown)), shown, strict=True):
        place.imshow(images[index, :, :, 0], cmap="gray_r")
        colour = "#1f8a4c" if guesses[index] == labels[index] else "#c01f3a"
        place.set_title(f"{guesses[index] + 5}", color=colour, fontsize=11)
        place.set_axis_off()
    below.suptitle(f"held-out digits as they are read; {len(images)} in all, wrong: {np.sum(guesses != labels)}")
    figure.savefig(path)


def digits(classes: range, samples: int) -> Any:
    """Return images and labels (0 for the first class) of some digits to train on, and a quarter of them held out."""
    import numpy as np
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    chosen = np.flatnonzero(np.isin(labels, classes))[:samples]
    x = images[chosen].reshape(-1, 8, 8, 1).astype("float32") / 16
    # A fixed seed: every process must see the same split.
    x, x_held, y, y_held = train_test_split(x, labels[chosen] - classes[0], test_size=0.25, random_state=0)
    return x, y, x_held, y_held


def arguments() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description="Transfer learning in stages on handwritten digits.")
    parser.add_argument("directory", type=Path, help="folder of the run")
    parser.add_argument("--epochs", type=int, default=6, help="epochs of each stage")
    parser.add_argument("--samples", type=int, default=900, help="images of each half of the digits to use")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--picture", type=Path, help="where to draw what came of it")
    return parser.parse_args()


if __name__ == "__main__":
    main()
