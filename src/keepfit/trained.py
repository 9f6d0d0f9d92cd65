"""The rows that a run trained on, as hashes: all of them up to a number, beyond it an even sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
Version = tuple[int, int, int, int]

MOST_ROWS = 1 << 20
_RECENT = 1 << 16
# Checkpoints share what did not change, and two pieces that are made one are in memory twice.
_LONGEST = 1 << 18
_MOST_SORTED = 8
_MOST_SETS = 1 << 12
_FIT_BITS = np.uint64(18)
MOST_FITS = (1 << 18) - 1
_FIT_MASK = np.uint64(MOST_FITS)
_ROWS, _NEWEST, _SETS = "trained/rows/", "trained/recent", "trained/sets"


class TrainedRows:
    """Hashes of rows, each with the number of the first fit that trained on it, in 8 bytes together.

    46 bits of a hash count, so that a row that was never added is found with a
    probability of at most ``(MOST_ROWS + 2**16) / 2**46``, which is 2 in 10^8.
    Above `MOST_ROWS` different rows only hashes in the lower half of their
    range are kept, then in the lower quarter, and so on: of any rows, the same
    share of 1 in ``2**halvings`` is known. Fits from `MOST_FITS` on have that
    number.

    What it holds is a function of what was added and in which order, whatever
    the pieces it came in. Arrays that it gave away are never written to.

    Example:
        >>> rows = TrainedRows()
        >>> rows.add(np.array([5 << 40, 9 << 40], np.uint64), fit=1)
        >>> rows.add(np.array([9 << 40, 7 << 40], np.uint64), fit=2)
        >>> rows.first_fits(np.array([5 << 40, 7 << 40, 8 << 40, 9 << 40], np.uint64)).tolist()
        [1, 2, 0, 1]
    """

    def __init__(self) -> None:
        self.halvings = 0
        self._settled: list[Words] = []  # rising, no hash in two of them, the long ones first
        self._recent = _Log(np.empty(0, np.uint64), most=_RECENT)
        # The recent rows as far as they were looked up in, oldest first.
        self._sorted: list[Words] = []
        self._sorted_count = 0
        self._settlings = 0
        self._sets = _Log(np.empty(0, np.uint64), most=_MOST_SETS)
        self._known_sets: set[int] = set()
        self._given: dict[str, Any] = {}

    @classmethod
    def of(cls, tensors: Mapping[str, Any], halvings: int) -> TrainedRows:
        """Return what `tensors` and `halvings` told; nothing where they are of a run that did not watch its rows."""
        rows = cls()
        rows.halvings = halvings
        while (name := f"{_ROWS}{len(rows._settled)}") in tensors:
            rows._settled.append(np.asarray(tensors[name]))
        rows._recent = _Log(np.asarray(tensors.get(_NEWEST, rows._recent.words)), most=_RECENT)
        rows._sets = _Log(np.asarray(tensors.get(_SETS, rows._sets.words)), most=_MOST_SETS)
        rows._known_sets = set(rows._sets.words.tolist())
        rows._given = {name: array for name, array in tensors.items() if name.startswith("trained/")}
        return rows

    def tensors(self) -> dict[str, Any]:
        """Return all that must be kept besides `halvings`: name -> array, the same ones while nothing is added."""
        if not self._given:
            self._given = {f"{_ROWS}{number}": words for number, words in enumerate(self._settled)}
            for name, log in ((_NEWEST, self._recent), (_SETS, self._sets)):
                if log.count:
                    self._given[name] = log.words
        return self._given

    def are_in(self, tensors: Mapping[str, Any]) -> bool:
        """Return whether `tensors` gave these."""
        given = self.tensors()
        for name, array in given.items():
            if tensors.get(name) is not array:
                return False
        return not (f"{_ROWS}{len(self._settled)}" in tensors or (_NEWEST in tensors and _NEWEST not in given))

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever added."""
        return not self._settled and not self._recent.count

    @property
    def version(self) -> Version:
        """Something else whenever rows were added."""
        return self.halvings, self._settlings, sum(map(len, self._settled)), self._recent.count

    def add(self, hashes: Words, *, fit: int) -> None:
        """Add rows; one that is there already keeps the fit it has.

        Args:
            hashes: What `keepfit.data.row_hashes` gives.
            fit: Number of the fit that trained on them, 1 or more, and no less than any before.
        """
        words = self._sampled((hashes & ~_FIT_MASK) | np.uint64(min(fit, MOST_FITS)))
        while len(words):
            if self._recent.room == 0:
                self._settle()
                words = self._sampled(words)
            part, words = words[: self._recent.room], words[self._recent.room :]
            self._recent.append(part)
            self._given = {}

    def first_fits(
        self, hashes: Words, *, before: NDArray[np.int32] | None = None, since: Version | None = None
    ) -> Words:
        """Return for each row the first fit that trained on it, 0 where none is known.

        Args:
            hashes: What `keepfit.data.row_hashes` gives.
            before: What this gave for them before, so that only rows that were added since are looked up; or None.
            since: `version` as of then, or earlier; or None.
        """
        if before is not None and since is not None and since[:-1] == self.version[:-1]:
            found, left = before.astype(np.uint64), np.flatnonzero(before == 0)
            found[left] = _fits_of(hashes[left] & ~_FIT_MASK, [_different(self._recent.words[since[-1] :])])
            return found
        if self._sorted_count < self._recent.count:
            begin = 0 if len(self._sorted) == _MOST_SORTED else self._sorted_count
            self._sorted = [*(self._sorted if begin else ()), _different(self._recent.words[begin:])]
            self._sorted_count = self._recent.count
        return _fits_of(hashes & ~_FIT_MASK, (*self._settled, *self._sorted))

    # Sets of rows that were added whole

    def has_set(self, identity: int) -> bool:
        """Return whether all rows of a data set were added; the newest few thousand sets are known."""
        return identity in self._known_sets

    def add_set(self, identity: int) -> None:
        """Note that all rows of a data set were added.

        Args:
            identity: 64 bits that tell it from others.
        """
        if self._sets.room == 0:
            self._sets = _Log(self._sets.words[_MOST_SETS // 2 :], most=_MOST_SETS)
            self._known_sets = set(self._sets.words.tolist())
        self._sets.append(np.array([identity], np.uint64))
        self._known_sets.add(identity)
        self._given = {}

    # Within bounds

    def _sampled(self, words: Words) -> Words:
        return words[words <= self._limit] if self.halvings else words

    @property
    def _limit(self) -> np.uint64:
        return np.uint64((1 << (64 - self.halvings)) - 1)

    def _settle(self) -> None:
        """Sort the recent rows in among the others, and make room for new ones."""
        words = _different(self._recent.words)
        self._recent = _Log(words[:0], most=_RECENT)
        self._sorted, self._sorted_count = [], 0
        self._settlings += 1
        words = words[_fits_of(words & ~_FIT_MASK, self._settled) == 0]
        while self._settled and len(self._settled[-1]) < 2 * len(words) <= _LONGEST:
            words = np.concatenate([self._settled.pop(), words])
            words.sort(kind="stable")  # two runs, which it merges
        if len(words):
            self._settled.append(words)
        while sum(map(len, self._settled)) > MOST_ROWS:
            self.halvings += 1
            self._settled = [self._sampled(each) for each in self._settled]


def _different(words: Words) -> Words:
    """Return words in order, of those with the same hash the one with the first fit."""
    words = np.sort(words)
    hashes = words & ~_FIT_MASK
    firsts = np.ones(len(words), bool)
    firsts[1:] = hashes[1:] != hashes[:-1]
    different: Words = words[firsts]
    return different


def _fits_of(hashes: Words, pieces: Iterable[Words]) -> Words:
    """Return the fit of each hash in the first piece that has it, 0 where none has."""
    found = np.zeros(len(hashes), np.uint64)
    for words in pieces:
        places = np.minimum(np.searchsorted(words, hashes), max(len(words) - 1, 0))
        there = words[places] if len(words) else np.zeros_like(hashes)
        found = np.where((found == 0) & (there & ~_FIT_MASK == hashes), there & _FIT_MASK, found)
    return found


class _Log:
    """Words one behind the other in one array, of which views are given away: none is written twice.

    Args:
        words: What it begins with; it is not written to.
        most: Most words.
    """

    def __init__(self, words: Words, *, most: int) -> None:
        self._array = words
        self._most = most
        self.count = len(words)

    @property
    def words(self) -> Words:
        """All words so far."""
        return self._array[: self.count]

    @property
    def room(self) -> int:
        """How many more there may be."""
        return self._most - self.count

    def append(self, words: Words) -> None:
        """Add words, `room` at most."""
        end = self.count + len(words)
        if end > len(self._array):
            grown = np.empty(min(self._most, max(256, 2 * end)), np.uint64)
            grown[: self.count] = self.words
            self._array = grown
        self._array[self.count : end] = words
        self.count = end
