"""How many steps to dispatch at once."""

from __future__ import annotations

# Long enough that a dispatch costs nothing, short enough that Ctrl-C, SIGTERM
# and the progress bar feel prompt.
TARGET_S = 0.2
_FIRST = 16
_MOST = 1 << 16


class Pace:
    """Learn how long a step takes; the number of steps in a dispatch changes no bit.

    Args:
        target_s: Seconds a dispatch should take.
    """

    def __init__(self, target_s: float = TARGET_S) -> None:
        self._target_s = target_s
        self._step_s: float | None = None

    @property
    def steps(self) -> int:
        """Steps for the next dispatch, 1 or more."""
        if self._step_s is None:
            return _FIRST
        return max(1, min(_MOST, int(self._target_s / self._step_s)))

    def note(self, steps: int, seconds: float) -> None:
        """Learn from a dispatch; a slow one counts at once, a fast one by and by, since the first compiles."""
        measured = max(seconds / max(steps, 1), 1e-7)
        if self._step_s is None or measured < self._step_s:
            self._step_s = measured
        else:
            self._step_s += 0.3 * (measured - self._step_s)
