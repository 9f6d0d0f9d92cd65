"""Data sets whose rows are looked at for leaks: what tells one from others, and the hashes of its rows."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from keepfit import nested
from keepfit.data import (
    IndexedSource,
    ObjectMemory,
    Partitions,
    PartitionSide,
    RehearsedSource,
    SampleRows,
    SampleSource,
    batch_hashes,
    content_digest,
    fingerprint,
    row_arrays,
)
from keepfit.trained import Words

if TYPE_CHECKING:
    from keepfit.data import Source
    from keepfit.engine import Block
    from keepfit.feed import Feed

_PIECE_BYTES = 1 << 20


def is_watched(source: Source) -> bool:
    """Return whether rows of a source are looked at; those of streams and of PyDatasets are not."""
    return isinstance(source, IndexedSource) and source.is_dense


class Watched:
    """A data set whose rows are looked at.

    Args:
        source: The data.
        given: The same as it was given: ``(x, y)``.
        mixed: What tells which earlier samples are mixed in, as plain data; empty where none are.

    Attributes:
        identity: 64 bits that tell it from others; of data that says nothing of what is in it, as long as it lives.
        passes: After how many whole passes in a row every row has come.
    """

    def __init__(self, source: Source, given: Any, *, mixed: Mapping[str, Any] | None = None) -> None:
        assert isinstance(source, IndexedSource)
        self.source = source
        if isinstance(source, RehearsedSource):
            self.identity = _hashed([_identity(source.new, given), mixed])
            # Turns of earlier samples go on over passes: one whole turn lies in two of them in a row.
            self.passes = math.ceil(2 * source.old_count / source.old_places)
        else:
            self.identity = _identity(source, given)
            self.passes = 1

    def hashes(self, feed: Feed, block: Block) -> Iterator[Words]:
        """Yield the hashes of the rows of a block, the last one that a feed gave."""
        source, count = self.source, block.count * block.samples
        if source.resident and source.num_batches == 1:
            yield batch_hashes(source.arrays)  # many are the fits of one batch, and this is the quickest way
            return
        if feed.source is source and not source.resident:
            if block.arrays is None:
                yield from map(batch_hashes, block.batches)
            else:
                yield batch_hashes(nested.map_structure(lambda leaf: leaf[:count], block.arrays, none_is_leaf=False))
            return
        rows = block.rows
        if rows is None:  # what stands for the inputs is read from somewhere else
            start = (feed.cursor.offset - block.count) * source.batch_size
            rows = source.order(feed.cursor.passes, start, start + count)
        yield from self._hashes_of(rows)

    def all_hashes(self) -> Iterator[Words]:
        """Yield the hashes of all rows."""
        return self._hashes_of(np.arange(self.source.num_samples, dtype=np.int64))

    def _hashes_of(self, rows: Any) -> Iterator[Words]:
        step = max(1, _PIECE_BYTES * self.source.num_samples // max(1, self.source.size_bytes))
        for start in range(0, len(rows), step):
            yield batch_hashes(self.source.take(rows[start : start + step]))


# Functions, and objects that make a sample when they are asked, say nothing of their content.
_objects: ObjectMemory[int] = ObjectMemory(lambda: int.from_bytes(os.urandom(8)))


def _identity(source: IndexedSource, given: Any) -> int:
    """Return 64 bits that tell data from other data, where it is not in memory as a whole too."""
    if source.resident:
        return content_digest(row_arrays(source.arrays))
    x, y = given
    about: list[Any] = [type(source).__name__, source.num_samples]
    if isinstance(x, (PartitionSide, SampleRows)):
        about += [x.fraction, x.held_back]
        x = x.partitions if isinstance(x, PartitionSide) else x.data
    if isinstance(source, SampleSource) or (isinstance(x, Partitions) and not x.tells_content):
        return _hashed([*about, _objects.of(x)])
    return _hashed([*about, fingerprint((x, y))])


def _hashed(about: Any) -> int:
    return int(xxhash.xxh3_64_intdigest(json.dumps(about, sort_keys=True).encode()))
