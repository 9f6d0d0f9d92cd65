"""New samples with earlier ones mixed in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keepfit import nested
from keepfit.data.order import Permutation, rehearsal_seed
from keepfit.data.source import IndexedSource

if TYPE_CHECKING:
    from numpy.typing import NDArray


class RehearsedSource(IndexedSource):
    """A pass over new samples, each once, with earlier ones between them, evenly.

    Of N new samples and M places for earlier ones, ``floor(i * M / (N + M))``
    of these lie before place ``i``: any place of any pass is found without what
    came before it, and new samples come in the order they have alone. Earlier
    ones come in an order that goes on over passes, and each comes once before
    any comes again.

    Args:
        new: The new samples; dense.
        kept: Gives the earlier samples, called once and not before they are needed: the batch structure of
            ``new`` over all of them, with sample weights where either has them.
        like: What ``kept`` gives, of one sample or more.
        count: How many earlier samples there are, 1 or more.
        fraction: Share of earlier samples in a pass, above 0 and below 1.
        seed: Seed of the orders, 0 or more.
        shuffle: Whether earlier samples come in random order.

    Attributes:
        new: The new samples.
        old_count: How many earlier samples there are.
        old_places: How many of them come in a pass.
    """

    is_dense = True

    def __init__(
        self,
        new: IndexedSource,
        kept: Callable[[], Any],
        *,
        like: Any,
        count: int,
        fraction: float,
        seed: int,
        shuffle: bool,
    ) -> None:
        self.new = new
        self._load = kept
        self._kept: Any = None
        self._weights = keras.utils.unpack_x_y_sample_weight(like)[2]
        self.old_count = count
        self._seed = rehearsal_seed(seed)
        self._shuffle = shuffle
        self._permutation: tuple[int, Permutation] | None = None
        self.exactness = new.exactness
        self.old_places = places_of(new.num_samples, fraction)
        self.num_samples = new.num_samples + self.old_places
        self.batch_size = new.batch_size
        self.num_batches = -(-self.num_samples // self.batch_size)
        self.size_bytes = new.size_bytes + new.size_bytes // new.num_samples * count

    def peek(self) -> Any:
        """Return the first new samples, filled up with earlier ones where they are fewer than a batch."""
        missing = min(self.batch_size, self.num_samples) - self.new.num_samples
        if missing <= 0:
            return self._complete(self.new.peek())
        first = np.arange(self.new.num_samples, dtype=np.int64)
        return self.take(np.concatenate([first, self.new.num_samples + np.arange(missing) % self.old_count]))

    def order(self, number: int, start: int, stop: int) -> NDArray[np.int64]:
        """Return a stretch of a pass; earlier samples are counted on behind the new ones."""
        old, before = self._old(start, stop)
        order = np.empty(stop - start, np.int64)
        first, count = start - before, int(np.count_nonzero(~old))
        order[~old] = self.new.order(number, first, first + count)
        order[old] = self._old_rows(number, before, len(order) - count) + self.new.num_samples
        return order

    def take(self, indices: NDArray[np.int64]) -> Any:
        """Return samples by the numbers that `order` gives."""
        old = indices >= self.new.num_samples
        new = None if old.all() else self.new.take(indices[~old])
        return self._mixed(new, indices[old] - self.new.num_samples, old, room=0)

    def read(self, number: int, start: int, stop: int, *, room: int = 0) -> Any:
        """Return a stretch of a pass; the new samples in it are a stretch of theirs."""
        old, before = self._old(start, stop)
        first, count = start - before, int(np.count_nonzero(~old))
        if count == len(old):
            return self._complete(self.new.read(number, first, first + count, room=room))
        new = self.new.read(number, first, first + count) if count else None
        return self._mixed(new, self._old_rows(number, before, len(old) - count), old, room=room)

    def get_state(self) -> dict[str, Any] | None:
        """Return that of the new samples."""
        return self.new.get_state()

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Set that of the new samples."""
        self.new.set_state(state)

    def put_back(self, *batches: Any) -> None:
        """Put back new samples."""
        self.new.put_back(*batches)

    def take_told(self) -> list[str]:
        """Return what was said of the new samples."""
        return self.new.take_told()

    def close(self) -> None:
        """Let go of workers."""
        self.new.close()

    def _old(self, start: int, stop: int) -> tuple[NDArray[np.bool_], int]:
        """Return which places of a stretch have earlier samples, and how many lie before it."""
        whole, rest = divmod(start * self.old_places, self.num_samples)
        # Counted from the start of the stretch, so that products stay small.
        counts = (rest + np.arange(stop - start + 1, dtype=np.int64) * self.old_places) // self.num_samples
        return np.diff(counts) > 0, whole

    def _old_rows(self, number: int, start: int, count: int) -> NDArray[np.int64]:
        """Return which earlier samples come, from the ``start``-th of a pass on."""
        rows = np.empty(count, np.int64)
        first, done = number * self.old_places + start, 0
        while done < count:
            turn, at = divmod(first + done, self.old_count)
            length = min(count - done, self.old_count - at)
            rows[done : done + length] = self._turn(turn, at, at + length)
            done += length
        return rows

    def _turn(self, turn: int, start: int, stop: int) -> NDArray[np.int64]:
        if not self._shuffle:
            return np.arange(start, stop, dtype=np.int64)
        if self._permutation is None or self._permutation[0] != turn:
            self._permutation = (turn, Permutation(self._seed, turn, self.old_count))
        return self._permutation[1].stretch(start, stop)

    def _mixed(self, new: Any, rows: NDArray[np.int64], old: NDArray[np.bool_], *, room: int) -> Any:
        if self._kept is None:
            self._kept = self._load()
        theirs = nested.flatten(self._kept)
        mine = [None] * len(theirs) if new is None else nested.flatten(self._complete(new))
        size = max(room, len(old))
        mixed = [_joined(one, other, rows, old, size) for one, other in zip(mine, theirs, strict=True)]
        return nested.pack_sequence_as(self._kept, mixed)

    def _complete(self, batch: Any) -> Any:
        """Give new samples a weight of one where only earlier ones have weights."""
        x, y, weights = keras.utils.unpack_x_y_sample_weight(batch)
        if weights is not None or self._weights is None:
            return batch
        rows = next(leaf for leaf in nested.flatten(x) if leaf is not None).shape[0]
        ones = nested.map_structure(
            lambda leaf: np.ones((rows, *leaf.shape[1:]), leaf.dtype), self._weights, none_is_leaf=False
        )
        return keras.utils.pack_x_y_sample_weight(x, y, ones)


def _joined(new: Any, kept: Any, rows: NDArray[np.int64], old: NDArray[np.bool_], size: int) -> Any:
    """Return an array of ``size`` rows: new ones in their order, and rows of what is kept where ``old`` says so."""
    if kept is None:
        return None
    out = np.empty((size, *kept.shape[1:]), kept.dtype)
    if new is not None:
        out[: len(old)][~old] = new
    out[: len(old)][old] = kept[rows]
    return out


def places_of(count: int, fraction: float) -> int:
    """Return how many earlier samples come with ``count`` new ones in a pass: 1 or more.

    Example:
        >>> places_of(800, 0.2), places_of(3, 0.1)
        (200, 1)
    """
    return max(1, round(count * fraction / (1 - fraction)))
