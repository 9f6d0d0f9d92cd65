"""How a run works, checked before anything is opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from keepfit.errors import InvalidArgument


@dataclass(frozen=True)
class Settings:
    """The keyword arguments of `keepfit.Run`.

    Raises:
        InvalidArgument: Names the setting, what it may be and what it was.
    """

    seed: int | None = None
    mode: str = "replay"
    on_change: str = "raise"
    plan: str | None = None
    checkpoint_share: float | str = 0.02
    keep: int = 10
    reservoir: int | None = None
    leak_guard: bool = True

    def __post_init__(self) -> None:
        share, keep = self.checkpoint_share, self.keep
        share_is_number = isinstance(share, (int, float)) and not isinstance(share, bool)
        rules: Sequence[tuple[str, bool, str]] = (
            ("seed", self.seed is None or _is_whole(self.seed, least=0), "a whole number, 0 or more, or None"),
            ("mode", self.mode in ("replay", "append"), '"replay" or "append"'),
            ("on_change", self.on_change in ("raise", "branch"), '"raise" or "branch"'),
            ("plan", self.plan in (None, "fused", "stepwise"), '"fused", "stepwise" or None'),
            (
                "checkpoint_share",
                share == "each" or (share_is_number and 0 < float(share) <= 1),
                'a share in (0, 1], or "each"',
            ),
            ("keep", _is_whole(keep, least=2), "a whole number, 2 or more"),
            (
                "reservoir",
                self.reservoir is None or _is_whole(self.reservoir, least=1),
                "a number of samples, 1 or more, or None",
            ),
            ("leak_guard", isinstance(self.leak_guard, bool), "True or False"),
        )
        for name, holds, expected in rules:
            if not holds:
                value = getattr(self, name)
                raise InvalidArgument(
                    f"A run cannot take {name}={value!r}: expected {expected}. Nothing was changed.",
                    argument=name,
                    value=value,
                )

    def agree_with(self, given: dict[str, Any]) -> bool:
        """Return whether settings that were given by name are these."""
        mine = asdict(self)
        return all(mine[name] == value for name, value in given.items())


def _is_whole(value: Any, *, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
