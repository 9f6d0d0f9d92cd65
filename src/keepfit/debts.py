"""Debts: how far replayed fits went in data objects that a script made anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keepfit.snapshot import Snapshot

if TYPE_CHECKING:
    from keepfit.journal import FitRecord


class Debts:
    """What data objects must still be brought past before training goes on from them."""

    def __init__(self) -> None:
        self._left: dict[tuple[str, int], tuple[Any, Snapshot]] = {}

    def owe(self, data: Any, result: Snapshot | None, record: FitRecord, *, part: str = "source") -> None:
        """Note how far a replayed fit went in a data object, which is still at its beginning.

        Args:
            data: ``x`` of the fit, or of its validation data.
            result: The end of the fit, where it is kept.
            record: The fit.
            part: ``"source"`` or ``"validation"``.
        """
        if result is None:
            plain = record.detail.get(part)
            result = Snapshot({}, {part: plain} if plain else {})
        state = result.state.get(part)
        if state is not None:  # arrays have none, and are not held on to
            self._left[part, id(data)] = (data, Snapshot(result.under(f"{part}/"), {part: state}))

    def take(self, data: Any, part: str = "source") -> Snapshot:
        """Return where replayed fits left a data object, once: training goes on from there."""
        return self._left.pop((part, id(data)), (None, Snapshot()))[1]
