"""Places for partitions in memory, and which partition a sample is of."""

import mmap
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepfit import errors
from keepfit.data import partitions, training_source
from keepfit.data.partitioned.loading import Layout
from keepfit.data.partitioned.owners import Owners
from keepfit.data.partitioned.room import Room


def numbers(start, stop):
    return np.arange(start, stop, dtype="float32")[:, None], np.arange(start, stop)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=9).filter(any), st.sampled_from([1, 4, 1 << 14]))
def test_every_sample_has_its_partition(sizes, stretches):
    """Even and uneven sizes, empty partitions, few stretches and many: as a search finds them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("keepfit.data.partitioned.owners._STRETCHES", stretches)
        owners = Owners(np.array(sizes))
    found = owners.of(np.arange(sum(sizes)))
    assert np.array_equal(found, np.repeat(np.arange(len(sizes)), sizes))
    assert found.dtype == np.int64


def test_many_partitions_have_their_samples():
    """Of more than are looked up."""
    sizes = np.arange(5000) % 3
    assert np.array_equal(Owners(sizes).of(np.arange(sizes.sum())), np.repeat(np.arange(5000), sizes))


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED"), reason="this system takes no memory back")
def test_a_place_gives_back_what_a_smaller_partition_does_not_fill():
    """Pages that went back to the system come again as zeros; the places beside are as they were."""
    layout = Layout.of((np.zeros((1, 16), "float32"), np.zeros(1, "int32"), None))
    room = Room(layout, places=3, rows=5000)
    for place in range(3):
        for array in room.arrays_of(place, 5000):
            array[...] = place + 1
    kept = room.arrays_of(1, 100)
    assert [len(array) for array in kept] == [100, 100]
    for array in room.arrays:
        places = array.reshape(3, -1)
        assert np.all(places[0] == 1)
        assert np.all(places[2] == 3)
        assert np.all(places[1][: 100 * array[0].size] == 2)
        pages = mmap.PAGESIZE // array.itemsize
        assert np.all(places[1][100 * array[0].size + pages : -pages] == 0)


def test_a_thread_that_was_given_up_fills_no_place_that_is_in_use():
    """It ends late, and writes what it read: the rows of the next try are whole all the same."""
    begun, release, done = threading.Event(), threading.Event(), threading.Event()
    late, before = [True], threading.enumerate()

    def hangs():
        if late:
            late.clear()
            begun.set()
            release.wait(60)
            done.set()
            return np.full((4, 1), -1, "float32"), np.full(4, -1)
        return numbers(4, 8)

    data = partitions([lambda: numbers(0, 4), hangs], sizes=[4, 4], window=1, timeout_s=0.05)
    source = training_source(data, batch_size=4, seed=0, shuffle=False)
    with pytest.raises(errors.PartitionFailed, match="not read within"):
        source.read(0, 4, 8)
    assert begun.is_set()
    threads = [thread for thread in threading.enumerate() if thread not in before]
    assert threads
    data.settings.__dict__["timeout_s"] = 60.0
    first = source.read(0, 0, 8)[1]
    release.set()
    assert done.wait(60)
    for thread in threads:
        thread.join(60)
    assert first.tolist() == source.read(0, 0, 8)[1].tolist() == list(range(8))


def test_a_partition_that_hangs_and_is_not_needed_does_not_stop_the_others():
    """Read ahead, and given up when its place is needed: another room, and the rows that are asked for."""
    release = threading.Event()

    def hangs():
        release.wait(60)
        return numbers(8, 12)

    made = [lambda: numbers(0, 4), lambda: numbers(4, 8), hangs, lambda: numbers(12, 16)]
    data = partitions(made, sizes=[4] * 4, window=1, timeout_s=0.2)
    source = training_source(data, batch_size=4, seed=0, shuffle=False)
    assert source.read(0, 0, 4)[1].tolist() == [0, 1, 2, 3]  # and begins to read the one after the next
    room = data.shelf.room
    assert source.read(0, 12, 16)[1].tolist() == [12, 13, 14, 15]
    assert data.shelf.room is not room
    with pytest.raises(errors.PartitionFailed, match=r"Partition 2 .* not read within") as raised:
        source.read(0, 4, 12)
    assert raised.value.partition == 2
    release.set()
    assert source.read(0, 4, 12)[1].tolist() == list(range(4, 12))
