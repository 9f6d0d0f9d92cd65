"""Tensors and data sets of libraries that need not be installed."""

import numpy as np
import pytest
from tests.bits import dense

from keepfit.data import describe_difference, evaluation_source, fingerprint, split_validation, training_source

ROWS = 11


def assert_served(x, values):
    """Check batches, split and fingerprint of a tensor against the values it holds."""
    source = training_source(x, batch_size=4, shuffle=False, seed=0)
    assert source.resident
    assert source.peek().dtype == np.float32
    assert np.array_equal(source.take(np.array([9, 2])), values[[9, 2]])
    (kept, _, _), (held, _, _) = split_validation(x, None, None, 0.3)
    assert (len(kept), len(held)) == (7, 4)
    assert describe_difference(fingerprint(x), fingerprint(x)) is None
    assert describe_difference(fingerprint(x), fingerprint(kept)).endswith("with the same first rows")


def one_pass(source, number=0):
    found = []
    source.begin_pass(number)
    while True:
        try:
            found.extend(np.asarray(source.next_batch()[1]).tolist())
        except StopIteration:
            break
    source.end_pass()
    return found


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_torch_tensors_are_served(dtype):
    """PyTorch tensors of every float type give ``floatx`` batches, also those that need a gradient."""
    torch = pytest.importorskip("torch")
    values = np.arange(ROWS * 3, dtype="float32").reshape(ROWS, 3)
    assert_served(torch.tensor(values, dtype=getattr(torch, dtype), requires_grad=True), values)


def test_torch_loaders_are_read():
    """A DataLoader gives its batches, pass after pass."""
    torch = pytest.importorskip("torch")
    dataset = torch.utils.data.TensorDataset(torch.ones(10, 2), torch.arange(10))
    source = training_source(torch.utils.data.DataLoader(dataset, batch_size=4), seed=0)
    assert (source.num_batches, source.exactness) == (3, "replay")
    assert one_pass(source, 0) == one_pass(source, 1) == list(range(10))


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_tensorflow_tensors_are_served(dtype):
    """TensorFlow tensors of every float type give ``floatx`` batches."""
    tf = pytest.importorskip("tensorflow")
    values = np.arange(ROWS * 3, dtype="float32").reshape(ROWS, 3)
    assert_served(tf.cast(tf.constant(values), dtype), values)


def test_sparse_and_ragged_tensors_are_sliced():
    """TensorFlow's sparse and ragged tensors are sliced by rows, and not resident."""
    tf = pytest.importorskip("tensorflow")
    sparse = training_source(tf.sparse.from_dense(np.eye(ROWS, dtype="float32")), seed=0)
    assert np.array_equal(dense(sparse.take(np.array([9, 2]))), np.eye(ROWS)[[9, 2]])
    ragged = training_source(tf.RaggedTensor.from_row_lengths(np.arange(22.0), [2] * ROWS), seed=0)
    rows = ragged.take(np.array([1, 3]))
    # Under PyTorch Keras makes a dense tensor of TensorFlow of them, which has no ``tolist``.
    assert (rows.to_list() if hasattr(rows, "to_list") else np.asarray(rows).tolist()) == [[2, 3], [6, 7]]
    assert not sparse.resident
    assert not ragged.resident


def test_tensorflow_datasets_reach_their_place():
    """A shuffling data set made anew gives the passes that were to come."""
    tf = pytest.importorskip("tensorflow")

    def made():
        tf.random.set_seed(1)
        data = tf.data.Dataset.from_tensor_slices((np.ones((ROWS, 2)), np.arange(ROWS)))
        return training_source(data.shuffle(20, seed=3).batch(4), seed=0)

    first = made()
    passes = [one_pass(first, number) for number in range(4)]
    again = made()
    again.peek()
    again.replay_to(6)
    assert [one_pass(again, number) for number in (2, 3)] == passes[2:]
    assert passes[2] != passes[3]


def test_grain_datasets_are_read():
    """A Grain data set gives its batches."""
    grain = pytest.importorskip("grain")
    data = grain.MapDataset.source(np.arange(20).reshape(10, 2)).batch(4)
    source = evaluation_source(data)
    source.begin_pass(0)
    assert [source.next_batch().shape for _ in range(3)] == [(4, 2), (4, 2), (2, 2)]
