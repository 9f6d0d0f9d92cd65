"""The guard against leaks: rows of a fit's validation data that earlier fits of the run trained on."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from keepfit import nested
from keepfit.data import (
    IndexedSource,
    ObjectMemory,
    PartitionSide,
    SampleSource,
    batch_hashes,
    content_digest,
    fingerprint,
    row_arrays,
)
from keepfit.errors import warn
from keepfit.trained import MOST_FITS, TrainedRows, Words

if TYPE_CHECKING:
    from keepfit.data import Source
    from keepfit.engine import Block
    from keepfit.feed import Feed
    from keepfit.recorder import Recorder
    from keepfit.snapshot import Snapshot

KIND = "leak"
_PIECE_BYTES = 1 << 20
_MOST_FITS = 5  # named in one sentence
_MOST_COMPARED = 64


class LeakGuard:
    """Knows which rows the fits of one run trained on, and looks for them in what later fits validate on.

    Rows are looked at as they are trained on, in the first pass over a data
    set; its content says whether it is known. What is known belongs to the
    state of the run: it lies in checkpoints, so that a killed, replayed,
    branched or forked run knows what the run knew there.

    Args:
        recorder: Where a leak is recorded.
        on: Whether the guard looks at anything; where not, what is known stays.
    """

    def __init__(self, recorder: Recorder, *, on: bool = True) -> None:
        self._recorder = recorder
        self._on = on
        self._rows = TrainedRows()
        self._fit = 0
        self._training: _Watched | None = None
        self._validation: _Watched | None = None
        self._found: list[Words] = []  # the first fit that trained on each row of it, 0 for none
        # How far the first pass over a data set has come: its identity, the pass, batches.
        self._pass: list[int] | None = None
        # What was known when the fit began, None where its own rows are in that; validation set -> the same when it
        # was last compared.
        self._known: Any = None
        self._compared: OrderedDict[int, Any] = OrderedDict()

    def begin(self, point: Snapshot, *, fit: int, source: Source, given: Any, resumed: bool) -> None:
        """Begin a fit.

        Args:
            point: The state it begins with.
            fit: Its number.
            source: Its training data.
            given: The same as it was given: ``(x, y)``, without what is held back.
            resumed: Whether it goes on inside.
        """
        state = point.state.get("trained") or {}
        if not self._rows.are_in(point.tensors):
            self._rows = TrainedRows.of(point.tensors, int(state.get("halvings", 0)))
            self._compared.clear()
        self._pass = state.get("pass")
        self._fit = fit
        self._known = None if resumed else self._rows.version
        self._training = self._validation = None
        if self._on and is_watched(source):
            watched = _Watched(source, given)
            if not self._rows.has_set(watched.identity):
                self._training = watched

    def compare(self, source: Source | None, given: Any) -> None:
        """Warn where earlier fits trained on rows of validation data: of arrays now, of other data in its first pass.

        Args:
            source: The validation data, if any.
            given: The same as it was given: ``(x, y)``.
        """
        if source is None or not self._on or not is_watched(source) or self._rows.is_empty:
            return
        watched = _Watched(source, given)
        if self._known is not None and self._compared.get(watched.identity) == self._known:
            return
        self._validation, self._found = watched, []
        if watched.source.resident:
            for hashes in watched.all_hashes():
                self._found.append(self._rows.first_fits(hashes))
            self._tell()

    # While the fit trains

    def trained(self, feed: Feed, block: Block) -> None:
        """Note a block that was trained on.

        Args:
            feed: Where it came from, as it stands behind it; of the data, or of what stands for its inputs.
            block: The block.
        """
        watched = self._training
        if watched is None:
            return
        number, stop = feed.cursor.passes, feed.cursor.offset
        start = stop - block.count
        for hashes in watched.hashes(feed, block):
            self._rows.add(hashes, fit=self._fit)
        if start != 0 and self._pass != [watched.identity, number, start]:
            return  # some of this pass was trained on when nobody looked
        self._pass = [watched.identity, number, stop]
        if stop >= watched.source.num_batches:
            self._rows.add_set(watched.identity)
            self._training = self._pass = None

    @property
    def is_comparing(self) -> bool:
        """Whether blocks of validation data are wanted."""
        return self._validation is not None

    def validated(self, feed: Feed, block: Block) -> None:
        """Look for a block of validation data among what earlier fits trained on."""
        if self._validation is not None:
            for hashes in self._validation.hashes(feed, block):
                self._found.append(self._rows.first_fits(hashes))

    def end_validation(self) -> None:
        """Warn where the pass that has ended came upon rows that earlier fits trained on."""
        if self._validation is not None and self._found:
            self._tell()

    # What is kept

    def tensors(self) -> dict[str, Any]:
        """Return the arrays that a checkpoint must hold, the same ones while nothing was learned."""
        return self._rows.tensors()

    def state(self) -> dict[str, Any]:
        """Return the plain data that a checkpoint must hold."""
        return {"halvings": self._rows.halvings, "pass": self._pass}

    def _tell(self) -> None:
        assert self._validation is not None
        identity, found = self._validation.identity, np.concatenate(self._found)
        self._validation, self._found = None, []
        if self._known is not None:
            self._compared[identity] = self._known
        while len(self._compared) > _MOST_COMPARED:
            self._compared.popitem(last=False)
        earlier = found[(found > 0) & (found < min(self._fit, MOST_FITS))]
        if not len(earlier):
            return
        halvings = self._rows.halvings
        rows = min(len(earlier) << halvings, len(found))
        facts = {"set": f"{identity:016x}", "rows": rows, "of": len(found)}
        if any(event.kind == KIND and event.data.get("facts") == facts for event in self._recorder.events):
            return
        message = _message(self._fit, rows, len(found), np.unique(earlier).tolist(), about=halvings > 0)
        self._recorder.event(KIND, message, fit=self._fit, facts=facts)
        warn(message)


def is_watched(source: Source) -> bool:
    """Return whether rows of a source are looked at; those of streams and of PyDatasets are not."""
    return isinstance(source, IndexedSource) and source.is_dense


# An object that makes a sample when it is asked says nothing of its content: it is known while it lives.
_samples: ObjectMemory[int] = ObjectMemory(lambda: int.from_bytes(os.urandom(8)))


class _Watched:
    """A data set whose rows are looked at.

    Args:
        source: The data.
        given: The same as it was given.
    """

    def __init__(self, source: Source, given: Any) -> None:
        assert isinstance(source, IndexedSource)
        self.source = source
        self.identity = content_digest(row_arrays(source.arrays)) if source.resident else _identity(source, given)

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


def _identity(source: IndexedSource, given: Any) -> int:
    """Return 64 bits that tell data from other data which is not in memory as a whole."""
    x, y = given
    if isinstance(source, SampleSource):
        return _samples.of(x)
    about: list[Any] = [type(source).__name__, source.num_samples]
    if isinstance(x, PartitionSide):
        about += [x.fraction, x.held_back]
        x = x.partitions
    text = json.dumps([*about, fingerprint((x, y))], sort_keys=True)
    return int(xxhash.xxh3_64_intdigest(text.encode()))


def _message(fit: int, rows: int, of: int, fits: list[int], *, about: bool) -> str:
    named = ", ".join(map(str, fits[:_MOST_FITS]))
    named += f" and {len(fits) - _MOST_FITS} more" if len(fits) > _MOST_FITS else ""
    return (
        f"{'About ' if about else ''}{rows:,} of the {of:,} rows that fit {fit} validates on were trained on before, "
        f"first in fit{'s' if len(fits) > 1 else ''} {named}: what is measured on them says nothing about new data. "
        "Hold validation data back once, before the first fit, and give the same validation_data to all fits. "
        "leak_guard=False of Run and attach looks at no rows."
    )
