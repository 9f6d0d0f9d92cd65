"""Metrics whose result is an array are remembered as exactly as numbers are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keepfit
from tests.behaviour.processes import Interrupt


def fit(directory: Path | None, *, interrupt: bool = False) -> Any:
    """Fit a model whose F1 score is an array; `interrupt` presses Ctrl-C at the end of epoch 1, and calls again."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, activation="sigmoid")])
    model.compile("adam", "binary_crossentropy", metrics=[keras.metrics.F1Score(threshold=0.5)])
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(40, 3)).astype("float32"), generator.integers(0, 2, (40, 2)).astype("float32")
    arguments: dict[str, Any] = {"epochs": 3, "verbose": 0, "validation_data": (x, y)}
    with keepfit.Run(model, directory) as run:
        if interrupt:
            arguments["callbacks"] = [Interrupt(1)]
            with pytest.raises(KeyboardInterrupt):
                run.fit(x, y, **arguments)
        return run.fit(x, y, **arguments)


def same(first: Any, again: Any) -> None:
    """Assert that two histories have the same arrays, bit for bit, under the same names in the same order."""
    assert set(first.history) == {"loss", "f1_score", "val_loss", "val_f1_score"}
    assert list(first.history) == list(again.history)
    for name in first.history:
        for one, other in zip(first.history[name], again.history[name], strict=True):
            assert np.asarray(one).tobytes() == np.asarray(other).tobytes()
            assert np.shape(one) == np.shape(other)


def test_replayed_history_has_array_metrics(tmp_path: Path) -> None:
    """The history of a fit that is not trained again has the arrays of the first time, bit for bit."""
    same(fit(tmp_path), fit(tmp_path))


def test_resumed_history_has_array_metrics() -> None:
    """An epoch that was interrupted after its last step has its arrays when the fit went on."""
    same(fit(None), fit(None, interrupt=True))
