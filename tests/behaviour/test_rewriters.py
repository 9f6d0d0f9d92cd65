"""Who rewrote weights at the end of a fit must be there again for the next one to continue it."""

from __future__ import annotations

from typing import Any

import keras
import pytest

import keepfit
from keepfit.errors import KeepfitWarning
from tests.models import make


def patience() -> Any:
    """Return an early stopping that never stops, and puts back the weights that were best: here those of the start."""
    return keras.callbacks.EarlyStopping("loss", mode="max", patience=99, restore_best_weights=True)


def test_fit_continues_with_the_callback_that_rewrote_weights() -> None:
    """With an equal callback the next fit goes on from before the weights were put back."""
    model, x, y = make("plain_dense")
    with keepfit.Run(model) as run:
        run.fit(x, y, epochs=2, verbose=0, callbacks=[patience()])
        run.fit(x, y, epochs=2, verbose=0, callbacks=[keras.callbacks.LambdaCallback(), patience()])
        assert run.recorder.fits[2].phase == "continues"


def test_fit_without_the_callback_that_rewrote_weights_is_a_new_phase() -> None:
    """Without it the next fit begins from the weights that were put back, and that is said."""
    model, x, y = make("plain_dense")
    with keepfit.Run(model) as run:
        run.fit(x, y, epochs=2, verbose=0, callbacks=[patience()])
        with pytest.warns(KeepfitWarning, match=r"Fit 2 is a new phase: .*EarlyStopping rewrote weights"):
            run.fit(x, y, epochs=2, verbose=0)


def test_callback_that_wrote_no_weights_may_go() -> None:
    """A callback that did nothing to the weights need not be there again."""
    model, x, y = make("plain_dense")
    with keepfit.Run(model) as run:
        run.fit(x, y, epochs=2, verbose=0, callbacks=[keras.callbacks.EarlyStopping("loss", patience=99)])
        run.fit(x, y, epochs=2, verbose=0)
        assert run.recorder.fits[2].phase == "continues"
