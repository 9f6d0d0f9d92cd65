"""What was measured on validation sets after each fit, so that it need not be measured again.

Not in the rows of the fits: the newest row goes back to its checkpoint when a
run is opened, and with it what was added since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keepfit.recorder import Recorder

_KEY = "retested/"  # with the number of a fit: set -> what was measured


class Retested:
    """What is recorded for each fit.

    Args:
        recorder: Remembers it.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._fits = {
            int(key.removeprefix(_KEY)) for key, found in recorder.meta.items() if key.startswith(_KEY) and found
        }

    def of(self, fit: int) -> dict[str, Any]:
        """Return hash of a set -> what was measured after a fit."""
        return dict(self._recorder.meta.get(f"{_KEY}{fit}") or {}) if fit in self._fits else {}

    def note(self, fit: int, told: dict[str, Any]) -> None:
        """Record what was measured after a fit."""
        self._recorder.set_meta(f"{_KEY}{fit}", {**self.of(fit), **told})
        self._fits.add(fit)

    def forget(self, fit: int, *, later: bool = True) -> None:
        """Let go of what was measured after a fit that is trained anew, or on, and after those behind it."""
        for number in [each for each in self._fits if each == fit or (later and each > fit)]:
            self._recorder.set_meta(f"{_KEY}{number}", {})
            self._fits.discard(number)

    def copy_to(self, other: Retested, *, before: int) -> None:
        """Give another run what was measured after fits before number ``before``."""
        for fit in sorted(each for each in self._fits if each < before):
            other.note(fit, self.of(fit))
