"""Samples of bounded size: they are uniform, merge and shrink, and hang on nothing but seed, source and row."""

from __future__ import annotations

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from keepfit.data import EVERY, bound_of, sample_of, sampling
from keepfit.data.order import sample_keys

counts = strategies.lists(strategies.integers(1, 400), min_size=1, max_size=6)
sizes = strategies.integers(1, 300)
seeds = strategies.integers(0, 2**70)


def taken_in(seed: int, sources: list[int], most: int) -> list[tuple[int, int]]:
    """Return (source, row) of what is in the sample after sources came one after another, as a reservoir takes them."""
    keys, rows, bound = np.empty(0, np.uint64), [], EVERY
    for number, count in enumerate(sources):
        sample = sample_of(seed, number, count, most=most, others=keys, bound=bound)
        keys, bound = np.concatenate([keys, sample.keys]), sample.bound
        rows += [(number, row) for row in sample.rows.tolist()]
    return [row for row, key in zip(rows, keys.tolist(), strict=True) if key <= bound]


def smallest(seed: int, sources: list[int], most: int) -> list[tuple[int, int]]:
    """Return (source, row) of the smallest keys of all, worked out at once."""
    keys = [
        (int(key), number, row)
        for number, count in enumerate(sources)
        for row, key in enumerate(sample_keys(seed, number, 0, count))
    ]
    return sorted((number, row) for _, number, row in sorted(keys)[:most])


@hypothesis.given(seed=seeds, sources=counts, most=sizes)
def test_samples_that_come_one_after_another_are_the_smallest_keys_of_all(
    seed: int, sources: list[int], most: int
) -> None:
    """Merged source by source, the sample is that of all sources together, and is bounded."""
    found = taken_in(seed, sources, most)
    assert sorted(found) == smallest(seed, sources, most)
    assert len(found) == min(most, sum(sources))


@hypothesis.given(seed=seeds, sources=counts, most=sizes, less=sizes)
def test_a_smaller_sample_lies_in_a_larger_one(seed: int, sources: list[int], most: int, less: int) -> None:
    """A reservoir can be made smaller without looking at the data again."""
    small, large = sorted((less, most))
    assert set(taken_in(seed, sources, small)) <= set(taken_in(seed, sources, large))


def test_keys_do_not_depend_on_how_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Piece by piece as at once."""
    whole = sample_of(3, 1, 5000, most=77)
    monkeypatch.setattr(sampling, "_CHUNK", 100)
    pieces = sample_of(3, 1, 5000, most=77)
    assert (pieces.rows.tolist(), pieces.keys.tolist(), pieces.bound) == (
        whole.rows.tolist(),
        whole.keys.tolist(),
        whole.bound,
    )
    assert np.array_equal(sample_keys(3, 1, 10, 20), sample_keys(3, 1, 0, 20)[10:])


def test_another_seed_or_source_gives_another_sample() -> None:
    """The control of the tests above: keys are no constants."""
    samples = [sample_of(seed, source, 1000, most=50).rows.tolist() for seed, source in ((0, 0), (1, 0), (0, 1))]
    assert len({tuple(sample) for sample in samples}) == 3


def test_a_sample_is_uniform_over_rows_and_sources() -> None:
    """Over 400 seeds every row of two sources comes about equally often.

    Each of 60 rows is in with a chance of 1/3: the mean of 400 has a deviation of 0.0236, and six of these are allowed.
    """
    hits = np.zeros(60)
    for seed in range(400):
        for source, row in taken_in(seed, [40, 20], 20):
            hits[row + 40 * source] += 1
    assert np.all(np.abs(hits / 400 - 1 / 3) < 6 * 0.0236)


def test_the_bound_lets_all_in_where_there_is_room() -> None:
    """No sample is lost before the reservoir is full."""
    assert bound_of(np.arange(5, dtype=np.uint64), 5) == EVERY
    assert bound_of(np.arange(5, dtype=np.uint64), 4) == 3
    assert sample_of(1, 0, 9, most=9).rows.tolist() == list(range(9))
