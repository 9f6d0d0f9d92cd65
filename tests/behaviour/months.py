"""Data that arrives month by month, and a model for it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np


def month(number: int, samples: int = 60) -> tuple[Any, Any]:
    """Return what arrived in a month: classes that lie elsewhere than in the others."""
    generator = np.random.default_rng(100 + number)
    x = generator.normal(size=(samples, 6)).astype("float32")
    y = ((x[:, 0] + x[:, 1] > 0) + number) % 3
    return x + 2 * number, y.astype("int32")


def classes(number: int, samples: int = 80) -> tuple[Any, Any]:
    """Return a month in which two of four classes arrive, each around a corner of its own."""
    generator = np.random.default_rng(200 + number)
    y = generator.integers(2, size=samples) + 2 * number
    corners = np.array([[2, 2], [2, -2], [-2, 2], [-2, -2]])[y]
    x = np.concatenate([corners, np.zeros((samples, 4))], axis=1) + generator.normal(size=(samples, 6))
    return x.astype("float32"), y.astype("int32")


def classifier(*, dropout: float = 0.2) -> Any:
    """Return a small model with state that is easily lost."""
    keras.utils.set_random_seed(4)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(12, activation="relu"),
            layers.Dropout(dropout),
            layers.Dense(4, activation="softmax", name="head"),
        ]
    )
    model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
