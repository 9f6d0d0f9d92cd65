"""Metrics whose result is an array are remembered as exactly as numbers are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np

import keepfit


def fit(directory: Path) -> Any:
    """Fit a model whose F1 score is an array."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, activation="sigmoid")])
    model.compile("adam", "binary_crossentropy", metrics=[keras.metrics.F1Score(threshold=0.5)])
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(40, 3)).astype("float32"), generator.integers(0, 2, (40, 2)).astype("float32")
    with keepfit.Run(model, directory) as run:
        return run.fit(x, y, epochs=3, verbose=0, validation_data=(x, y))


def test_replayed_history_has_array_metrics(tmp_path: Path) -> None:
    """The history of a fit that is not trained again has the arrays of the first time, bit for bit."""
    first, again = fit(tmp_path), fit(tmp_path)
    assert set(first.history) == set(again.history) == {"loss", "f1_score", "val_loss", "val_f1_score"}
    for name in first.history:
        for one, other in zip(first.history[name], again.history[name], strict=True):
            assert np.asarray(one).tobytes() == np.asarray(other).tobytes()
            assert np.shape(one) == np.shape(other)
