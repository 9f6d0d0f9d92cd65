"""The runs that are open in this process."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from keepfit.errors import CannotAttach, RunFolderError, warn

if TYPE_CHECKING:
    from keepfit.recorder import Recorder
    from keepfit.run import Run

_RUNS: weakref.WeakSet[Run] = weakref.WeakSet()
# Recorders of runs that nobody holds any more, such as those of a function that has returned. They still have their
# folder. The garbage collector may run in any thread and under any lock, so it only notes them here.
_ABANDONED: list[Recorder] = []

ATTACHED = ("fit", "evaluate", "predict", "train_on_batch", "test_on_batch", "predict_on_batch")
_GUARDED = ("save", "get_weights", "save_weights")


def check_free(run: Run) -> None:
    """Make way for a run that is about to open: the folder's earlier one is closed, a shared model is refused.

    Raises:
        CannotAttach: Another live run, of another folder, has the model's variables.
    """
    _close_abandoned()
    mine = owned(run.model)
    for other in list(_RUNS):
        if other.closed is not None:
            continue
        if run.folder is not None and run.folder == other.folder:
            other.closed = f"{run.directory} was opened again in this process"
            other.recorder.close()
            _RUNS.discard(other)
        else:
            check_apart(other, mine)


def check_apart(other: Run, mine: set[int]) -> None:
    """Refuse what `owned` gave of a model where another live run has some of it.

    Raises:
        CannotAttach: It has some of them.
    """
    shared = mine & owned(other.model)
    if not shared:
        return
    what, way = "variables", "a model"
    if shared == {id(getattr(other.model, "optimizer", None))}:
        what, way = "the optimizer", "a model with an optimizer"
    raise CannotAttach(
        f"{other!r} is live and has {what} of this model. Nothing was changed. "
        f"Close it first, with run.close() or model.run.close() of its model, or give the new run {way} of its own.",
        run=other,
    )


def owned(model: Any) -> set[int]:
    """Return the ids of what two live runs must not share: a model, its variables, its optimizer."""
    optimizer = getattr(model, "optimizer", None)
    parts = [model, *model.variables] if optimizer is None else [model, optimizer, *model.variables]
    return set(map(id, parts))


def open_runs() -> list[Run]:
    """Return the runs that are open in this process."""
    return [run for run in _RUNS if run.closed is None]


def register(run: Run) -> None:
    """Note an open run."""
    _RUNS.add(run)
    weakref.finalize(run, _ABANDONED.append, run.recorder).atexit = False


def release(run: Run) -> None:
    """Forget a run and give its model its own methods back."""
    _RUNS.discard(run)
    unbind(run)


def unbind(run: Run) -> None:
    """Give a run's model its own methods back."""
    attributes: dict[str, Any] = vars(run.model)
    if attributes.get("run") is run:
        for name in ("run", *ATTACHED, *_GUARDED):
            attributes.pop(name, None)


def attached_run(model: Any) -> Run | None:
    """Return the live run that a model was attached to, if any."""
    run = vars(model).get("run")
    return run if run in _RUNS and run.closed is None else None


def bind(run: Run) -> None:
    """Let the model's methods go through a run."""
    attributes: dict[str, Any] = vars(run.model)
    attributes["run"] = run
    for name in ATTACHED:
        attributes[name] = getattr(run, name)
    for name in _GUARDED:
        attributes[name] = _guarded(run, name)


def _guarded(run: Run, name: str) -> Any:
    """Return a method of the model that first asks whether the model holds the state the script is at."""
    own = getattr(type(run.model), name)

    def method(*args: Any, **arguments: Any) -> Any:
        if run.place.missing is not None:
            run.check_state(name)
        return own(run.model, *args, **arguments)

    method.__name__ = name
    method.__doc__ = own.__doc__
    return method


def _close_abandoned() -> None:
    """Write what is left of runs that nobody holds any more, and let their folders go."""
    while _ABANDONED:
        try:
            _ABANDONED.pop().close()
        except RunFolderError as error:
            warn(f"A run that was not closed could not be written to its end: {error}")
