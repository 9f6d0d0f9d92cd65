"""What `keepfit show` says of frozen prefixes: in which fits features were kept, and where not, why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from keepfit.history.table import counted

if TYPE_CHECKING:
    from keepfit.journal import FitRecord


def prefix_lines(fits: Iterable[FitRecord]) -> list[str]:
    """Return a line for fits in a row with the same frozen prefix; none for those without frozen weights.

    Args:
        fits: In their order.
    """
    groups: list[tuple[int, int, str]] = []
    for fit in fits:
        told = fit.plan.get("prefix")
        if not isinstance(told, Mapping):
            continue
        text = prefix_sentence(told)
        if groups and groups[-1][1:] == (fit.number - 1, text):
            groups[-1] = (groups[-1][0], fit.number, text)
        else:
            groups.append((fit.number, fit.number, text))
    return [f"{f'fit {first}' if first == last else f'fits {first} to {last}'}: {text}" for first, last, text in groups]


def prefix_sentence(told: Mapping[str, Any]) -> str:
    """Return what a plan says about a frozen prefix, in words."""
    if not told.get("used"):
        return f"computed in every step: {told.get('why', 'no reason is recorded')}"
    samples = " and ".join(str(number) for number in told.get("samples", ()))
    ends = "; ".join(map(str, told.get("ends", ()))) or "the outputs"
    return (
        f"computed once for {samples} samples, kept {told.get('kept')}: "
        f"{counted(int(told.get('layers', 0)), 'layer')} up to where {ends}"
    )
