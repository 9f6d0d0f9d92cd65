"""Variables that came to a model or left it between two fits: LoRA, quantised kernels, another head, more layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from keepfit.state import Variables, are_alike

_SHOWN = 3


@dataclass(frozen=True)
class VariableChanges:
    """How the variables of a model differ from what they were.

    A variable is the same where it is the same object, whatever its name is
    now: a layer put before others changes the structural names of those behind.

    Args:
        fresh: Names of those that were not there before.
        gone: Earlier names of those that are not there any more.
        names: Earlier name -> name now, of those that stayed.
    """

    fresh: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.fresh or self.gone)

    @classmethod
    def between(cls, before: Variables, after: Variables) -> VariableChanges:
        """Return how a model's own variables differ."""
        if before is after:
            return cls()
        earlier, now = (
            {id(variable): name for name, variable in found.items() if name.startswith("model/")}
            for found in (before, after)
        )
        return cls(
            fresh=tuple(name for key, name in now.items() if key not in earlier),
            gone=tuple(name for key, name in earlier.items() if key not in now),
            names={name: now[key] for key, name in earlier.items() if key in now},
        )

    def renamed(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return values under the names of now, of the model's variables and of slots; what is gone is left out."""
        found = {}
        for name, value in values.items():
            path, owner, slot = _parted(name)
            if owner is None:
                found[name] = value
            elif owner in self.names:
                found[f"{path}{self.names[owner]}{slot}"] = value
        return found

    def __str__(self) -> str:
        parts = []
        if self.fresh:
            parts.append(f"new, and begun fresh: {_listed(self.fresh)}")
        if self.gone:
            parts.append(f"gone, with what the optimizer kept for them: {_listed(self.gone)}")
        return f"The model has other variables than before: {'; '.join(parts)}."


def signature_changes(recorded: Mapping[str, Any] | None, now: Mapping[str, Any]) -> dict[str, Any]:
    """Return name -> shape and dtype, or None, of variables that differ from those the run began with."""
    if recorded is None:
        return {}
    differing = (name for name in {**recorded, **now} if not are_alike(recorded.get(name), now.get(name)))
    return {name: now.get(name) for name in sorted(differing)}


def _parted(name: str) -> tuple[str, str | None, str]:
    """Return what stands before a variable's name, that name, and the slot behind it."""
    if name.startswith("model/"):
        return "", name, ""
    path, found, rest = name.partition("/model/")
    if not found or not name.startswith("optimizer"):
        return "", None, ""
    owner, _, slot = rest.rpartition("/")
    return f"{path}/", f"model/{owner}", f"/{slot}"


def _listed(names: tuple[str, ...]) -> str:
    shown = ", ".join(name.removeprefix("model/") for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
