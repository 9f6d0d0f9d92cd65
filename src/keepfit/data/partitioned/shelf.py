"""The partitions in memory: a bounded number of them, the next ones being read in the background."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from numpy.typing import NDArray

Arrays = list[NDArray[Any]]


class Shelf:
    """Holds partitions by number.

    Args:
        load: Reads a partition.
        places: Partitions that are held or being read at any time, 1 or more.
    """

    def __init__(self, load: Callable[[int], Arrays], *, places: int) -> None:
        self._load = load
        self.places = places
        # In the order in which they were last needed.
        self._held: dict[int, _Reading] = {}

    def get(self, number: int, *, keep: Iterable[int], timeout_s: float | None = None) -> Arrays:
        """Return a partition, read now where it is not held.

        Args:
            number: Its number.
            keep: Those that are in use together with it; with it, `places` at most.
            timeout_s: Longest time to wait for it, in seconds.

        Raises:
            TimeoutError: It was not there in time.
            Exception: What reading it raised.
        """
        if number in self._held:
            self._held[number] = self._held.pop(number)
        else:
            self._make_room(keep={number, *keep}, timeout_s=timeout_s)
            self._held[number] = _Reading(self._load, number)
        try:
            return self._held[number].result(timeout_s)
        except BaseException:
            self._held.pop(number, None)  # to be tried again when it is asked for again
            raise

    def read_ahead(self, numbers: Iterable[int], *, keep: Iterable[int]) -> None:
        """Begin to read partitions, as far as there is room beside those that are kept."""
        kept = set(keep)
        for number in numbers:
            if number in self._held:
                kept.add(number)
                continue
            for old in [old for old, reading in self._held.items() if old not in kept and reading.is_done]:
                if len(self._held) >= self.places:
                    del self._held[old]
            if len(self._held) >= self.places:
                return
            self._held[number] = _Reading(self._load, number)
            kept.add(number)

    def clear(self) -> None:
        """Let go of all partitions."""
        self._held.clear()

    @property
    def numbers(self) -> list[int]:
        """The partitions held or being read."""
        return list(self._held)

    def _make_room(self, *, keep: set[int], timeout_s: float | None) -> None:
        for old in [old for old in self._held if old not in keep]:
            if len(self._held) < self.places:
                return
            # What is being read takes memory until it is done: nothing stops a thread.
            self._held[old].wait(timeout_s)
            del self._held[old]


class _Reading:
    """A partition being read by a thread of its own, which no end of the process waits for."""

    def __init__(self, load: Callable[[int], Arrays], number: int) -> None:
        self._number = number
        self._arrays: Arrays | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(load,), name=f"keepfit-partition-{number}", daemon=True)
        self._thread.start()

    @property
    def is_done(self) -> bool:
        return not self._thread.is_alive()

    def wait(self, timeout_s: float | None) -> None:
        self._thread.join(timeout_s)

    def result(self, timeout_s: float | None) -> Arrays:
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise TimeoutError(f"it was not read within {timeout_s:g} seconds")
        if self._error is not None:
            raise self._error
        assert self._arrays is not None
        return self._arrays

    def _run(self, load: Callable[[int], Arrays]) -> None:
        try:
            self._arrays = load(self._number)
        except BaseException as error:  # noqa: BLE001 - raised where the partition is needed
            self._error = error
