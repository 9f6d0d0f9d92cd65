"""Earlier samples between new ones: each new one once a pass, the share right, any place at any time."""

from __future__ import annotations

from collections import Counter
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

import keepfit
from keepfit.data import RehearsedSource, training_source
from keepfit.data.rehearsed import places_of

PASSES = 4


def mixed(new: int, kept: int, fraction: float, *, shuffle: Any = True, batch_size: int = 7, **how: Any) -> Any:
    """Return a source whose new samples are 0, 1, … and whose earlier ones are -1, -2, …, and its call counter."""
    x = np.arange(new, dtype="float32")
    data = (x, x * 2)
    if how.get("in_partitions"):
        cuts = np.array_split(np.arange(new), 4)
        parts = [lambda rows=rows: (x[rows], x[rows] * 2) for rows in cuts if len(rows)]
        data = (keepfit.partitions(parts, window=2),)
    source = training_source(*data, batch_size=batch_size, shuffle=shuffle, seed=5)
    old = -np.arange(1, kept + 1, dtype="float32")
    return RehearsedSource(
        source,
        lambda: (old, old * 2),
        like=(old, old * 2),
        count=kept,
        fraction=fraction,
        seed=5,
        shuffle=bool(shuffle),
    )


@hypothesis.given(
    new=strategies.integers(1, 120),
    kept=strategies.integers(1, 40),
    fraction=strategies.floats(0.001, 0.9),
    shuffle=strategies.sampled_from([True, False, "batch"]),
    in_partitions=strategies.booleans(),
)
def test_every_new_sample_comes_once_a_pass(
    new: int, kept: int, fraction: float, shuffle: Any, in_partitions: bool
) -> None:
    """The rest are earlier ones, as many as the fraction says, and each of these about as often as any other."""
    source = mixed(new, kept, fraction, shuffle=shuffle, in_partitions=in_partitions)
    assert source.num_samples == new + places_of(new, fraction)
    seen: Counter[float] = Counter()
    for number in range(PASSES):
        x, y = source.read(number, 0, source.num_samples)
        assert np.array_equal(y, x * 2)
        assert sorted(x[x >= 0].tolist()) == list(range(new))
        seen.update(x[x < 0].tolist())
    counts = [seen[-float(row)] for row in range(1, kept + 1)]
    assert sum(counts) == PASSES * places_of(new, fraction)
    assert max(counts) - min(counts) <= 1


@hypothesis.given(
    new=strategies.integers(1, 120),
    kept=strategies.integers(1, 40),
    fraction=strategies.floats(0.01, 0.9),
    shuffle=strategies.sampled_from([True, False, "batch"]),
    number=strategies.integers(0, 5),
    data=strategies.data(),
)
def test_a_stretch_of_a_pass_is_that_of_the_whole(
    new: int, kept: int, fraction: float, shuffle: Any, number: int, data: Any
) -> None:
    """Read, and taken by the order, from any place on; a source that has read before and a new one agree."""
    source, other = (mixed(new, kept, fraction, shuffle=shuffle) for _ in range(2))
    whole = source.read(number, 0, source.num_samples)[0]
    start = data.draw(strategies.integers(0, source.num_samples - 1))
    stop = data.draw(strategies.integers(start + 1, source.num_samples))
    expected = whole[start:stop].tolist()
    assert other.read(number, start, stop)[0].tolist() == expected
    assert other.take(other.order(number, start, stop))[0].tolist() == expected
    roomy = other.read(number, start, stop, room=stop - start + 9)[0]
    assert roomy[: stop - start].tolist() == expected


def test_new_samples_keep_the_order_they_have_alone() -> None:
    """What is mixed in lies between them, evenly: no stretch has more than its share by more than one."""
    source = mixed(800, 50, 0.2)
    alone = training_source(np.arange(800, dtype="float32"), batch_size=7, seed=5)
    x = source.read(3, 0, 1000)[0]
    assert np.array_equal(x[x >= 0], alone.take(alone.order(3, 0, 800)))
    until = np.cumsum(x < 0)
    assert np.all(np.abs(until - 0.2 * np.arange(1, 1001)) <= 1)


def test_places_are_exact_at_any_size() -> None:
    """Products of sizes beyond 64 bits do not overflow."""
    source = mixed(10, 10, 0.5)
    source.num_samples, source.old_places = 3 * 10**12, 10**12
    start = 2 * 10**12 + 1
    old, before = source._old(start, start + 3000)
    assert before == start * 10**12 // (3 * 10**12)
    assert int(old.sum()) == 1000


def test_samples_fewer_than_a_batch_are_looked_at_with_earlier_ones() -> None:
    """A look at the data has the size of the batches to come."""
    source = mixed(3, 2, 0.7, batch_size=32)
    assert source.num_samples == 10
    assert source.peek()[0].tolist() == [0, 1, 2, -1, -2, -1, -2, -1, -2, -1]


@pytest.mark.parametrize("weighted", ["new", "kept"])
def test_weights_on_one_side_are_ones_on_the_other(weighted: str) -> None:
    """New samples get a weight of one where earlier ones have weights; the other case is what the reservoir fills."""
    x, old = np.arange(8, dtype="float32"), -np.ones(2, "float32")
    weights = (np.full(8, 3.0, "float32"),) if weighted == "new" else ()
    source = training_source(x, x, *weights, batch_size=4, seed=1)
    kept = (old, old, np.full(2, 5.0, "float32"))
    mixture = RehearsedSource(source, lambda: kept, like=kept, count=2, fraction=0.2, seed=1, shuffle=True)
    x, _, w = mixture.read(0, 0, 10)
    assert set(w[x >= 0].tolist()) == ({3.0} if weighted == "new" else {1.0})
    assert set(w[x < 0].tolist()) == {5.0}
    assert mixture.peek()[2].tolist() == [3.0 if weighted == "new" else 1.0] * 4
