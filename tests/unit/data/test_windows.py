"""The order over partitions: every sample once, in windows, wherever it is cut."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepfit.data import Permutation, epoch_order
from keepfit.data.order import Stretches
from keepfit.data.partitioned.windows import WindowedOrder, tagged

SIZES = st.lists(st.integers(0, 40), min_size=1, max_size=9).filter(any)


@given(SIZES, st.integers(1, 10), st.integers(0, 2**70), st.integers(0, 3))
def test_a_pass_visits_every_sample_once(sizes, window, seed, number):
    """Whatever the sizes, empty partitions too, a pass is a permutation of the samples."""
    order = WindowedOrder(sizes, window=window, seed=seed).stretch(number, 0, sum(sizes))
    assert sorted(order.tolist()) == list(range(sum(sizes)))


@given(SIZES, st.integers(1, 10), st.data())
def test_an_order_does_not_depend_on_where_it_is_cut(sizes, window, data):
    """Stretches asked for one after another, from a new object too, are the stretches of the whole."""
    total = sum(sizes)
    cut = data.draw(st.integers(0, total))
    whole = WindowedOrder(sizes, window=window, seed=3).stretch(2, 0, total)
    begun = WindowedOrder(sizes, window=window, seed=3)
    begun.stretch(1, 0, total)
    assert np.array_equal(begun.stretch(2, 0, cut), whole[:cut])
    assert np.array_equal(WindowedOrder(sizes, window=window, seed=3).stretch(2, cut, total), whole[cut:])


@given(SIZES, st.integers(0, 5))
def test_a_window_over_all_partitions_is_the_order_in_memory(sizes, more):
    """As many places as there are partitions with samples, or more: the order of an array of the same length."""
    window = sum(size > 0 for size in sizes) + more
    order = WindowedOrder(sizes, window=window, seed=11).stretch(4, 0, sum(sizes))
    assert np.array_equal(order, epoch_order(11, 4, sum(sizes)))


@given(SIZES, st.integers(1, 10))
def test_samples_come_from_the_partitions_of_the_window(sizes, window):
    """At every place the sample is of a partition that is said to be in use there, and no more than the window are."""
    order = WindowedOrder(sizes, window=window, seed=5)
    owners = np.repeat(np.arange(len(sizes)), sizes)
    for place, sample in enumerate(order.stretch(0, 0, sum(sizes))):
        members = order.partitions_at(0, place)
        assert owners[sample] in members
        assert len(members) <= window


def test_what_comes_next_is_what_the_next_block_needs():
    """The partition that is announced is the only one of the next block that is not there yet, over passes too."""
    order = WindowedOrder([10] * 6, window=3, seed=1)
    for number in (0, 1):
        for block in range(6):
            here, coming = order.partitions_at(number, 10 * block), order.partitions_after(number, 10 * block, 1)
            after = order.partitions_at(*((number, 10 * (block + 1)) if block < 5 else (number + 1, 0)))
            assert coming == [part for part in after if part not in here][:1]


def test_each_partition_is_spread_over_as_many_blocks_as_the_window_has_places():
    """Sorted data still mixes: a third of each partition comes in each of three blocks."""
    sizes = [300] * 6
    order = WindowedOrder(sizes, window=3, seed=2).stretch(0, 0, 1800)
    owners = np.repeat(np.arange(6), sizes)[order].reshape(6, 300)
    counts = np.array([np.bincount(block, minlength=6) for block in owners])
    assert sorted(counts.ravel().tolist()) == [0] * 18 + [100] * 18


@given(SIZES, st.integers(1, 10), st.data())
def test_blocks_that_are_worked_out_as_a_whole_are_those_of_samples_one_by_one(sizes, window, data):
    """Two ways to the same order, so that runs of earlier versions and of larger partitions go on in theirs."""
    total = sum(sizes)
    start = data.draw(st.integers(0, total))
    found = []
    for longest in (0, 1 << 18):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("keepfit.data.partitioned.windows._WHOLE_BLOCK", longest)
            order = WindowedOrder(sizes, window=window, seed=2**66 + 5)
            found.append(np.concatenate([order.stretch(3, start, total), order.stretch(3, 0, start)]))
    assert np.array_equal(*found)


def test_passes_seeds_and_windows_have_orders_of_their_own():
    """Another pass, seed or window gives another order."""
    sizes = [50] * 5
    orders = {
        tuple(WindowedOrder(sizes, window=window, seed=seed).stretch(number, 0, 250).tolist())
        for window in (1, 2, 5)
        for seed in (0, 1)
        for number in (0, 1)
    }
    assert len(orders) == 12


def test_an_order_stays_for_ever():
    """The order of a small example, written down: a later version must give the same."""
    order = WindowedOrder([3, 0, 4, 2], window=2, seed=7)
    assert order.stretch(0, 0, 9).tolist() == EXPECTED


EXPECTED = [7, 6, 4, 2, 5, 3, 8, 0, 1]


def test_a_far_place_costs_no_more_than_a_near_one():
    """In a source of a million million samples a stretch in the middle is worked out by itself."""
    far = WindowedOrder([10**9] * 1000, window=4, seed=3)
    middle = far.stretch(5, 5 * 10**11, 5 * 10**11 + 1000)
    assert len(set(middle.tolist())) == 1000
    assert np.array_equal(middle[100:], far.stretch(5, 5 * 10**11 + 100, 5 * 10**11 + 1000))


def test_a_permutation_in_stretches_is_the_whole_one():
    """Tables, which long stretches use, change nothing; sizes on both sides of their limits."""
    for count in (10, 1024, 1025, 40_000):
        whole = epoch_order(9, 2, count)
        assert np.array_equal(Permutation(9, 2, count).at(np.arange(count)), whole)
        assert np.array_equal(Permutation(9, 2, count).stretch(count // 3, count), whole[count // 3 :])


@pytest.mark.parametrize("length", [1, 7, 100])
def test_stretches_are_worked_out_as_they_are_asked_for(length):
    """Small stretches, back and forth and over passes, are those of the whole."""
    asked = Stretches(lambda number, start, stop: np.arange(start, stop) * (number + 1), count=50, length=length)
    for number, start, stop in ((0, 0, 5), (0, 5, 12), (1, 5, 12), (1, 0, 50), (0, 49, 50), (0, 3, 3)):
        assert np.array_equal(asked.get(number, start, stop), np.arange(start, stop) * (number + 1))


def test_a_seed_that_is_tagged_with_zeros_stays_itself():
    """Seeds of any size make room for their tags."""
    assert tagged(5, 0, 0) == 5
    assert tagged(2**100, 1, 0) != tagged(2**100, 0, 1)
