"""Everything that decides a run's future, taken and put back.

========== ==================================================================
part       where it lies in a snapshot
========== ==================================================================
model      tensors ``model/…``
optimizers tensors ``optimizer/…``, ``optimizers/…``
metrics    tensors ``metrics/…``
callbacks  state ``callbacks``, tensors ``callbacks/…``
source     state ``cursor`` and ``source``, tensors ``source/…``
validation state ``validation``, tensors ``validation/…``
trained    state ``trained``, tensors ``trained/…``: rows that were trained on
position   state ``position`` and ``progress``
randomness state ``randomness``
plan       state ``plan``
stop flag  state ``stop_training``
attributes state ``attributes``: plain ones of the model that fits have changed
========== ==================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

PARTS = (
    "model",
    "optimizers",
    "metrics",
    "callbacks",
    "source",
    "validation",
    "trained",
    "position",
    "randomness",
    "plan",
    "stop_training",
    "attributes",
)

VARIABLE_PREFIXES = ("model/", "optimizer/", "optimizers/", "metrics/")
_RESUME = "resume/"


@dataclass(frozen=True)
class Snapshot:
    """One whole state.

    Args:
        tensors: Name -> array, backend arrays included; nobody may change them.
        state: Plain data.
    """

    tensors: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)

    def variables(self) -> dict[str, Any]:
        """Return the tensors that belong to variables."""
        return {name: value for name, value in self.tensors.items() if name.startswith(VARIABLE_PREFIXES)}

    def release_variables(self) -> None:
        """Let go of the arrays of variables, so that a training step may overwrite them in place."""
        for name in [name for name in self.tensors if name.startswith((*VARIABLE_PREFIXES, _RESUME))]:
            del self.tensors[name]

    def under(self, prefix: str) -> dict[str, Any]:
        """Return the tensors whose names begin with ``prefix``."""
        return {name: value for name, value in self.tensors.items() if name.startswith(prefix)}


def joined(result: Snapshot, resume: Snapshot) -> Snapshot:
    """Return both ends of a fit as one snapshot; what is the same in both is held once.

    Args:
        result: After EMA was written into the weights and ``on_train_end`` ran.
        resume: Before.
    """
    tensors = dict(result.tensors)
    for name, value in resume.tensors.items():
        if result.tensors.get(name) is not value:
            tensors[_RESUME + name] = value
    return Snapshot(tensors, {"result": result.state, "resume": resume.state})


def parted(tensors: Mapping[str, Any], state: Mapping[str, Any]) -> tuple[Snapshot, Snapshot]:
    """Return the result and the resume point that `joined` put together; the two are one inside a fit."""
    if "result" not in state:
        whole = Snapshot(dict(tensors), dict(state))
        return whole, whole
    result = {name: value for name, value in tensors.items() if not name.startswith(_RESUME)}
    resume = dict(result)
    resume.update({name.removeprefix(_RESUME): value for name, value in tensors.items() if name.startswith(_RESUME)})
    return Snapshot(result, dict(state["result"])), Snapshot(resume, dict(state["resume"]))


def source_state(
    source: Any, *, part: str = "source", small: bool = False
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Return what a source needs to be brought back beside its cursor: plain data and tensors ``source/…``.

    Args:
        source: A `keepfit.data.Source`, or None.
        part: ``"source"``, or ``"validation"`` for what a fit validates on.
        small: Without what may be large and can be done without, for a fit whose state is not kept.
    """
    if source is None or getattr(source, "begins_anew", False):
        return None, {}
    if hasattr(source, "consumed"):
        return {"consumed": source.consumed, **source.marks(source.consumed)}, {}
    state = source.small_state() if small else source.get_state()
    if state is None:
        return None, {}
    tensors: dict[str, Any] = {}
    return {"given": _without_arrays(state, part, tensors)}, tensors


def source_state_of(snapshot: Snapshot, part: str = "source") -> Any:
    """Return what `source_state` took from ``Source.get_state``, or None."""
    found = snapshot.state.get(part)
    return None if not found or "given" not in found else _with_arrays(found["given"], snapshot.tensors)


def _without_arrays(value: Any, path: str, tensors: dict[str, Any]) -> Any:
    if isinstance(value, np.ndarray):
        tensors[path] = value.copy()
        return {"array": path}
    if isinstance(value, Mapping):
        return {"dict": {str(key): _without_arrays(item, f"{path}/{key}", tensors) for key, item in value.items()}}
    if isinstance(value, (list, tuple)):
        return {"list": [_without_arrays(item, f"{path}/{index}", tensors) for index, item in enumerate(value)]}
    return {"plain": value}


def _with_arrays(value: Mapping[str, Any], tensors: Mapping[str, Any]) -> Any:
    kind, inner = next(iter(value.items()))
    if kind == "array":
        return np.array(tensors[inner])
    if kind == "dict":
        return {key: _with_arrays(item, tensors) for key, item in inner.items()}
    if kind == "list":
        return [_with_arrays(item, tensors) for item in inner]
    return inner
