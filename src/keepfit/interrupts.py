"""Ctrl-C and SIGTERM: finish the dispatch in flight, then leave."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interrupts:
    """Note signals while a fit runs; the loop asks for them between dispatches.

    A second Ctrl-C raises at once, wherever the code is. Outside the main
    thread no handler can be installed and nothing is noted.
    """

    def __init__(self) -> None:
        self._noted: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                # A handler of None was not installed from Python and could not be put back.
                if handler is not None and handler is not signal.SIG_IGN:
                    self._before[number] = handler
                    signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    @property
    def noted(self) -> bool:
        """Whether a signal has come."""
        return self._noted is not None

    def leave(self) -> None:
        """Do what the signal would have done without keepfit: raise, or end the process.

        Raises:
            KeyboardInterrupt: For Ctrl-C.
        """
        number, self._noted = self._noted, None
        before = dict(self._before)
        self._restore()
        if number is None:
            return
        handler = before.get(number)
        if number == signal.SIGTERM and not callable(handler):
            os.kill(os.getpid(), signal.SIGTERM)
        elif callable(handler):
            handler(number, None)
        raise KeyboardInterrupt

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._noted == signal.SIGINT:
            raise KeyboardInterrupt
        self._noted = number

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
