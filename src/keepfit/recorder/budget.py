"""How often checkpoints may be taken."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Literal

from keepfit.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable

Share = float | Literal["each"]

_DEFAULT_SHARE = 0.02
_RECENT = 5
# Before the first measurement: a few commits of a slow disk, and its throughput.
_FIXED_S = 0.02
_BYTES_PER_S = 200e6


class Budget:
    """Keeps the cost of checkpoints under a share of the time that passes.

    After a checkpoint that cost *c* seconds the next one is due when *c / share*
    seconds have passed, where *c* is the mean of the recent ones.

    Args:
        share: Above 0, at most 1; or ``"each"`` (every fit is given one, which is
            not the budget's matter; inside fits the default share holds).
        clock: Seconds that pass.

    Raises:
        InvalidArgument: ``share`` is something else.
    """

    def __init__(self, share: Share, *, clock: Callable[[], float] = time.monotonic) -> None:
        if share != "each" and not (isinstance(share, int | float) and not isinstance(share, bool) and 0 < share <= 1):
            raise InvalidArgument(
                f'checkpoint_share: expected a number above 0 and at most 1, or "each", received {share!r}.\n'
                "Nothing was changed. It is the share of training time that checkpoints may cost; 0.02 by default."
            )
        self.each = share == "each"
        self._share = _DEFAULT_SHARE if isinstance(share, str) else float(share)
        self._clock = clock
        self._costs: deque[float] = deque(maxlen=_RECENT)
        self._mean: float | None = None  # read by other threads than the one that measures
        self._last = clock()

    def spent(self, seconds: float) -> None:
        """Note what a checkpoint cost that ended now."""
        self._costs.append(seconds)
        self._mean = sum(self._costs) / len(self._costs)
        self._last = self._clock()

    def cost(self, size_bytes: int) -> float:
        """Return what the next checkpoint will cost, in seconds."""
        return _FIXED_S + size_bytes / _BYTES_PER_S if self._mean is None else self._mean

    def due(self, size_bytes: int) -> bool:
        """Return whether a checkpoint of a size fits the budget now."""
        return self._clock() - self._last >= self.cost(size_bytes) / self._share
