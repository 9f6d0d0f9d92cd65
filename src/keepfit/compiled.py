"""Whether a model is compiled for what is asked of it."""

from __future__ import annotations

from typing import Any

from keepfit import _keras
from keepfit.errors import NotCompiled


def check_compiled(model: Any, verb: str) -> None:
    """Raise `NotCompiled` where a model is not compiled."""
    if not _keras.is_compiled(model):
        raise NotCompiled(f"The model is not compiled. Nothing was changed. Call model.compile() before {verb}().")


def check_optimizer(model: Any, verb: str) -> None:
    """Raise `NotCompiled` where a model is not compiled, or has no optimizer, though Keras's own steps need one."""
    check_compiled(model, verb)
    if model.optimizer is None:
        raise NotCompiled(
            "The model is compiled without an optimizer. Nothing was changed. "
            f"Call model.compile(optimizer, loss) before {verb}()."
        )


def check_trains(model: Any, verb: str) -> None:
    """Raise `NotCompiled` where a model cannot train: a step of its own may do without the compiled optimizer."""
    if _keras.has_own_train_step(model):
        check_compiled(model, verb)
    else:
        check_optimizer(model, verb)
