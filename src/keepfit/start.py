"""The start of a run: its seed, and the state before fit 1."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keepfit import held, randomness
from keepfit.clock import Position
from keepfit.ends import Ends
from keepfit.errors import InvalidArgument, OtherModel
from keepfit.phases import note_left_out
from keepfit.snapshot import Snapshot
from keepfit.standing import stand_at
from keepfit.state import are_alike, variables_of

if TYPE_CHECKING:
    from keepfit.run import Run


def settle_seed(run: Run, seed: int | None) -> int:
    """Return the seed of the order of samples: the recorded one, the given one, Keras's, or a fresh one.

    Raises:
        InvalidArgument: Another one is recorded.
    """
    recorded = run.recorder.meta.get("seed")
    asked = seed if seed is not None else randomness.keras_seed()
    if recorded is None:
        chosen = asked if asked is not None else randomness.fresh_seed()
        run.recorder.set_meta("seed", chosen)
        return chosen
    if seed is not None and seed != recorded:
        raise InvalidArgument(
            f"The run in {run.directory} was begun with seed {recorded}, received seed={seed}. "
            "Nothing was changed. "
            "Leave seed out, or choose another folder.",
            argument="seed",
            recorded=recorded,
        )
    if asked is not None and asked != recorded:
        run.say_once(
            "seed", f"keras.utils.set_random_seed({asked}) was called; the run keeps its recorded seed {recorded}."
        )
    return int(recorded)


def settle_start(run: Run) -> None:
    """Record the state before fit 1, or take the recorded one, whatever the model holds now.

    An optimizer that is not built stays so: what trains is not known yet.
    """
    note_left_out(run.model)
    variables = run.engine.variables = variables_of(run.model)
    signature = variables.signature()
    recorded = run.recorder.meta.get("model")
    if recorded is not None:
        _check_same_model(_expected(run, recorded, signature), signature, run.directory)
    else:
        run.recorder.set_meta("model", signature)
    start = run.recorder.newest(kinds=("start",))
    if start is None:
        _record_start(run)
        return
    newest = max((n for n, r in run.recorder.fits.items() if r.status != "open"), default=0)
    run.place.fits = run.recorder.meta.get("forked_at", 0) if run.mode == "replay" else newest
    before = {name: np.asarray(value) for name, value in variables.values().items() if name.startswith("model/")}
    rate = {name: value for name, value in variables.values().items() if name.endswith("/learning_rate")}
    stand_at(run, run.place.fits, must=True)
    if run.mode == "replay" and run.place.fits == 0 and not run.recorder.meta.get("lineage"):
        # The rate is a setting of the script's; a changed one must show in the recipe.
        variables.assign(rate, skip=lambda name: name not in rate)
        if any(
            not np.array_equal(value, np.asarray(held.value(v)), equal_nan=True)
            for (name, v) in variables.items()
            if (value := before.get(name)) is not None
        ):
            run.say_once(
                "start",
                f"The model now holds the state that {run.directory} began with, not the one it was made with.",
            )


def widen_start(run: Run, values: dict[str, Any]) -> None:
    """Record with the state before fit 1 what an optimizer began with that could not be made anew to tell."""
    start = run.place.ends.result
    start.tensors.update(values)
    _write(run, start)


def _record_start(run: Run) -> None:
    values = run.engine.variables.values()
    snapshot = Snapshot(values, {"randomness": randomness.take(), "position": Position().to_json()})
    _write(run, snapshot)
    run.place.ends = Ends(None, snapshot, snapshot, values)


def _write(run: Run, start: Snapshot) -> None:
    run.recorder.checkpoint(
        kind="start", fit=0, position=Position(), tensors=start.tensors, state=start.state, wait=True
    )


def _expected(run: Run, recorded: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Return the signature to compare a model with; where a process adds fits, that of the newest one will do."""
    fits = run.recorder.fits
    if run.mode != "append" or not fits:
        return recorded
    changes = fits[max(fits)].recipe.get("strict", {}).get("variables") or {}
    newest = {name: kind for name, kind in {**recorded, **changes}.items() if kind is not None}
    return newest if set(newest) == set(now) else recorded


def _check_same_model(recorded: dict[str, Any], now: dict[str, Any], directory: Path | None) -> None:
    differing = sorted(name for name in {*recorded, *now} if not are_alike(recorded.get(name), now.get(name)))
    if differing:
        shown = "\n".join(
            f"  {name}: recorded {_shown(recorded.get(name))}, now {_shown(now.get(name))}" for name in differing[:5]
        )
        more = f"\n  and {len(differing) - 5} more" if len(differing) > 5 else ""
        count = "1 variable differs" if len(differing) == 1 else f"{len(differing)} variables differ"
        raise OtherModel(
            f"The run in {directory} belongs to another model: {count}.\n{shown}{more}\n"
            "Nothing was changed. Build the model as before, or choose another folder.",
            variables=differing,
        )


def _shown(kind: Any) -> str:
    """Return what a signature says of a variable, in words."""
    return "none" if kind is None else f"{kind[1]} of shape {tuple(kind[0])}"
