"""The validation split: Keras's, with the checks made first; that of stores goes by a hash of the place."""

import itertools
import subprocess
import sys

import h5py
import jax.numpy as jnp
import keras
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from keras.src.trainers.data_adapters import array_slicing

from keepfit.data import evaluation_source, partitions, split_validation, training_source
from keepfit.errors import InvalidArgument, InvalidData


def plain(leaf):
    if hasattr(leaf, "todense"):
        leaf = leaf.todense()
    return np.asarray(leaf)


@pytest.mark.parametrize("fraction", [0.1, 0.25, 1 / 3, 0.9])
@pytest.mark.parametrize(
    "x",
    [
        np.arange(22.0, dtype="float32").reshape(11, 2),
        [np.arange(11), {"a": jnp.arange(11)}],
        pd.DataFrame({"a": np.arange(11)}, index=range(100, 111)),
        scipy.sparse.eye(11, format="coo"),
    ],
    ids=["array", "nested", "frame", "sparse"],
)
def test_the_split_is_that_of_keras(x, fraction):
    """Both sides hold the rows that Keras puts there."""
    y = np.arange(11)
    ours = split_validation(x, y, None, fraction)
    theirs = array_slicing.train_validation_split((x, y, None), fraction)
    for mine, other in zip(keras.tree.flatten(ours), keras.tree.flatten(theirs), strict=True):
        assert (mine is None) == (other is None)
        if mine is not None:
            assert np.array_equal(plain(mine), plain(other))


def test_dense_arrays_are_not_copied():
    """Splitting costs no memory."""
    x = np.zeros((10, 2))
    (train, _, _), (held, _, _) = split_validation(x, None, None, 0.5)
    assert np.shares_memory(train, x)
    assert np.shares_memory(held, x)


@pytest.mark.parametrize("fraction", [-0.1, 0, 1, 1.5])
def test_fractions_out_of_range_raise(fraction):
    """A fraction that is none is refused."""
    with pytest.raises(InvalidArgument, match="validation_split"):
        split_validation(np.zeros(4), None, None, fraction)


def test_what_cannot_be_split_raises():
    """Generators, too few samples and different lengths are refused."""
    with pytest.raises(InvalidData, match="validation_data"):
        split_validation((row for row in ()), None, None, 0.5)
    with pytest.raises(InvalidData, match="one side empty"):
        split_validation(np.zeros(1), None, None, 0.5)
    with pytest.raises(InvalidData, match="cardinality"):
        split_validation(np.zeros(10), np.zeros(9), None, 0.5)


class Samples:
    """One sample for an index, which says which it is."""

    def __init__(self, count):
        self.count, self.asked = count, set()

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.asked.add(index)
        return np.array([index, -index], "float32"), np.int64(index)


def stored(folder, count):
    """Return inputs in an HDF5 file and targets in memory."""
    with h5py.File(folder / "a.h5", "w") as file:
        file["x"] = np.stack([np.arange(count), -np.arange(count)], axis=1).astype("float64")
    return h5py.File(folder / "a.h5", "r")["x"], np.arange(count)


def samples(folder, count):
    return Samples(count), None


def sides(x, y, fraction, **settings):
    """Return the samples on the two sides, as the sources give them."""
    train, held_back = split_validation(x, y, None, fraction)
    sources = (training_source(*train, batch_size=7, seed=3, **settings), evaluation_source(*held_back, batch_size=7))
    return [source.read(0, 0, source.num_samples)[1].tolist() for source in sources]


@pytest.mark.parametrize("kind", [stored, samples])
@pytest.mark.parametrize("shuffle", [True, False, "batch"])
def test_every_sample_of_a_store_is_on_one_side(kind, shuffle, tmp_path):
    """The sides cover the store, inputs stay with their targets, and validation keeps the order of the store."""
    x, y = kind(tmp_path, 100)
    train, held_back = sides(x, y, 0.2, shuffle=shuffle)
    assert sorted(train + held_back) == list(range(100))
    assert held_back == sorted(held_back)
    assert (train == sorted(train)) == (shuffle is False)
    source = training_source(*split_validation(x, y, None, 0.2)[0], batch_size=7, seed=3, shuffle=shuffle)
    rows, targets = source.read(0, 0, source.num_samples)
    assert np.array_equal(rows, np.stack([targets, -targets], axis=1))
    assert rows.dtype == np.float32


@pytest.mark.parametrize("kind", [stored, samples])
def test_training_never_asks_for_a_held_back_sample(kind, tmp_path):
    """Passes on end: only the samples of the training side come, each once a pass, wherever reading begins."""
    x, y = kind(tmp_path, 60)
    _, held_back = sides(x, y, 0.3)
    source = training_source(*split_validation(x, y, None, 0.3)[0], batch_size=7, seed=3)
    source.peek()
    for number in range(3):
        whole = source.read(number, 0, source.num_samples)[1].tolist()
        assert sorted(whole) == sorted(set(range(60)) - set(held_back))
        fresh = training_source(*split_validation(x, y, None, 0.3)[0], batch_size=7, seed=3)
        places = [*range(11, source.num_samples, 7), source.num_samples]
        rest = [fresh.read(number, start, stop)[1].tolist() for start, stop in itertools.pairwise(places)]
        assert list(itertools.chain(*rest)) == whole[11:]
    if kind is samples:
        fresh = Samples(60)
        source = training_source(*split_validation(fresh, None, None, 0.3)[0], batch_size=7, seed=3)
        source.read(0, 0, source.num_samples)
        assert not fresh.asked & set(held_back)


def test_the_sides_of_a_store_are_the_same_in_another_process_and_for_any_seed(tmp_path):
    """Nothing but the place decides; they are the sides of one partition, too."""
    x, y = stored(tmp_path, 50)
    _, held_back = sides(x, y, 0.25)
    code = (
        "from keepfit.data.split import split_validation; from tests.unit.data.test_split import Samples\n"
        "(_, held, *_), = [split_validation(Samples(50), None, None, 0.25)]; x = held[0]\n"
        "print([int(x[k][1]) for k in range(len(x))])"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert other.splitlines()[-1] == str(held_back)
    side = partitions([lambda: (np.asarray(x), y)]).split(0.25)[1]
    assert evaluation_source(side).read(0, 0, len(held_back))[1].tolist() == held_back


def test_a_store_that_grows_keeps_its_samples_on_their_sides(tmp_path):
    """And a smaller fraction holds back some of the same samples; the last fraction, as of arrays, would do neither."""
    held_back = sides(Samples(60), None, 0.3)[1]
    assert [row for row in sides(Samples(90), None, 0.3)[1] if row < 60] == held_back
    assert set(sides(Samples(60), None, 0.1)[1]) < set(held_back)
    assert held_back != list(range(60 - len(held_back), 60))


def test_arrays_beside_a_store_are_split_with_it(tmp_path):
    """Memory-mapped ones without being read, and those of every library by the same rows."""
    x, y = stored(tmp_path, 40)
    np.save(tmp_path / "m.npy", np.arange(40.0))
    more = {
        "store": x,
        "mapped": np.load(tmp_path / "m.npy", mmap_mode="r"),
        "jax": jnp.arange(40.0),
        "frame": pd.DataFrame({"a": np.arange(40.0)}),
        "sparse": scipy.sparse.csr_matrix(np.arange(40.0)[:, None]),
    }
    (train, targets, _), _ = split_validation(more, y, None, 0.3)
    rows, found = training_source(train, targets, batch_size=40, seed=0).read(0, 0, len(targets))
    for name in more:
        assert np.array_equal(plain(rows[name]).reshape(len(found), -1)[:, 0], found), name
    assert not isinstance(train["mapped"], np.ndarray)


def test_a_store_that_cannot_be_split_raises(tmp_path):
    """Too few samples for two sides, targets beside samples, and arrays of other lengths."""
    x, y = stored(tmp_path, 40)
    with pytest.raises(InvalidData, match="of 1 samples leaves one side empty"):
        split_validation(Samples(1), None, None, 0.5)
    with pytest.raises(InvalidData, match="y was given beside a Samples"):
        split_validation(Samples(9), y, None, 0.5)
    with pytest.raises(InvalidData, match="cardinality"):
        split_validation(x, y[:-1], None, 0.5)
