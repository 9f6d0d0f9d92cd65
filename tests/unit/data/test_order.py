"""Orders: every sample once, the same for ever, and well mixed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepfit.data import batch_order, epoch_order, order_at

PIN_SMALL = [4, 1, 8, 5, 0, 9, 2, 3, 6, 7]
PIN_WIDE_SEED = [1, 9, 6, 7, 2, 8, 5, 4, 3, 0]
PIN_LARGE = [534, 323, 1974, 1418, 4588, 4628, 285, 2523]
PIN_HUGE = [906929967239, 364798832332, 625223756631, 777194354400]
PIN_BATCH = [2, 4, 1, 0, 5, 3, 8, 7, 10, 6, 9, 11, 12]

seeds = st.integers(min_value=0, max_value=2**128 - 1)
epochs = st.integers(min_value=0, max_value=10**6)


@settings(max_examples=60, deadline=None)
@given(seed=seeds, epoch=epochs, count=st.integers(min_value=1, max_value=5000))
def test_epoch_order_holds_every_sample_once(seed, epoch, count):
    """An epoch visits every sample exactly once, whatever the seed, epoch and size."""
    order = epoch_order(seed, epoch, count)
    assert order.dtype == np.int64
    assert np.array_equal(np.sort(order), np.arange(count))


@settings(max_examples=60, deadline=None)
@given(seed=seeds, epoch=epochs, count=st.integers(min_value=1, max_value=5000), data=st.data())
def test_order_at_is_a_part_of_the_epoch_order(seed, epoch, count, data):
    """Seeking any positions gives what the whole order has there."""
    positions = np.array(data.draw(st.lists(st.integers(0, count - 1), max_size=20)), dtype=np.int64)
    assert np.array_equal(order_at(seed, epoch, count, positions), epoch_order(seed, epoch, count)[positions])


@settings(max_examples=60, deadline=None)
@given(seed=seeds, epoch=epochs, count=st.integers(1, 500), batch_size=st.integers(1, 600))
def test_batch_order_stays_within_its_batches(seed, epoch, count, batch_size):
    """Shuffling within batches moves no sample to another batch and loses none."""
    order = batch_order(seed, epoch, count, batch_size)
    for start in range(0, count, batch_size):
        stop = min(start + batch_size, count)
        assert sorted(order[start:stop].tolist()) == list(range(start, stop))


def test_orders_are_pinned():
    """Orders never change between versions, or runs recorded before would go on wrongly."""
    assert epoch_order(7, 0, 10).tolist() == PIN_SMALL
    assert epoch_order(2**127 + 5, 3, 10).tolist() == PIN_WIDE_SEED
    assert epoch_order(7, 1, 5000)[:8].tolist() == PIN_LARGE
    assert order_at(7, 2, 10**12, np.arange(4)).tolist() == PIN_HUGE
    assert batch_order(7, 1, 13, 6).tolist() == PIN_BATCH


@pytest.mark.parametrize("count", [1024, 1025, 1089, 2048, 4096, 99_999])
def test_sizes_around_changes_of_method_are_permutations(count):
    """Sizes at the border between methods, squares and powers of two lose no sample."""
    assert np.array_equal(np.sort(epoch_order(1, 2, count)), np.arange(count))


@pytest.mark.parametrize("count", [50, 2000])
def test_places_are_uniform_over_epochs(count):
    """Over many epochs each sample comes at every place about equally often."""
    epochs = 600
    early = np.zeros(count)
    first = np.zeros(count)
    for epoch in range(epochs):
        order = epoch_order(11, epoch, count)
        early[order[: count // 2]] += 1
        first[order[0]] += 1
    # A sample comes in the first half binomially often; six standard deviations never happen by chance.
    assert np.all(np.abs(early - epochs / 2) < 6 * np.sqrt(epochs / 4))
    assert first.max() < 6 * np.sqrt(epochs / count) + epochs / count + 6


@pytest.mark.parametrize("count", [60, 5000])
def test_epochs_seeds_and_neighbours_are_unrelated(count):
    """Two epochs or seeds share few places, and neighbours in the data do not stay neighbours."""
    base = epoch_order(3, 0, count)
    for other in (epoch_order(3, 1, count), epoch_order(4, 0, count), epoch_order(3 + 2**64, 0, count)):
        assert np.sum(base == other) < 12  # one in expectation
        assert abs(np.corrcoef(base, other)[0, 1]) < 6 / np.sqrt(count)
    # Of two neighbours in the order, two in expectation per epoch are neighbours in the data.
    assert np.sum(np.abs(np.diff(base)) == 1) < 16
    assert abs(np.corrcoef(base, np.arange(count))[0, 1]) < 6 / np.sqrt(count)


def test_small_permutations_are_equally_likely():
    """Each of the 24 orders of four samples comes about equally often."""
    counts: dict[tuple, int] = {}
    for epoch in range(4800):
        order = tuple(epoch_order(5, epoch, 4).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    assert all(abs(count - 200) < 6 * np.sqrt(200) for count in counts.values())


def test_bad_arguments_raise():
    """Sizes, seeds, epochs and positions out of range are refused."""
    for arguments in ((1, 0, 0), (-1, 0, 5), (1, -1, 5)):
        with pytest.raises(ValueError, match="must be"):
            epoch_order(*arguments)
    with pytest.raises(ValueError, match="positions"):
        order_at(1, 0, 5, np.array([5]))
    with pytest.raises(ValueError, match="batch_size"):
        batch_order(1, 0, 5, 0)
