"""The reservoir: a sample of bounded size of all data that a run has trained on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from numpy.typing import NDArray

from keepfit.data import EVERY, Sample, bound_of, row_arrays, sample_of
from keepfit.rehearsal.identity import SOURCE, Identity
from keepfit.rehearsal.kept import Kept, layout_of, rows_of
from keepfit.rehearsal.layout import Layout

if TYPE_CHECKING:
    from keepfit.data import IndexedSource
    from keepfit.rehearsal.register import Register

# Samples, where a fit asks for rehearsal and the run was not given a number.
DEFAULT_SIZE = 1000
# What is mixed into a fit lies in memory, so that it has a bound in bytes too.
MOST_BYTES = 1 << 28

Selection = list[tuple[Kept, NDArray[np.int64]]]


class Reservoir:
    """A uniform sample of the samples of all sources of a run, each source counted once.

    Every sample has a key, and those with the smallest keys are in. What a fit
    has brought is kept as it was in the sample when it came, and never changed:
    so any earlier place of the run has the sample it had.

    Args:
        register: What the run keeps.
        seed: Seed of the run.
        size: Samples at most.
    """

    def __init__(self, register: Register, *, seed: int, size: int = DEFAULT_SIZE) -> None:
        self._register = register
        self._seed = seed
        self.size = size

    def most(self, layout: Layout) -> int:
        """Return how many samples there may be, of which each takes so many bytes."""
        return max(1, min(self.size, MOST_BYTES // max(1, layout.row_bytes)))

    def before(self, fit: int, *, but: str) -> list[Kept]:
        """Return what fits before number ``fit`` brought and can be read, without the data of hash ``but``."""
        return [
            kept
            for kept in self._register.of(SOURCE)
            if kept.fit < fit and kept.data != but and self._register.arrays(kept) is not None
        ]

    def selected(self, kept: list[Kept]) -> Selection:
        """Return which rows of what is kept make a uniform sample of all of it together."""
        keys = [self._keys(each) for each in kept]
        bound = min((each.bound for each in kept), default=EVERY)
        together = np.concatenate([each[each <= np.uint64(bound)] for each in keys]) if keys else np.empty(0, np.uint64)
        most = min((self.most(Layout.from_json(each.layout)) for each in kept), default=1)
        bound = min(bound, bound_of(together, most))
        return [(each, np.flatnonzero(mine <= np.uint64(bound))) for each, mine in zip(kept, keys, strict=True)]

    def arrays(self, selection: Selection) -> list[list[NDArray[Any]]]:
        """Return the selected rows of each array, source by source."""
        found = []
        for kept, rows in selection:
            arrays = self._register.arrays(kept)
            assert arrays is not None
            found.append([np.asarray(array)[rows] for array in arrays[:-1]])
        return found

    def keep(self, source: IndexedSource, identity: Identity, *, fit: int, data: str, weighted: bool) -> Kept:
        """Keep samples of a source, unless they are kept already; what was damaged is made anew, bit for bit.

        Args:
            source: Dense samples.
            identity: Tells them from other data.
            fit: The fit that trains on them.
            data: Hash of what identifies them; empty where only reading them would tell.
            weighted: Whether sample weights are the data's own.

        Raises:
            StoreFull, StoreFailed, RunReadOnly: They could not be written.
        """
        if (whole := self._register.whole(SOURCE, data, fit=fit)) is not None:
            return whole
        found = self._register.find(SOURCE, data)
        layout, _ = layout_of(source, weighted=weighted)
        if found is not None:
            sample = sample_of(
                self._seed, found.number, source.num_samples, most=max(1, found.samples), bound=found.bound
            )
            kept = found
        else:
            others = self._register.of(SOURCE)
            number = self._register.next_number(SOURCE)
            keys = [self._keys(each) for each in others]
            sample = sample_of(
                self._seed,
                number,
                source.num_samples,
                most=self.most(layout),
                others=np.concatenate(keys) if keys else None,
                bound=min((each.bound for each in others), default=EVERY),
            )
            kept = Kept.of(source, sample, kind=SOURCE, fit=fit, data=data, number=number, layout=layout)
        if data:
            pieces = with_keys(source, sample.rows, sample.keys, weighted=weighted)
        else:
            # To read all of it twice may take hours; the samples fit into memory, where they will be mixed in.
            pieces = iter(list(_picked(identity.read(), sample, weighted=weighted)))
            kept = replace(kept, data=identity.content)
        self._register.add(kept, pieces)
        return kept

    def _keys(self, kept: Kept) -> NDArray[np.uint64]:
        arrays = self._register.arrays(kept)
        return np.empty(0, np.uint64) if arrays is None else np.asarray(arrays[-1])


def with_keys(
    source: IndexedSource, rows: NDArray[np.int64], keys: NDArray[np.uint64], *, weighted: bool
) -> Iterator[list[NDArray[Any]]]:
    """Yield rows of a source in pieces: their arrays, and last their keys."""
    done = 0
    for _, arrays in rows_of(source, rows, weighted=weighted):
        count = len(arrays[0])
        yield [*arrays, keys[done : done + count]]
        done += count


def _picked(pieces: Iterable[tuple[int, Any]], sample: Sample, *, weighted: bool) -> Iterator[list[NDArray[Any]]]:
    """Yield what `with_keys` does, of a source of which all rows are read in order."""
    for start, batch in pieces:
        size = len(row_arrays(batch)[0])
        first, stop = np.searchsorted(sample.rows, [start, start + size]).tolist()
        if first == stop:
            continue
        x, y, weights = keras.utils.unpack_x_y_sample_weight(batch)
        arrays = Layout.of(x, y, weights if weighted else None)[1]
        rows = sample.rows[first:stop] - start
        yield [*(array[rows] for array in arrays), sample.keys[first:stop]]
