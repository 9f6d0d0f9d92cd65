"""A call that may hang, for so long at most."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from keepfit.readers.late import late

Result = TypeVar("Result")


def timed(function: Callable[[], Result], timeout_s: float | None) -> Result:
    """Return what a function returns; one that takes longer is left to itself, in a thread that no end waits for.

    Args:
        function: What is called, in this thread where there is no limit.
        timeout_s: Longest time to wait for it, in seconds; None waits.

    Raises:
        TimeoutError: It took longer.
        Exception: What the function raised.
    """
    if timeout_s is None:
        return function()
    found: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def call() -> None:
        try:
            found.put((function(), None))
        except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
            found.put((None, error))

    threading.Thread(target=call, name="keepfit-look", daemon=True).start()
    try:
        value, error = found.get(timeout=timeout_s)
    except queue.Empty:
        raise late(timeout_s) from None
    if error is not None:
        raise error
    return value  # type: ignore[no-any-return]
