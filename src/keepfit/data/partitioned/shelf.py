"""The partitions in memory: a bounded number of them, the next ones being read in the background."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable

from keepfit.data.partitioned.room import Room
from keepfit.readers.late import late


class StuckError(Exception):
    """Partitions that are not needed hold all threads, or a place, for too long; never seen outside the package."""


class Shelf:
    """Holds partitions by number; each fills a place of a room.

    Args:
        load: Reads a partition into a place.
        room: The places.
        places: Partitions that are held or being read at any time, 1 or more.
        workers: Threads that read, 1 or more.
        timeout_s: Longest time to wait for a partition, in seconds; None where `load` itself ends in time.

    Attributes:
        is_stuck: Whether a thread and its place were given up: this is to be cleared, and another one to be used.
    """

    def __init__(
        self,
        load: Callable[[int, int], None],
        *,
        room: Room,
        places: int,
        workers: int = 1,
        timeout_s: float | None = None,
    ) -> None:
        self.room = room
        self.places = places
        self._free = list(range(places))
        self.is_stuck = False
        self._timeout_s = timeout_s
        self._readers = _Readers(load, count=workers)
        # In the order in which they were last needed.
        self._held: dict[int, _Reading] = {}

    def get(self, number: int, *, keep: Iterable[int]) -> int:
        """Return where a partition begins in the room; it is read now where it is not held.

        Args:
            number: Its number.
            keep: Those that are in use together with it; with it, `places` at most.

        Raises:
            TimeoutError: It was not there in time.
            StuckError: There is no place for it until the shelf was cleared.
            Exception: What reading it raised.
        """
        if number in self._held:
            self._held[number] = self._held.pop(number)
        else:
            self._make_room(keep={number, *keep})
            self._begin(number)
        reading = self._held[number]
        try:
            reading.wait(self._timeout_s)
        except BaseException as error:
            if reading.done.is_set():
                self._let_go(number)  # to be tried again when it is asked for again
                raise
            self.is_stuck = True
            others = (each for each in self._held.values() if each is not reading)
            if isinstance(error, TimeoutError) and not reading.is_begun and any(each.is_under_way for each in others):
                raise StuckError from error
            raise
        return self.room.begin(reading.place)

    def there(self, numbers: Iterable[int]) -> dict[int, int] | None:
        """Return where partitions begin in the room if all of them are there, else None."""
        found: dict[int, int] = {}
        for number in numbers:
            reading = self._held.get(number)
            if reading is None or not reading.is_read:
                return None
            self._held[number] = self._held.pop(number)
            found[number] = self.room.begin(reading.place)
        return found

    def read_ahead(self, numbers: Iterable[int], *, keep: Iterable[int]) -> None:
        """Begin to read partitions, as far as there is room beside those that are kept."""
        kept = set(keep)
        for number in numbers:
            if number in self._held:
                kept.add(number)
                continue
            for old in [old for old, reading in self._held.items() if old not in kept and reading.done.is_set()]:
                if not self._free:
                    self._let_go(old)
            if not self._free:
                return
            self._begin(number)
            kept.add(number)

    def clear(self) -> None:
        """Let go of all partitions, and of the threads; this is of no use any more."""
        self._held.clear()
        self._free.clear()
        self._readers.end()

    @property
    def numbers(self) -> list[int]:
        """The partitions held or being read."""
        return list(self._held)

    def _make_room(self, *, keep: set[int]) -> None:
        for old in [old for old in self._held if old not in keep]:
            if self._free:
                return
            # What is being read fills its place until it is done: nothing stops a thread.
            if not self._held[old].done.wait(self._timeout_s):
                raise StuckError
            self._let_go(old)

    def _begin(self, number: int) -> None:
        self._held[number] = _Reading(number, self._free.pop())
        self._readers.submit(self._held[number])

    def _let_go(self, number: int) -> None:
        self._free.append(self._held.pop(number).place)


class _Reading:
    """A partition that a reader is reading, or has read, into a place."""

    def __init__(self, number: int, place: int) -> None:
        self.number = number
        self.place = place
        self.is_begun = False
        self.done = threading.Event()
        self.error: BaseException | None = None

    @property
    def is_read(self) -> bool:
        """Whether all of it is there."""
        return self.done.is_set() and self.error is None

    @property
    def is_under_way(self) -> bool:
        """Whether a thread is at it."""
        return self.is_begun and not self.done.is_set()

    def wait(self, timeout_s: float | None) -> None:
        """Return when it is there; raises what reading it raised."""
        if not self.done.wait(timeout_s):
            raise late(timeout_s)
        if self.error is not None:
            raise self.error


class _Readers:
    """Threads that read, the same ones for all partitions; no end of the process waits for them.

    A thread of its own for each partition would take memory that the allocator keeps for each.
    """

    def __init__(self, load: Callable[[int, int], None], *, count: int) -> None:
        self._load = load
        self._count = count
        self._waiting: queue.SimpleQueue[_Reading | None] = queue.SimpleQueue()
        self._started = 0

    def submit(self, reading: _Reading) -> None:
        """Begin to read a partition, when a thread is free."""
        if self._started < self._count:
            self._started += 1
            threading.Thread(target=self._run, name="keepfit-partitions", daemon=True).start()
        self._waiting.put(reading)

    def end(self) -> None:
        """Let the threads end when they have read what they are reading."""
        for _ in range(self._started):
            self._waiting.put(None)
        self._started = 0

    def _run(self) -> None:
        while (reading := self._waiting.get()) is not None:
            reading.is_begun = True
            try:
                self._load(reading.number, reading.place)
            except BaseException as error:  # noqa: BLE001 - raised where the partition is needed
                reading.error = error
            reading.done.set()
            del reading  # else what it raised would be held until the next one comes
