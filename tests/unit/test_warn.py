"""Warnings point at the user's line."""

from __future__ import annotations

import warnings

from tests.models import make

import keepfit


def test_a_warning_names_the_line_of_the_script() -> None:
    """Whoever filters by file or clicks on a warning finds the call of fit, not the inside of keepfit."""
    model, x, y = make("plain_dense")
    with keepfit.Run(model) as run, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.fit(x, y, verbose=0)
        model.set_weights([weight + 1 for weight in model.get_weights()])
        run.fit(x, y, verbose=0)
    (told,) = [w for w in caught if issubclass(w.category, keepfit.errors.KeepfitWarning)]
    assert told.filename == __file__
