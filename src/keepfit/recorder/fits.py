"""Records of fits, the older ones packed to a few hundred bytes each."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping

from keepfit.journal import FitRecord
from keepfit.journal.rows import fit_from_text, fit_to_text

RECENT = 16  # above the usual keep=, since retention reads the fits whose ends are kept
_DEFLATE_WINDOW = 32_768  # zlib looks back no further than this
_NUMBER = 4  # bytes
_LARGE = 600  # a packed record above this size, in bytes, may resemble another fit more than the dictionary's
_ANOTHER_DICTIONARY = 2  # a dictionary pays when what lies above that size comes to so many of its own


class FitTable(Mapping[int, FitRecord]):
    """Fits of one branch by number, as a read-only dict.

    The newest are held as they are. An older one is held as its JSON,
    compressed against an earlier fit's: recipes of one run repeat, so a
    thousand fits take a few hundred kilobytes, not several megabytes. Which
    ones have a name (``named``) is known without a look at the record.
    """

    def __init__(self) -> None:
        self._numbers: dict[int, None] = {}  # in order of insertion
        self._recent: dict[int, FitRecord] = {}
        self._packed: dict[int, bytes] = {}  # the number of the dictionary, then the text
        self.named: set[int] = set()
        self._dictionaries: list[bytes] = []
        self._above = 0  # bytes above `_LARGE` in what the last dictionary served

    def put(self, record: FitRecord) -> None:
        """Insert a record, or replace the one with its number."""
        self._numbers[record.number] = None
        self._packed.pop(record.number, None)
        self._recent[record.number] = record
        (self.named.add if record.name else self.named.discard)(record.number)
        if len(self._recent) > RECENT:
            self._pack(min(self._recent))

    def cut(self, after: int) -> list[FitRecord]:
        """Take out the fits with a number above ``after`` and return them."""
        gone = [self[number] for number in self._numbers if number > after]
        for record in gone:
            del self._numbers[record.number]
            self._recent.pop(record.number, None)
            self._packed.pop(record.number, None)
            self.named.discard(record.number)
        return gone

    def __getitem__(self, number: int) -> FitRecord:
        if number in self._recent:
            return self._recent[number]
        data = self._packed[number]
        dictionary = self._dictionaries[int.from_bytes(data[:_NUMBER])]
        return fit_from_text(zlib.decompressobj(zdict=dictionary).decompress(data[_NUMBER:]).decode())

    def __contains__(self, number: object) -> bool:
        return number in self._numbers

    def __iter__(self) -> Iterator[int]:
        return iter(tuple(self._numbers))

    def __len__(self) -> int:
        return len(self._numbers)

    def __repr__(self) -> str:
        return f"FitTable({dict(self)!r})"

    def _pack(self, number: int) -> None:
        text = fit_to_text(self._recent.pop(number)).encode()
        if not self._dictionaries:
            self._dictionaries.append(text[-_DEFLATE_WINDOW:])
        data = _deflate(text, self._dictionaries[-1])
        self._above += max(0, len(data) - _LARGE)
        # A fit that no other resembles, as with new data each time, would be a dictionary for itself alone.
        if self._above > _ANOTHER_DICTIONARY * len(text):
            self._dictionaries.append(text[-_DEFLATE_WINDOW:])
            self._above = 0
            data = _deflate(text, self._dictionaries[-1])
        self._packed[number] = (len(self._dictionaries) - 1).to_bytes(_NUMBER) + data


def _deflate(text: bytes, dictionary: bytes) -> bytes:
    # A window and a table larger than it takes are memory that zlib clears each time, more work than all the rest.
    window = (len(text) + len(dictionary)).bit_length()
    stream = zlib.compressobj(level=6, wbits=min(max(window, 9), 15), memLevel=4, zdict=dictionary)
    return stream.compress(text) + stream.flush()
