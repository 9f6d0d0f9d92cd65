"""Another model in the place of a run's: layers that both have go on, the rest is new."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keepfit import _keras, live
from keepfit.compiled import check_compiled
from keepfit.engine import make_engine
from keepfit.errors import CannotAttach, InvalidArgument
from keepfit.frozen import Frozen

if TYPE_CHECKING:
    from keepfit.run import Run


def replace_model(run: Run, model: Any) -> Any:
    """Let a run go on with another model; see `keepfit.Run.replace_model`."""
    if model is run.model:
        return model
    is_attached = live.attached_run(run.model) is run
    _check(run, model, is_attached=is_attached)
    engine = make_engine(model)
    _keras.probe(model)
    live.unbind(run)
    if run.inventory.is_ready:
        engine.variables = run.engine.variables  # those of before, until the next call builds the model
    run.model, run.engine = model, engine
    run.frozen = Frozen(run)
    if is_attached:
        live.bind(run)
    return model


def _check(run: Run, model: Any, *, is_attached: bool) -> None:
    if not _keras.is_model(model):
        raise InvalidArgument(
            f"replace_model takes a keras.Model, received {type(model).__name__}. Nothing was changed.",
            argument="model",
        )
    check_compiled(model, "replace_model")
    if is_attached and _keras.trains_itself(model):
        raise CannotAttach(
            f"{type(model).__name__} overrides fit(), and the run would take its place. Nothing was changed. "
            "Use the run itself: run = keepfit.Run(...); run.replace_model(model); run.fit(...)."
        )
    mine = live.owned(model)
    for other in live.open_runs():
        if other is not run:
            live.check_apart(other, mine)
