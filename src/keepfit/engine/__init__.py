"""Engines: steps of a model on the backend in force, one file per backend, loaded on first use."""

from __future__ import annotations

from typing import Any

import keras

from keepfit.engine.base import Block, Engine, Outcome, Plan
from keepfit.engine.seated import SeatedEngine
from keepfit.errors import EngineError

__all__ = ["Block", "Engine", "Outcome", "Plan", "SeatedEngine", "make_engine"]


def make_engine(model: Any) -> Engine:
    """Return the engine for the Keras backend in force.

    Raises:
        EngineError: There is none for this backend yet.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        from keepfit.engine.jax import JaxEngine

        return JaxEngine(model)
    if backend == "tensorflow":
        from keepfit.engine.tensorflow import TensorFlowEngine

        return TensorFlowEngine(model)
    if backend == "torch":
        from keepfit.engine.torch import TorchEngine

        return TorchEngine(model)
    raise EngineError(
        f"keepfit has no engine for the Keras backend {backend!r} yet. Nothing was changed. "
        'Choose another: pip install "keepfit[jax]" and set KERAS_BACKEND=jax before Keras is imported.',
        backend=backend,
    )
