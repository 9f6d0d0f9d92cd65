"""The validation split: Keras's, with the checks made first."""

import jax.numpy as jnp
import keras
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from keras.src.trainers.data_adapters import array_slicing

from keepfit.data import split_validation
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
