"""Stores with random access as they are: HDF5 and Zarr arrays, and objects that give one sample for an index."""

import importlib.util

import numpy as np
import pytest

from keepfit import errors
from keepfit.data import describe_difference, fingerprint, training_source
from keepfit.data.order import epoch_order

COUNT = 23
X = np.arange(COUNT * 2, dtype="float64").reshape(COUNT, 2)
Y = np.arange(COUNT)


def hdf5(folder):
    import h5py

    file = h5py.File(folder / "a.h5", "w")
    file["x"] = X
    return file["x"]


def zarr(folder):
    if importlib.util.find_spec("zarr") is None:
        pytest.skip("zarr is not installed")
    import zarr

    array = zarr.create_array(str(folder / "a.zarr"), shape=X.shape, chunks=(5, 2), dtype="float64")
    array[:] = X
    return array


@pytest.mark.parametrize("store", [hdf5, zarr])
@pytest.mark.parametrize("shuffle", [True, False, "batch"])
def test_stored_arrays_give_the_batches_of_memory(store, shuffle, tmp_path):
    """Beside targets in memory, in the same order, converted as in memory; and with the same fingerprint."""
    stored = store(tmp_path)
    source, memory = (training_source(x, Y, batch_size=4, seed=3, shuffle=shuffle) for x in (stored, X))
    assert not source.resident
    for mine, other in zip(source.read(2, 0, COUNT), memory.read(2, 0, COUNT), strict=True):
        assert mine.dtype == other.dtype
        assert np.array_equal(mine, other)
    assert describe_difference(fingerprint(X), fingerprint(stored)) is None


class Samples:
    """One sample for an index, and the indices that were asked for."""

    def __init__(self, count=COUNT):
        self.count, self.asked = count, []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.asked.append(index)
        return X[index], Y[index]


@pytest.mark.parametrize("shuffle", [True, False])
def test_objects_with_a_length_and_samples_give_the_batches_of_memory(shuffle):
    """Each sample is asked for when it is needed, in the order of arrays."""
    data = Samples()
    source = training_source(data, batch_size=4, seed=3, shuffle=shuffle)
    data.asked.clear()
    x, y = source.read(1, 5, 9)
    order = (epoch_order(3, 1, COUNT) if shuffle else np.arange(COUNT))[5:9]
    assert data.asked == order.tolist()
    assert np.array_equal(x, X[order])
    assert x.dtype == np.float32
    assert np.array_equal(y, Y[order])


def test_a_grain_source_gives_its_samples():
    """Grain's ``RandomAccessDataSource`` is such an object."""
    from grain.python import RangeDataSource

    assert training_source(RangeDataSource(0, 12, 2), batch_size=3, seed=0, shuffle=False).read(0, 0, 6).tolist() == [
        0,
        2,
        4,
        6,
        8,
        10,
    ]


def test_other_samples_are_another_fingerprint():
    """Length and first samples tell."""
    one, other = fingerprint(Samples()), fingerprint(Samples(20))
    assert "has shrunk from 23 to 20 rows" in describe_difference(one, other)


def test_an_object_without_samples_is_refused():
    """There must be something to train on."""
    with pytest.raises(errors.InvalidData, match="without samples"):
        training_source(Samples(0), seed=0)


def test_targets_beside_such_an_object_are_refused():
    """What it gives for an index is all there is."""
    with pytest.raises(errors.InvalidArgument, match="y"):
        training_source(Samples(), Y, seed=0)
