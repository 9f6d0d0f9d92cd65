"""The partitions in memory: a bounded number of them, the next ones being read in the background."""

from __future__ import annotations

import queue
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
        workers: Threads that read, 1 or more.
        timeout_s: Longest time to wait for a partition, in seconds; None where `load` itself ends in time.
    """

    def __init__(
        self, load: Callable[[int], Arrays], *, places: int, workers: int = 1, timeout_s: float | None = None
    ) -> None:
        self.places = places
        self._timeout_s = timeout_s
        self._readers = _Readers(load, count=workers)
        # In the order in which they were last needed.
        self._held: dict[int, _Reading] = {}

    def get(self, number: int, *, keep: Iterable[int]) -> Arrays:
        """Return a partition, read now where it is not held.

        Args:
            number: Its number.
            keep: Those that are in use together with it; with it, `places` at most.

        Raises:
            TimeoutError: It was not there in time.
            Exception: What reading it raised.
        """
        if number in self._held:
            self._held[number] = self._held.pop(number)
        else:
            self._make_room(keep={number, *keep})
            self._held[number] = self._readers.submit(number)
        try:
            return self._held[number].result(self._timeout_s)
        except BaseException as error:
            if isinstance(error, TimeoutError) and not self._held[number].done.is_set():
                self._readers.give_up()
            self._held.pop(number, None)  # to be tried again when it is asked for again
            raise

    def read_ahead(self, numbers: Iterable[int], *, keep: Iterable[int]) -> None:
        """Begin to read partitions, as far as there is room beside those that are kept."""
        kept = set(keep)
        for number in numbers:
            if number in self._held:
                kept.add(number)
                continue
            for old in [old for old, reading in self._held.items() if old not in kept and reading.done.is_set()]:
                if len(self._held) >= self.places:
                    del self._held[old]
            if len(self._held) >= self.places:
                return
            self._held[number] = self._readers.submit(number)
            kept.add(number)

    def clear(self) -> None:
        """Let go of all partitions, and of the threads."""
        self._held.clear()
        self._readers.end()

    @property
    def numbers(self) -> list[int]:
        """The partitions held or being read."""
        return list(self._held)

    def _make_room(self, *, keep: set[int]) -> None:
        for old in [old for old in self._held if old not in keep]:
            if len(self._held) < self.places:
                return
            # What is being read takes memory until it is done: nothing stops a thread.
            self._held[old].done.wait(self._timeout_s)
            del self._held[old]


class _Reading:
    """A partition that a reader is reading, or has read."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.done = threading.Event()
        self.arrays: Arrays | None = None
        self.error: BaseException | None = None

    def result(self, timeout_s: float | None) -> Arrays:
        """Return the arrays when they are there; raises what reading them raised."""
        if not self.done.wait(timeout_s):
            raise TimeoutError(f"it was not read within {timeout_s:g} seconds")
        if self.error is not None:
            raise self.error
        assert self.arrays is not None
        return self.arrays


class _Readers:
    """Threads that read, the same ones for all partitions; no end of the process waits for them.

    A thread of its own for each partition would take memory that the allocator keeps for each.
    """

    def __init__(self, load: Callable[[int], Arrays], *, count: int) -> None:
        self._load = load
        self._count = count
        self._waiting: queue.SimpleQueue[_Reading | None] = queue.SimpleQueue()
        self._started = 0

    def submit(self, number: int) -> _Reading:
        """Begin to read a partition, when a thread is free."""
        if self._started < self._count:
            self._started += 1
            threading.Thread(target=self._run, name="keepfit-partitions", daemon=True).start()
        reading = _Reading(number)
        self._waiting.put(reading)
        return reading

    def give_up(self) -> None:
        """Let another thread take the place of one that hangs."""
        self._started -= 1

    def end(self) -> None:
        """Let the threads end when they have read what they are reading."""
        for _ in range(self._started):
            self._waiting.put(None)
        self._started = 0

    def _run(self) -> None:
        while (reading := self._waiting.get()) is not None:
            try:
                reading.arrays = self._load(reading.number)
            except BaseException as error:  # noqa: BLE001 - raised where the partition is needed
                reading.error = error
            reading.done.set()
            del reading  # else it would be held until the next one comes
