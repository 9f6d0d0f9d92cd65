"""A pytest plugin that puts keepfit's loop in the place of Keras's, for every model that is compiled.

Each model gets a run in memory when one of the verbs is first called, which
lives as long as the model. Two models over shared variables, which keepfit
refuses to have live runs at once, take turns.
"""

from __future__ import annotations

import functools
from typing import Any

import keras
import pytest

import keepfit
from keepfit import _keras
from keepfit.errors import CannotAttach
from keepfit.live import ATTACHED

_RUN = "_run_of_keepfit"


def pytest_configure(config: pytest.Config) -> None:
    """Replace the verbs of Keras's trainer for the backend in force."""
    trainer: Any = next(base for base in keras.Model.__mro__ if base.__name__.endswith("Trainer"))
    for verb in ATTACHED:
        setattr(trainer, verb, _through_run(getattr(trainer, verb), verb))


def run_of(model: Any) -> keepfit.Run:
    """Return the live run of a model."""
    run = vars(model).get(_RUN)
    if run is None or run.closed is not None:
        run = _opened(model)
        # Past Keras's tracking of attributes.
        object.__setattr__(model, _RUN, run)
    return run


def _opened(model: Any) -> keepfit.Run:
    while True:
        try:
            return keepfit.Run(model)
        except CannotAttach as refused:
            refused.run.close()


def _through_run(original: Any, verb: str) -> Any:
    @functools.wraps(original)
    def method(self: Any, *args: Any, **arguments: Any) -> Any:
        # Keras predicts with a model that was never compiled; such a model cannot have a run.
        if not _keras.is_compiled(self):
            return original(self, *args, **arguments)
        return getattr(run_of(self), verb)(*args, **arguments)

    return method
