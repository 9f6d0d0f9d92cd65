"""Arrays as a source: the batches that Keras gives, in our order."""

import functools

import jax.experimental.sparse as jax_sparse
import jax.numpy as jnp
import keras
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from keras.src.trainers.epoch_iterator import EpochIterator
from tests.bits import dense

from keepfit.data import evaluation_source, training_source
from keepfit.errors import InvalidArgument, InvalidData

ROWS = 11


class Tensor:
    """Some other library's array."""

    def __init__(self, array):
        self.array = array
        self.shape = array.shape

    def __array__(self, dtype=None, copy=None):
        return np.array(self.array, dtype=dtype)


def ramp(*shape, dtype="float32"):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


INPUTS = {
    "float32": ramp(ROWS, 3),
    "float64": ramp(ROWS, 3, dtype="float64"),
    "float16": ramp(ROWS, 3, dtype="float16"),
    "int64": ramp(ROWS, 3, dtype="int64"),
    "bool": ramp(ROWS, 3) % 2 == 0,
    "one axis": ramp(ROWS),
    "fortran order": np.asfortranarray(ramp(ROWS, 3)),
    "jax": jnp.arange(ROWS * 3, dtype="int32").reshape(ROWS, 3),
    "jax bfloat16": jnp.arange(ROWS * 3, dtype="bfloat16").reshape(ROWS, 3),
    "frame": pd.DataFrame({"a": np.arange(ROWS), "b": np.linspace(0, 1, ROWS)}),
    "frame of integers": pd.DataFrame({"a": np.arange(ROWS), "b": np.arange(ROWS)}),
    "series": pd.Series(np.linspace(0, 1, ROWS)),
    "scipy": scipy.sparse.random(ROWS, 4, 0.4, format="coo", random_state=1),
    "jax sparse": jax_sparse.BCOO.fromdense(jnp.eye(ROWS)),
    "other": Tensor(ramp(ROWS, 3, dtype="float64")),
    "list": [ramp(ROWS, 3), ramp(ROWS, 2)],
    "tuple": (ramp(ROWS, 3), ramp(ROWS, 2)),
    "dict": {"b": ramp(ROWS, 3), "a": {"c": ramp(ROWS, 2)}},
    "with none": [ramp(ROWS, 3), None],
}


STAY_SPARSE = keras.backend.backend() != "torch"


def keras_batches(x, y=None, sample_weight=None, **settings):
    iterator = EpochIterator(x, y, sample_weight, **settings)
    if keras.backend.backend() == "jax":
        return list(iterator.data_adapter.get_jax_iterator())
    if keras.backend.backend() == "tensorflow" and hasattr(x, "todense"):
        # Only there do sparse arrays stay sparse.
        convert = functools.partial(keras.tree.map_structure, lambda leaf: getattr(leaf, "numpy", lambda: leaf)())
        return list(map(convert, iterator.data_adapter.get_tf_dataset()))
    return list(iterator.data_adapter.get_numpy_iterator())


def our_batches(source, number=0):
    order = source.order(number, 0, source.num_samples)
    size = source.batch_size
    return [source.take(order[start : start + size]) for start in range(0, len(order), size)]


def assert_same(ours, theirs):
    keras.tree.assert_same_structure(ours, theirs)
    for mine, other in zip(keras.tree.flatten(ours), keras.tree.flatten(theirs), strict=True):
        if other is None:
            assert mine is None
            continue
        assert type(mine) is type(other)
        # Keras leaves mixed frames as float64, which the model reads as floatx: the same values.
        expected = dense(other)
        expected = expected.astype("float32") if expected.dtype == np.float64 else expected
        assert dense(mine).dtype == expected.dtype
        assert dense(mine).shape == expected.shape
        assert np.array_equal(dense(mine), expected)


@pytest.mark.parametrize("name", [name for name in INPUTS if STAY_SPARSE or name not in ("scipy", "jax sparse")])
@pytest.mark.parametrize("targets", [False, True])
def test_batches_are_those_of_keras(name, targets):
    """Unshuffled batches have the structure, dtypes, shapes and values that Keras gives the model."""
    x, y = INPUTS[name], ramp(ROWS, 1, dtype="int32") if targets else None
    ours = our_batches(training_source(x, y, batch_size=4, shuffle=False, seed=0))
    theirs = keras_batches(x, y, batch_size=4, shuffle=False)
    assert len(ours) == len(theirs) == 3
    for mine, other in zip(ours, theirs, strict=True):
        assert_same(mine, other)


@pytest.mark.parametrize("kind", ["one for all", "nested", "class weight", "class weight one-hot"])
def test_weights_are_those_of_keras(kind):
    """Sample weights, replicated or nested, and class weights give the batches that Keras gives."""
    y, arguments = [ramp(ROWS, 1), ramp(ROWS, 2)], {}
    if kind == "one for all":
        arguments["sample_weight"] = ramp(ROWS, dtype="float64")
    elif kind == "nested":
        arguments["sample_weight"] = [ramp(ROWS), ramp(ROWS, 2)]
    else:
        y = np.arange(ROWS) % 3
        y = np.eye(3)[y] if kind.endswith("hot") else y
        arguments["class_weight"] = {0: 0.5, 2: 7}
    x = ramp(ROWS, 3)
    ours = our_batches(training_source(x, y, batch_size=4, shuffle=False, seed=0, **arguments))
    theirs = keras_batches(x, y, batch_size=4, shuffle=False, **arguments)
    for mine, other in zip(ours, theirs, strict=True):
        assert_same(mine, other)


@pytest.mark.parametrize("name", INPUTS)
def test_shuffled_batches_hold_every_row_once(name):
    """A shuffled pass gives every row once, and x and y stay together."""
    source = training_source(INPUTS[name], np.arange(ROWS), batch_size=4, seed=3)
    assert source.exactness == "exact"
    whole = our_batches(training_source(INPUTS[name], np.arange(ROWS), batch_size=ROWS, shuffle=False, seed=0))[0]
    seen = []
    for batch in our_batches(source, 1):
        rows = batch[1]
        seen.extend(rows.tolist())
        for mine, all_rows in zip(keras.tree.flatten(batch[0]), keras.tree.flatten(whole[0]), strict=True):
            if mine is not None:
                assert np.array_equal(dense(mine), dense(all_rows)[rows])
    assert sorted(seen) == list(range(ROWS))


def test_batch_shuffle_mixes_within_batches_only():
    """``shuffle="batch"`` means what it means in Keras 3: the batches stay, their samples are mixed."""
    source = training_source(np.arange(34), batch_size=16, shuffle="batch", seed=1)
    batches = our_batches(source, 0)
    assert [sorted(batch.tolist()) for batch in batches] == [list(range(16)), list(range(16, 32)), [32, 33]]
    assert batches[0].tolist() != list(range(16))


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 60), size=st.integers(1, 70), number=st.integers(0, 5), cut=st.integers(0, 60))
def test_order_does_not_depend_on_the_cut(count, size, number, cut):
    """A source made anew gives the rest of a pass as the first one would have."""
    x = np.arange(count)
    first = our_batches(training_source(x, batch_size=size, seed=9), number)
    again = our_batches(training_source(x, batch_size=size, seed=9), number)
    cut = min(cut, len(first))
    joined = np.concatenate(first[:cut] + again[cut:])
    assert np.array_equal(joined, np.concatenate(first))
    assert sorted(joined.tolist()) == list(range(count))


def test_passes_and_seeds_differ():
    """Every pass and every seed has an order of its own."""
    x = np.arange(50)
    orders = {tuple(training_source(x, seed=seed).order(number, 0, len(x))) for seed in (1, 2) for number in (0, 1, 2)}
    assert len(orders) == 6


def test_arrays_of_the_right_dtype_are_not_copied():
    """Data that needs no conversion keeps its memory, also in unshuffled batches."""
    x, y = ramp(ROWS, 3), ramp(ROWS, dtype="int64")
    source = training_source(x, y, batch_size=4, shuffle=False, seed=0)
    assert source.resident
    assert source.arrays[0] is x
    assert source.arrays[1] is y
    assert np.shares_memory(source.take(np.arange(4, 8))[0], x)
    assert source.size_bytes == x.nbytes + y.nbytes


def test_jax_arrays_stay_on_their_device():
    """JAX arrays are handed to the engine as they are."""
    x = jnp.ones((ROWS, 3))
    assert training_source(x, seed=0).arrays is x


def test_sparse_data_is_not_resident():
    """Sparse matrices are sliced on the host, so there are no arrays to keep on a device."""
    source = training_source(INPUTS["scipy"], np.arange(ROWS), seed=0)
    assert not source.resident
    assert source.arrays is None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_large_mapped_arrays_stay_on_disk(tmp_path, dtype):
    """A memory-mapped array over the budget is read batch by batch, with the values it would have in memory."""
    data = ramp(ROWS, 3, dtype=dtype)
    np.save(tmp_path / "x.npy", data)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    on_disk = training_source(mapped[:-1], batch_size=4, seed=2, mapped_bytes=10)
    in_memory = training_source(mapped[:-1], batch_size=4, seed=2)
    assert not on_disk.resident
    assert in_memory.resident
    assert on_disk.size_bytes == in_memory.size_bytes
    for mine, other in zip(our_batches(on_disk, 1), our_batches(in_memory, 1), strict=True):
        assert type(mine) is np.ndarray
        assert mine.dtype == np.float32
        assert np.array_equal(mine, other)


def test_sizes_follow_keras():
    """Batch size defaults to 32, or to the samples divided among the steps of an epoch."""
    x = np.zeros((100, 1))
    assert training_source(x, seed=0).batch_size == 32
    assert training_source(x, seed=0).num_batches == 4
    assert training_source(x, steps_per_epoch=7, seed=0).batch_size == 15
    source = training_source(x, batch_size=30, steps_per_epoch=7, seed=0)
    assert (source.batch_size, source.num_batches, source.num_samples) == (30, 4, 100)


def test_peek_is_like_a_batch():
    """A peek has the structure and sizes of a first batch."""
    source = training_source([ramp(ROWS, 3)], ramp(ROWS), batch_size=4, seed=0)
    assert_same(source.peek(), ([ramp(ROWS, 3)[:4]], ramp(ROWS)[:4]))
    assert training_source(ramp(ROWS), batch_size=99, seed=0).peek().shape == (ROWS,)


def test_evaluation_is_never_shuffled():
    """Evaluation reads samples in their order."""
    assert evaluation_source(np.arange(9), batch_size=2).order(3, 0, 9).tolist() == list(range(9))


def test_sample_weights_without_targets_warn():
    """Sample weights that Keras would drop without a word are warned about."""
    with pytest.warns(UserWarning, match="sample_weight was given without y"):
        source = training_source(ramp(ROWS), None, ramp(ROWS), seed=0)
    assert source.peek().shape == (ROWS,)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"x": np.zeros((3, 1)), "y": np.zeros(4)}, ["x:", "3 samples", "y:", "4 samples"]),
        ({"x": {"a": np.zeros(3), "b": np.zeros(2)}}, ["x['a']:", "x['b']:"]),
        ({"x": np.zeros(3), "y": np.zeros(3), "sample_weight": np.zeros(2)}, ["sample_weight:", "2 samples"]),
        ({"x": np.zeros((0, 2))}, ["x is empty"]),
        ({"x": None}, ["no data"]),
        ({"x": []}, ["no data"]),
        ({"x": np.float32(1)}, ["x has no axes"]),
        ({"x": np.zeros(2), "y": np.float32(1)}, ["y has no axes"]),
        ({"x": [1, 2, 3], "y": np.zeros(3)}, ["x[0] is a plain int", "numpy.array"]),
        ({"x": 3}, ["x is a plain int"]),
        ({"x": np.array([[1, 2], [3]], dtype=object)}, ["x has dtype object", "pad"]),
        ({"x": np.zeros(2), "y": np.array(["a", "b"])}, ["y has dtype", "StringLookup"]),
        ({"x": np.array(["2024-01-01"], dtype="datetime64[s]")}, ["x has dtype datetime64", "int64"]),
        ({"x": pd.DataFrame({"n": [1], "t": ["a"]})}, ["x['t'] has dtype"]),
        ({"x": pd.DataFrame({"n": pd.array([1, None], "Int64")})}, ["x['n'] has dtype Int64"]),
        ({"x": pd.DataFrame({"n": [1, 2], "b": [True, False]})}, ["x has dtype object", "astype"]),
        ({"x": object()}, ["Unrecognized data type", "x is a builtins.object"]),
        ({"x": np.zeros(2), "y": [1, 0]}, ["y[0] is a plain int"]),
        ({"x": iter([1])}, ["Unrecognized data type", "(batch for batch in it)"]),
        ({"x": np.zeros(2), "y": np.zeros(2), "class_weight": {0: 1}, "sample_weight": np.ones(2)}, ["same time"]),
        ({"x": np.zeros(2), "y": [np.zeros(2)], "class_weight": {0: 1}}, ["single output"]),
        ({"x": np.zeros(2), "class_weight": {0: 1}}, ["single output", "y=None"]),
        ({"x": np.zeros(2), "y": np.zeros((2, 3, 2)), "class_weight": {0: 1}}, ["one class per sample"]),
        ({"x": np.zeros(2), "y": [np.zeros(2)] * 2, "sample_weight": [np.ones(2)]}, ["one array per output"]),
        ({"x": np.zeros(2), "y": [np.zeros(2)] * 2, "sample_weight": np.ones((2, 3))}, ["one number per sample"]),
    ],
)
def test_bad_data_is_named(arguments, words):
    """Data that cannot be trained on is refused with its name, what is wrong and that nothing was changed."""
    with pytest.raises(InvalidData) as caught:
        training_source(**arguments, seed=0)
    assert isinstance(caught.value, ValueError)
    for word in [*words, "Nothing was changed"]:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"batch_size": 0},
        {"batch_size": -1},
        {"batch_size": 2.5},
        {"batch_size": "32"},
        {"steps_per_epoch": 0},
        {"steps_per_epoch": True},
        {"shuffle": "batches"},
        {"class_weight": [1, 2]},
        {"class_weight": {"0": 1.0}},
        {"class_weight": {0: "much"}},
        {"class_weight": {0.5: 1}},
    ],
)
def test_bad_arguments_are_named(arguments):
    """An argument out of range is refused by name before anything changes."""
    with pytest.raises(InvalidArgument, match=next(iter(arguments))) as caught:
        training_source(np.zeros(4), np.zeros(4), seed=0, **arguments)
    assert "Nothing was changed" in str(caught.value)


def test_donated_jax_arrays_are_named():
    """A JAX array whose memory is gone is refused with its name."""
    x = jnp.ones((4, 1))
    x.delete()
    with pytest.raises(InvalidData, match="x is a JAX array whose memory"):
        training_source(x, seed=0)


def test_numpy_integers_are_counts():
    """NumPy integers serve as batch size and steps."""
    source = training_source(np.zeros(10), batch_size=np.int64(4), steps_per_epoch=np.int32(2), seed=0)
    assert source.batch_size == 4
