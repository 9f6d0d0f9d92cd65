"""Which sample of which partition comes when: a window of partitions is mixed at a time.

The partitions come in an order of their own in each pass. Each is cut into as
many slices as the window has places, after its rows were permuted. Block *b*
of a pass mixes slice *j* of the partition that came *j* blocks before, for all
*j*: so from one block to the next one partition leaves and one comes, and each
is spread over as many blocks as the window has places. At the beginning of a
pass the last partitions stand for those that came before.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from keepfit.data.order import Permutation

_TURN, _MIX, _ROWS = 1, 2, 3
# A block up to here (2 MB of numbers) is worked out as a whole where a good part of it is asked for: its rows come in
# their order then, and each sample is looked up. Of a larger one only what is asked for is worked out.
_WHOLE_BLOCK = 1 << 18
_WORTH_IT = 4


class WindowedOrder:
    """The order of samples over partitions: a pure function of seed, pass, sizes and window.

    A sample is known by its number, counted through the partitions as they
    were given. Where the window covers all partitions that hold anything, the
    order is `epoch_order` of that many samples, that of arrays in memory.

    Args:
        sizes: Samples in each partition, 0 or more; 1 or more in all.
        window: Partitions that are mixed at once, 1 or more.
        seed: Seed of the run, 0 or more.

    Example:
        >>> order = WindowedOrder([3, 0, 4], window=1, seed=7)
        >>> sorted(order.stretch(0, 0, 7).tolist())
        [0, 1, 2, 3, 4, 5, 6]
    """

    def __init__(self, sizes: Sequence[int] | NDArray[np.int64], *, window: int, seed: int) -> None:
        every = np.asarray(sizes, dtype=np.int64)
        self._numbers = np.flatnonzero(every)
        self._sizes = every[self._numbers]
        self._starts = np.cumsum(self._sizes) - self._sizes
        self.count = int(self._sizes.sum())
        self._window = min(window, len(self._sizes))
        self._seed = seed
        self._pass: _Pass | None = None

    def stretch(self, number: int, start: int, stop: int) -> NDArray[np.int64]:
        """Return the samples at places ``start`` to ``stop - 1`` of pass ``number``, each in ``[0, count)``."""
        return self._of(number).stretch(start, stop)

    def block_of(self, number: int, place: int) -> tuple[int, int]:
        """Return what tells the block that a place of pass ``number`` is in from all others."""
        return number, self._of(number).block_of(place)

    def partitions_at(self, number: int, place: int) -> list[int]:
        """Return the partitions that are mixed at a place of pass ``number``, in the order in which they came."""
        return self._numbers[self._of(number).members(place)].tolist()  # type: ignore[no-any-return]

    def partitions_after(self, number: int, place: int, count: int) -> list[int]:
        """Return the partitions that come next, ``count`` at most; after the last block those of the next pass."""
        coming, here = self._of(number), set(self._of(number).members(place).tolist())
        block = coming.block_of(place)
        found = [int(part) for part in coming.turn[block + 1 : block + 1 + count] if int(part) not in here]
        if block + 1 + count > coming.blocks and not coming.is_whole:
            following = _Pass(self._sizes, self._starts, window=self._window, seed=self._seed, number=number + 1)
            found += [int(part) for part in following.members(0) if int(part) not in here]
        return self._numbers[found[:count]].tolist() if found else []

    def _of(self, number: int) -> _Pass:
        if self._pass is None or self._pass.number != number:
            self._pass = _Pass(self._sizes, self._starts, window=self._window, seed=self._seed, number=number)
        return self._pass


class _Pass:
    """One pass; partitions are counted without the empty ones."""

    def __init__(
        self, sizes: NDArray[np.int64], starts: NDArray[np.int64], *, window: int, seed: int, number: int
    ) -> None:
        self.number = number
        self.is_whole = window >= len(sizes)
        self._seed, self._sizes, self._starts, self._window = seed, sizes, starts, window
        self._kept: dict[tuple[int, int], Permutation] = {}
        self._unmixed: tuple[int, NDArray[np.int64]] | None = None
        if self.is_whole:
            self.turn, self._block_starts = np.arange(len(sizes)), np.array([0, sizes.sum()])
        else:
            self.turn = self._permutation(_TURN, 0, len(sizes)).stretch(0, len(sizes))
            turned = sizes[self.turn]
            lengths = sum(
                np.roll(_slice_end(turned, j, window) - _slice_start(turned, j, window), j) for j in range(window)
            )
            self._block_starts = np.concatenate([[0], np.cumsum(lengths)])
        self.blocks = len(self._block_starts) - 1

    def block_of(self, place: int) -> int:
        """Return the block that a place is in; the last one for the end of the pass."""
        return min(int(np.searchsorted(self._block_starts, place, side="right")) - 1, self.blocks - 1)

    def members(self, place: int) -> NDArray[np.int64]:
        """Return the partitions of the block that a place is in."""
        if self.is_whole:
            return self.turn
        return self.turn[(self.block_of(place) - np.arange(self._window)) % len(self.turn)][::-1]

    def stretch(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the samples of a stretch, block after block."""
        parts = []
        while start < stop:
            block = self.block_of(start)
            until = min(stop, int(self._block_starts[block + 1]))
            first = int(self._block_starts[block])
            parts.append(self._in_block(block, start - first, until - first))
            start = until
        return parts[0] if len(parts) == 1 else np.concatenate([*parts, np.empty(0, np.int64)])

    def _in_block(self, block: int, start: int, stop: int) -> NDArray[np.int64]:
        length = int(self._block_starts[block + 1] - self._block_starts[block])
        if self.is_whole:
            return self._permutation(0, 0, length).stretch(start, stop)
        members = self.turn[(block - np.arange(self._window)) % len(self.turn)]
        slices = np.arange(self._window)
        begins = _slice_start(self._sizes[members], slices, self._window)
        ends = np.cumsum(_slice_end(self._sizes[members], slices, self._window) - begins)
        mixed = self._permutation(_MIX, block, length).stretch(start, stop)
        if length <= min(_WHOLE_BLOCK, _WORTH_IT * (stop - start)) or (self._unmixed and self._unmixed[0] == block):
            return self._whole(block, members, begins, ends)[mixed]
        places = np.searchsorted(ends, mixed, side="right")
        samples = np.empty(stop - start, np.int64)
        for j in np.unique(places):
            mine = places == j
            part, before = int(members[j]), int(ends[j - 1]) if j else 0
            rows = self._permutation(_ROWS, part, int(self._sizes[part])).at(mixed[mine] - before + begins[j])
            samples[mine] = rows + self._starts[part]
        return samples

    def _whole(
        self, block: int, members: NDArray[np.int64], begins: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return the samples of a block before they are mixed: slice after slice, each in the order of its rows."""
        if self._unmixed is None or self._unmixed[0] != block:
            samples = np.empty(int(ends[-1]), np.int64)
            starts = [0, *ends.tolist()]
            for j, part in enumerate(members.tolist()):
                rows = self._permutation(_ROWS, part, int(self._sizes[part]))
                first, length = int(begins[j]), starts[j + 1] - starts[j]
                np.add(rows.stretch(first, first + length), self._starts[part], out=samples[starts[j] : starts[j + 1]])
            self._unmixed = (block, samples)
        return self._unmixed[1]

    def _permutation(self, kind: int, which: int, count: int) -> Permutation:
        key = (kind, which)
        if key not in self._kept:
            if len(self._kept) > 2 * self._window:
                self._kept.clear()
            self._kept[key] = Permutation(tagged(self._seed, kind, which), self.number, count)
            self._kept[key].prepare()
        return self._kept[key]


def tagged(seed: int, kind: int, which: int) -> int:
    """Return a seed for one use of a seed; ``kind`` and ``which``, less than 2**64, change nothing where both are 0."""
    beyond = 64 * max(1, -(-seed.bit_length() // 64))
    return seed + (kind << beyond) + (which << (beyond + 64))


def _slice_start(sizes: NDArray[np.int64], slices: NDArray[np.int64] | int, window: int) -> NDArray[np.int64]:
    return sizes * slices // window


def _slice_end(sizes: NDArray[np.int64], slices: NDArray[np.int64] | int, window: int) -> NDArray[np.int64]:
    return sizes * (slices + 1) // window
