"""What the last fit left behind, and whether the next one continues it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xxhash

from keepfit.feed import Cursor
from keepfit.journal import FitRecord
from keepfit.phases import CLOCK_NAME
from keepfit.snapshot import VARIABLE_PREFIXES, Snapshot
from keepfit.state import Variables

RATE_NAMES = ("learning_rate",)


@dataclass
class Ends:
    """The two ends of the fit before the next one; before fit 1 both are the start.

    Args:
        record: The fit, None before fit 1.
        result: After EMA was written into the weights and ``on_train_end`` ran.
        resume: Before.
        values: Name -> the array its variable held when the fit ended, to see what a user sets by hand.
        batches: Single batches that were trained since.
        fresh: Names of the model's variables that came since.
        has_optimizer: Whether ``values`` have those that an optimizer was built with since.
    """

    record: FitRecord | None
    result: Snapshot
    resume: Snapshot
    values: dict[str, Any] = field(default_factory=dict)
    batches: int = 0
    fresh: frozenset[str] = frozenset()
    has_optimizer: bool = False

    def changed(self, variables: Variables) -> dict[str, Any]:
        """Return name -> array of the variables that hold something else than the fit left, or came since."""
        found = set_by_hand(variables, self.values)
        if not self.fresh:
            return found
        return found | {name: value for name, value in variables.values().items() if name in self.fresh}

    def release(self) -> None:
        """Let go of the arrays: the next fit has begun, and would have to copy what is held here."""
        for end in (self.result, self.resume):
            end.release_variables()
        self.values = {}

    @property
    def cursor(self) -> Cursor:
        """Where the run stands in its data."""
        found = self.resume.state.get("cursor")
        return Cursor.from_json(found) if found else Cursor()

    def facts(self) -> Mapping[str, Any]:
        """Return what the fit was about: loss, metrics, data, validation data, trained variables."""
        return self.record.detail.get("facts", {}) if self.record else {}


def set_by_hand(variables: Variables, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return name -> array of the variables that hold something else than they did.

    Rates and metrics are left aside: a rate is a setting of its own in the
    recipe, and metrics start anew in every epoch.

    Args:
        variables: The variables now.
        known: Name -> array that each held before.
    """
    return {
        name: value
        for name, value in variables.values().items()
        if value is not (before := known.get(name))
        and before is not None
        and not name.startswith("metrics/")
        and name.rsplit("/", 1)[-1] not in RATE_NAMES
        and not _is_setting(name)
        and not _same_bits(value, before)
    }


def start_state(changed: Mapping[str, Any]) -> dict[str, str]:
    """Return name -> hash of what was set by hand before a fit."""
    return {name: xxhash.xxh3_128_hexdigest(np.asarray(value).tobytes()) for name, value in sorted(changed.items())}


def rewound(ends: Ends) -> dict[str, Any]:
    """Return the variables to set so that a fit goes on from the resume point instead of the result."""
    return {
        name: value
        for name, value in ends.resume.tensors.items()
        if name.startswith(VARIABLE_PREFIXES) and ends.result.tensors.get(name) is not value
    }


def phase_of(
    ends: Ends, facts: Mapping[str, Any], *, changed: Mapping[str, Any], callback_keys: list[str]
) -> tuple[str, str]:
    """Say whether the next fit continues the last one.

    Args:
        ends: What the last fit left.
        facts: What the next fit is about.
        changed: What was set by hand since.
        callback_keys: The keys of the next fit's callbacks.

    Returns:
        ``"first"``, ``"continues"`` or ``"new"``, and why.
    """
    last = ends.record
    if last is None:
        return "first", "the first fit of the run"
    if last.status == "stopped":
        return "new", f"fit {last.number} was stopped early"
    if last.status != "finished":
        return "new", f"fit {last.number} did not reach its length"
    before = ends.facts()
    for fact, word in (
        ("loss", "the loss"),
        ("metrics", "the metrics"),
        ("validation", "the validation data"),
        ("trainable", "the set of trained variables"),
    ):
        if before.get(fact) != facts.get(fact):
            if fact == "validation" and None in (before.get(fact), facts.get(fact)):
                return "new", f"there is {'no ' if facts.get(fact) is None else ''}validation data now"
            return "new", f"{word} changed"
    if ends.batches:
        return "new", f"{ends.batches} single batches were trained since fit {last.number}"
    if changed:
        first, *others = changed
        return "new", f"{len(changed)} variables were set by hand ({first} among them)" if others else (
            f"{first} was set by hand"
        )
    missing = [
        key for key in last.detail.get("rewriters", ()) if key not in (*callback_keys, *facts.get("rewriters", ()))
    ]
    if missing:
        return "new", f"{missing[0].split('(')[0]} rewrote weights at the end of fit {last.number} and is not there now"
    return "continues", f"fit {last.number} reached its length and nothing about the task changed"


def _is_setting(name: str) -> bool:
    """Return whether a variable follows from the set of trained variables, the rates or the length of the fit."""
    return name.startswith("optimizer") and (name.endswith(("/age", "/born", "/multiplier")) or CLOCK_NAME in name)


def _same_bits(one: Any, other: Any) -> bool:
    first, second = np.asarray(one), np.asarray(other)
    return first.shape == second.shape and first.dtype == second.dtype and first.tobytes() == second.tobytes()
