"""Data that is loaded while the fit before it trains."""

from __future__ import annotations

import itertools
import queue
import reprlib
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from keepfit.errors import InvalidArgument

_EXPECTED = "x, (x, y) or (x, y, sample_weight)"


class Ahead:
    """Data that `keepfit.Run.prefetch` gets ready: ``x`` of ``fit``, ``evaluate`` and ``predict``.

    It may be used several times, and need not be used at all.
    """

    def __init__(self, loads: Loads, load: _Load) -> None:
        self._loads = loads
        self._load = load
        # Who lets go of it will not take what it stands for: the next load must not wait for that.
        weakref.finalize(self, loads.let_go, load).atexit = False

    def result(self) -> Any:
        """Return what the function returned, when it is there; where nobody has called it yet, it is called now.

        Raises:
            Exception: What the function raised; the next call of this calls it again.
        """
        load = self._load
        if self._loads.claim(load):
            load.call()
        load.done.wait()
        self._loads.let_go(load)
        if load.error is not None:
            raise load.take_error()
        return load.value

    def __repr__(self) -> str:
        return f"Ahead({self._load.name})"


class Loads:
    """Calls functions in the background, one at a time, and the next one not before the last result was taken.

    So beside what a fit trains on, one result is in memory, or is being loaded.
    Nothing waits for the thread: it ends with the process, or with what it is
    at when this is closed.
    """

    def __init__(self) -> None:
        self._gate = threading.RLock()  # a handle may be collected, and let go, while this thread holds it
        self._waiting: deque[_Load] = deque()
        self._current: _Load | None = None
        self._thread: queue.SimpleQueue[_Load | None] | None = None
        self._count = itertools.count(1)

    def begin(self, function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Ahead:
        """Call a function in the background, when its turn comes."""
        load = _Load(function, arguments, keywords)
        ahead = Ahead(self, load)
        with self._gate:
            self._waiting.append(load)
            self._go_on()
        return ahead

    def given(self, data: Any) -> Ahead:
        """Return data that is there already in the same form."""
        load = _Load(lambda: data, (), {})
        load.call()
        return Ahead(self, load)

    def claim(self, load: _Load) -> bool:
        """Return whether whoever asks must call the function itself, since nobody has begun to."""
        with self._gate:
            if load.is_begun:
                return False
            load.is_begun = True
            with suppress(ValueError):
                self._waiting.remove(load)
            return True

    def let_go(self, load: _Load) -> None:
        """Note that a result was taken, or that nobody will."""
        with self._gate:
            with suppress(ValueError):
                self._waiting.remove(load)
            if self._current is load:
                self._current = None
            self._go_on()

    def close(self) -> None:
        """Begin nothing more; what is under way ends by itself, and what is used later is loaded then."""
        with self._gate:
            self._waiting.clear()
            self._current = None
            if self._thread is not None:
                self._thread.put(None)
                self._thread = None

    def _go_on(self) -> None:
        if self._current is not None or not self._waiting:
            return
        self._current = self._waiting.popleft()
        self._current.is_begun = True
        if self._thread is None:
            self._thread = queue.SimpleQueue()
            weakref.finalize(self, self._thread.put, None).atexit = False
            # One thread for all: an allocator keeps memory for each that ever was.
            threading.Thread(target=_work, args=(self._thread,), name="keepfit-prefetch", daemon=True).start()
        self._thread.put(self._current)


class _Load:
    """One call of a function.

    Attributes:
        is_begun: Whether somebody has begun to call it.
        done: Set when it has returned or raised.
        value: What it returned.
        error: What it raised.
    """

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        self._function, self._arguments, self._keywords = function, arguments, keywords
        self.is_begun = False
        self.done = threading.Event()
        self.value: Any = None
        self.error: BaseException | None = None

    @property
    def name(self) -> str:
        """The call as one would write it."""
        shown = [reprlib.repr(each) for each in self._arguments]
        shown += [f"{key}={reprlib.repr(each)}" for key, each in self._keywords.items()]
        return f"{getattr(self._function, '__name__', type(self._function).__name__)}({', '.join(shown)})"

    def call(self) -> None:
        """Call the function, and keep what comes of it."""
        self.is_begun = True
        try:
            self.value = self._function(*self._arguments, **self._keywords)
        except BaseException as error:  # noqa: BLE001 - raised where the data is needed
            self.error = error
        self.done.set()

    def take_error(self) -> BaseException:
        """Return what the function raised, and be as if it had not been called."""
        error, self.error = self.error, None
        assert error is not None
        self.done.clear()
        self.is_begun = False
        error.add_note(
            f"in {self.name}, called by run.prefetch. Nothing was changed: the function is called again when this "
            "data is used again, in this process or in another."
        )
        return error


def _work(waiting: queue.SimpleQueue[_Load | None]) -> None:
    while (load := waiting.get()) is not None:
        load.call()
        del load  # else what it returned would be held until the next one comes


def taken(x: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
    """Return inputs, targets and weights, where ``x`` may be data that was prefetched.

    Raises:
        InvalidArgument: It is not what ``fit`` takes, or what stands beside it is one too many.
    """
    if not isinstance(x, Ahead):
        return x, y, sample_weight
    found = taken_whole(x)
    if not isinstance(found, tuple):
        return found, y, sample_weight
    if y is not None or sample_weight is not None:
        beside = "y" if y is not None else "sample_weight"
        raise InvalidArgument(
            f"{x!r} gave a tuple of {len(found)}, and {beside}= was given beside it. Nothing was changed. "
            f"Let the function return {_EXPECTED}, and give nothing beside it.",
            argument=beside,
        )
    return (*found, None, None)[:3]


def taken_whole(data: Any) -> Any:
    """Return data, where it may have been prefetched, as its function returned it.

    Raises:
        InvalidArgument: It is not what ``fit`` takes.
    """
    if not isinstance(data, Ahead):
        return data
    found = data.result()
    if found is None or (isinstance(found, tuple) and len(found) not in (1, 2, 3)):
        what = "None" if found is None else f"a tuple of {len(found)}"
        raise InvalidArgument(f"{data!r} gave {what}: expected {_EXPECTED}. Nothing was changed.", argument="x")
    return found
