"""Which data is the same as data of an earlier fit, also where its fingerprint says nothing of what is in it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from keepfit.data import IndexedSource, ObjectMemory, Partitions, fingerprint, row_arrays
from keepfit.rehearsal.kept import digest

if TYPE_CHECKING:
    from keepfit.journal import FitRecord
    from keepfit.rehearsal.register import Register
    from keepfit.request import FitRequest

SAMPLED = "sampled"  # in the detail of a fit: the number of the source its samples are kept under
SOURCE = "source"  # what is kept of training data
_PIECE_BYTES = 16 << 20


class Identity:
    """What identifies the training data of one call of ``fit`` among what a run keeps.

    Of most data that is its fingerprint. That of functions as partitions has
    their sizes and first rows only, so that a hash of all rows stands behind
    it. Where the same fingerprint came before, and the record of the fit does
    not say which data that was, the rows are read to tell; an object is read
    once in a process.

    Args:
        register: What the run keeps.
        request: The call.
        source: Its training data.
        split: The fraction that is held back.
    """

    def __init__(self, register: Register, request: FitRequest, source: Any, split: float) -> None:
        self.facts = fingerprint({"x": request.x, "y": request.y, "sample_weight": request.sample_weight})
        self._register = register
        self._given = request.x
        self._source = source
        self._told = digest(self.facts, split)
        self.tells_content = not isinstance(request.x, Partitions) or request.x.tells_content

    def known(self, fit: int, fits: Mapping[int, FitRecord]) -> str:
        """Return the hash of the data; empty where nothing like it is kept, and only reading it would tell more.

        Args:
            fit: Number of the fit that the call asks for.
            fits: What is recorded.
        """
        if self.tells_content:
            return self._told
        alike = [kept for kept in self._register.of(SOURCE) if kept.data.startswith(self._told)]
        record = fits.get(fit)
        recorded = None if record is None else record.detail.get(SAMPLED)
        for kept in alike:
            # What an earlier version kept has no hash of its rows.
            if kept.number == recorded or kept.data == self._told:
                return kept.data
        if not alike:
            return ""
        remembered = _contents.of(self._given)
        if self._told not in remembered:
            deque(self.read(), maxlen=0)
        return self._told + remembered[self._told]

    def read(self) -> Iterator[tuple[int, Any]]:
        """Yield all rows in order, in pieces, each with the number of its first row; `content` is known after that."""
        source, state = self._source, xxhash.xxh3_128()
        assert isinstance(source, IndexedSource)
        piece = max(1, _PIECE_BYTES * source.num_samples // max(1, source.size_bytes))
        for start in range(0, source.num_samples, piece):
            batch = source.take(np.arange(start, min(start + piece, source.num_samples), dtype=np.int64))
            for array in row_arrays(batch):
                state.update(_bytes(array).data)
            yield start, batch
        _contents.of(self._given)[self._told] = state.hexdigest()

    @property
    def content(self) -> str:
        """The hash of the data, once all of it was read."""
        return self._told + _contents.of(self._given)[self._told]


def _bytes(array: Any) -> NDArray[np.uint8]:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


# Fingerprint and fraction -> hash of the rows. Partitions are taken to give the same rows for as long as they live.
_contents: ObjectMemory[dict[str, str]] = ObjectMemory(dict)
