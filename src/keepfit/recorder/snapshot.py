"""A copy of JSON-able state, taken in microseconds."""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any

from keepfit.journal.rows import to_text

if TYPE_CHECKING:
    from collections.abc import Mapping


class Snapshot:
    """State as it was at one moment, turned into JSON when that is needed.

    The generators of Python and NumPy alone hold 1,249 numbers: writing them as
    JSON takes 200 microseconds, pickling them 50.

    Args:
        state: JSON-able; whether it is shows in `text`.
    """

    def __init__(self, state: Mapping[str, Any]) -> None:
        self._data = pickle.dumps(dict(state), protocol=pickle.HIGHEST_PROTOCOL)

    def text(self) -> str:
        """Return the state as JSON.

        Raises:
            TypeError, ValueError: It holds something that JSON has no form for.
        """
        return to_text(pickle.loads(self._data))  # noqa: S301 (made above, in this process)

    def state(self) -> dict[str, Any]:
        """Return the state as JSON gives it back."""
        state: dict[str, Any] = json.loads(self.text())
        return state
