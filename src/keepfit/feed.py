"""A source read in order, from any position, in blocks that an engine can run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from keepfit import nested
from keepfit.data import IndexedSource, Source, StreamSource
from keepfit.engine.base import Block
from keepfit.errors import warn


@dataclass(frozen=True)
class Cursor:
    """Where a run stands in its data.

    Args:
        passes: Passes over the data that were begun before the current one.
        offset: Batches of the current pass that are done.
    """

    passes: int = 0
    offset: int = 0

    def to_json(self) -> dict[str, int]:
        """Return the cursor as plain data."""
        return {"passes": self.passes, "offset": self.offset}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Cursor:
        """Return the cursor that `to_json` gave."""
        return cls(passes=int(data["passes"]), offset=int(data["offset"]))


class Feed:
    """Batches of one source, epoch by epoch.

    An epoch is a whole pass, or ``steps_per_epoch`` batches, which go on where
    the epoch before stopped. As in Keras, a pass that ends within such an
    epoch ends the epoch too, with a warning.

    Args:
        source: What gives the batches.
        cursor: Where to go on.
        steps_per_epoch: Batches in an epoch, or None for a whole pass.
        most_steps: How many batches like a given one make a block.
    """

    def __init__(
        self,
        source: Source,
        *,
        cursor: Cursor | None = None,
        steps_per_epoch: int | None = None,
        most_steps: Callable[[Any], int] = lambda _: 1,
    ) -> None:
        self.source = source
        self.cursor = cursor or Cursor()
        self._steps_per_epoch = steps_per_epoch
        self._most_steps = most_steps
        self._left: int | None = None
        self._block_steps: int | None = None
        self._dry = False

    @property
    def steps(self) -> int | None:
        """Steps planned for an epoch, None where the source does not say."""
        return self._steps_per_epoch or self.source.num_batches

    @property
    def is_dry(self) -> bool:
        """Whether the source has nothing left for another epoch."""
        return self._dry

    def begin_epoch(self) -> None:
        """Begin an epoch: go on inside the pass where ``steps_per_epoch`` left it, else begin a new one."""
        total = self.source.num_batches
        ended = total is not None and self.cursor.offset >= total
        if self.cursor.offset and (self._steps_per_epoch is None or ended):
            self.cursor = Cursor(self.cursor.passes + 1, 0)
        self._left = self._steps_per_epoch
        self.source.begin_pass(self.cursor.passes)

    def resume_epoch(self, steps_done: int) -> None:
        """Go on inside an epoch of which ``steps_done`` batches are done."""
        self._left = None if self._steps_per_epoch is None else self._steps_per_epoch - steps_done
        self.source.begin_pass(self.cursor.passes, resumed=True)

    def end_epoch(self) -> None:
        """End the epoch; the next one begins a new pass unless this one left it unfinished."""
        self.source.end_pass()
        total = self.source.num_batches
        whole = self._steps_per_epoch is None or (total is not None and self.cursor.offset >= total)
        if whole and self.cursor.offset:
            self.cursor = Cursor(self.cursor.passes + 1, 0)

    def put_back(self, block: Block) -> None:
        """Take a block back that was not trained on; it is the next one again, for the next feed too."""
        self.source.put_back(*block.batches)
        self.cursor = Cursor(self.cursor.passes, self.cursor.offset - block.count)
        if self._left is not None:
            self._left += block.count

    def next_block(self, limit: int) -> Block | None:
        """Return the next batches of one shape, or None at the end of the epoch.

        Args:
            limit: Most batches to return, 1 or more.
        """
        if self._left is not None:
            limit = min(limit, self._left)
        if limit < 1:
            return None
        block = self._indexed_block(limit) if isinstance(self.source, IndexedSource) else self._given_block()
        if block is None:
            if self._left:
                _warn_ran_out()
            return None
        if self._left is not None:
            self._left -= block.count
        self.cursor = Cursor(self.cursor.passes, self.cursor.offset + block.count)
        return block

    def _indexed_block(self, limit: int) -> Block | None:
        source = self.source
        assert isinstance(source, IndexedSource)
        size, offset = source.batch_size, self.cursor.offset
        number, first, total = self.cursor.passes, offset * size, source.num_samples
        if first >= total:
            return None
        full = (total - first) // size
        if not source.is_dense:
            rows = source.order(number, first, min(first + size, total))
            return Block(count=1, samples=len(rows), batches=(source.take(rows),))
        count = self._count(source, min(limit, full)) if full else 1
        last = first + count * size if full else total
        samples = size if full else total - first
        if source.resident:
            return Block(count, samples, arrays=source.arrays, rows=source.order(number, first, last))
        room = samples * (self._block_steps or 1)
        return Block(count, samples, arrays=source.read(number, first, last, room=room))

    def _count(self, source: IndexedSource, most: int) -> int:
        if most > 1:
            if self._block_steps is None:
                self._block_steps = self._most_steps(source.peek())
            most = min(most, self._block_steps)
        return most

    def _given_block(self) -> Block | None:
        source = self.source
        if isinstance(source, StreamSource):
            try:
                batch = source.next_batch()
            except StopIteration:
                self._dry = self.cursor.offset == 0
                return None
        else:
            total = source.num_batches
            if total is not None and self.cursor.offset >= total:
                return None
            batch = source.batch(self.cursor.passes, self.cursor.offset)  # type: ignore[attr-defined]
        return Block(count=1, samples=batch_samples(batch), batches=(batch,))


def batch_samples(batch: Any) -> int:
    """Return how many samples a batch has: the length of its first array."""
    leaf = next(leaf for leaf in nested.flatten(batch) if leaf is not None)
    return int(leaf.shape[0])


def _warn_ran_out() -> None:
    # The words and the kind of warning are Keras's, which users filter by.
    warn(
        "Your input ran out of data; interrupting training. Make sure that your dataset or generator can generate "
        "at least `steps_per_epoch * epochs` batches. You may need to use the `.repeat()` function when building "
        "your dataset.",
        UserWarning,
    )
