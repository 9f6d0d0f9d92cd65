"""Ctrl-C and SIGTERM: finish the dispatch in flight, then leave."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interrupts:
    """Note signals while a fit runs; the loop asks for them between dispatches.

    A second Ctrl-C raises at once, wherever the code is. A signal that nobody
    has asked for takes effect when the work has ended. Outside the main thread
    no handler can be installed and nothing is noted.
    """

    def __init__(self) -> None:
        self._noted: int | None = None
        self._before: dict[int, Any] = {}
        self._is_restored = True

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                # A handler of None was not installed from Python and could not be put back.
                if handler is not None and handler is not signal.SIG_IGN:
                    self._before[number] = handler
                    self._is_restored = False
                    signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
        # An error that is on its way says more than Ctrl-C does.
        if self._noted == signal.SIGTERM or kind is None:
            self._deliver()

    @property
    def noted(self) -> bool:
        """Whether a signal has come."""
        return self._noted is not None

    def leave(self) -> None:
        """Do what a noted signal would have done without keepfit: raise, or end the process; else return.

        Raises:
            KeyboardInterrupt: For Ctrl-C, and where a handler of the user's has returned.
        """
        if self._noted is not None:
            self._restore()
            self._deliver()
            raise KeyboardInterrupt

    def _deliver(self) -> None:
        number, self._noted = self._noted, None
        if number is None:
            return
        handler = self._before[number]
        if callable(handler):
            handler(number, None)
        else:
            os.kill(os.getpid(), number)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._noted == signal.SIGINT and not self._is_restored:
            raise KeyboardInterrupt
        self._noted = number

    def _restore(self) -> None:
        if self._is_restored:
            return
        self._is_restored = True
        # Ctrl-C comes last: when it raises again, nothing is left to do.
        for number, handler in reversed(self._before.items()):
            signal.signal(number, handler)
