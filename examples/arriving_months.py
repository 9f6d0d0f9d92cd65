"""Two months of data with other classes: what is forgotten without rehearsal, and what with it, as a picture.

Kill it at any moment and run it again: it goes on where it was.

    python examples/arriving_months.py runs/months

It needs matplotlib for the picture: ``pip install "keepfit[plot]"``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

import keepfit  # before keras, so that an installed backend is chosen


def month(number: int, samples: int) -> Any:
    """Return samples of two of four classes, those that arrive in a month."""
    generator = np.random.default_rng([number, samples])
    y = generator.integers(2, size=samples) + 2 * number
    corners = np.array([[2, 2], [2, -2], [-2, 2], [-2, -2]])[y]
    return (corners + generator.normal(size=(samples, 2))).astype("float32"), y


def main(directory: Path) -> None:
    """Train on both months, without rehearsal and with it."""
    import keras

    for fraction in (0.0, 0.3):
        keras.utils.set_random_seed(1)
        layers = [keras.Input((2,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(4, "softmax")]
        model = keras.Sequential(layers)
        model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
        model = keepfit.attach(model, directory / f"rehearse-{fraction}")
        for number, name in enumerate(("October", "November")):
            x, y = month(number, samples=2000)
            held = month(number, samples=500)
            model.fit(x, y, epochs=10, name=name, rehearse=fraction, validation_data=held, verbose=0)
        found = model.run.forgetting()
        found.plot(directory / f"rehearse-{fraction}.png")
        print(f"rehearse={fraction}: average accuracy {found.average:.3f}, forgetting {found.forgetting:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
