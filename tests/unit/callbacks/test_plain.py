"""Plain data and arrays as JSON and tensors."""

from __future__ import annotations

import json
import math
import random
import threading
from collections import Counter, OrderedDict, defaultdict, deque
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepfit.callbacks.plain import NotPlain, decode, encode


def through_json(value):
    """Return a value after the way to JSON and back."""
    tensors: dict[str, np.ndarray] = {}
    encoded = json.loads(json.dumps(encode(value, "it", tensors.__setitem__), allow_nan=False))
    return decode(encoded, tensors.__getitem__)


def same(one, other) -> bool:
    """Return whether two values are equal in type and bits, NaN included."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray | np.generic):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    if isinstance(one, dict):
        return len(one) == len(other) and all(
            same(*pair) for pairs in zip(one.items(), other.items(), strict=True) for pair in zip(*pairs, strict=True)
        )
    if isinstance(one, list | tuple | deque):
        return len(one) == len(other) and all(same(*pair) for pair in zip(one, other, strict=True))
    return one == other


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary(max_size=20)
    | st.sampled_from([np.float32(0.1), np.float64("nan"), np.int8(-3), np.bool_(True), np.float16(2), np.str_("x")])
)
KEYS = st.text(max_size=5) | st.integers() | st.tuples(st.integers(), st.text(max_size=2))
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.builds(deque, st.lists(inner, max_size=4), st.none() | st.integers(4, 9))
    ),
    max_leaves=12,
)


@given(VALUES)
def test_encode_brings_every_nesting_back_exactly(value):
    """Types, keys, NaN and dtypes survive the way through JSON, however they are nested."""
    assert same(through_json(value), value)


@pytest.mark.parametrize(
    "value",
    [
        -0.0,
        float("inf"),
        complex(float("nan"), -0.0),
        {3, 1, (2, "x")},
        frozenset({"a"}),
        OrderedDict(b=1, a=2),
        Counter("aab"),
        Path("some/where"),
        10**40,
        np.datetime64("2026-11-23T10:00"),
        np.array(["text", "längere"]),
        np.array(3.5),
        np.zeros((0, 3), np.float16),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(12)[::-2],
        [0.5, float("nan")] * 60,
        tuple(range(100)),
        deque(range(100), maxlen=100),
        [2**70] * 100,
        [1.0, 2] * 50,
    ],
    ids=lambda value: type(value).__name__,
)
def test_encode_brings_rare_kinds_back_exactly(value):
    """Kinds that are seldom in a callback come back as what they were."""
    back = through_json(value)
    if isinstance(value, complex):
        assert repr(back) == repr(value)
    else:
        assert same(back, value)


def test_encode_keeps_the_factory_of_a_defaultdict():
    """A defaultdict goes on making its defaults."""
    value = defaultdict(list, {"a": [1]})
    back = through_json(value)
    back["new"].append(2)
    assert type(back) is defaultdict
    assert back == {"a": [1], "new": [2]}


@pytest.mark.parametrize("make", [np.random.default_rng, np.random.RandomState, random.Random])
def test_encode_keeps_where_a_generator_is(make):
    """A random generator goes on with the numbers that it would have given."""
    generator = make(5)
    generator.random()
    back = through_json(generator)
    assert [back.random() for _ in range(3)] == [generator.random() for _ in range(3)]


def test_encode_keeps_bfloat16_arrays_and_scalars():
    """The weights of a model in bfloat16 come back with their dtype."""
    array = np.asarray(keras.ops.convert_to_numpy(keras.ops.cast([1.5, -2.0], "bfloat16")))
    assert same(through_json([array, array[0]]), [array, array[0]])


def test_encode_keeps_an_array_of_the_backend_as_one():
    """An array of the backend does not become one of NumPy."""
    back = through_json({"t": keras.ops.ones((2, 3), "float32")})["t"]
    assert keras.ops.is_tensor(back)
    assert keras.ops.convert_to_numpy(back).tolist() == [[1.0] * 3] * 2


def test_encode_names_arrays_by_their_path():
    """A person who reads the file finds an array under the names that lead to it."""
    tensors: dict[str, np.ndarray] = {}
    encode({"best": [np.ones(1), np.ones(2)], "x/y": np.ones(3)}, "it", tensors.__setitem__)
    assert sorted(tensors) == ["it/0/0", "it/0/1", "it/1"]
    tensors.clear()
    encode({"best": [np.ones(1)], "last": np.ones(3)}, "it", tensors.__setitem__)
    assert sorted(tensors) == ["it/best/0", "it/last"]


def test_encode_puts_many_numbers_into_one_tensor():
    """A list with a loss for every batch is not a page of JSON."""
    tensors: dict[str, np.ndarray] = {}
    encoded = encode([0.25] * 1000, "losses", tensors.__setitem__)
    assert encoded == {"numbers": "losses"}
    assert tensors["losses"].shape == (1000,)


def _holds_itself() -> list:
    value: list = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value",
    [
        threading.Lock(),
        lambda: 0,
        keras.layers.Dense(1),
        keras.Variable(np.ones(2)),
        _holds_itself(),
        np.array([object()]),
        np.zeros(2, [("a", "i4")]),
        defaultdict(lambda: 3),
        type("Number", (int,), {})(3),
        type("Dict", (dict,), {})(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_encode_refuses_what_would_come_back_as_something_else(value):
    """An object that JSON and arrays cannot stand for is refused, also inside something plain."""
    with pytest.raises(NotPlain):
        encode({"inside": [value]}, "it", lambda name, array: None)


def test_decode_executes_no_name_from_a_file():
    """A file cannot name a factory or a generator of its choice."""
    with pytest.raises(KeyError):
        decode({"defaultdict": [], "factory": "eval"}, {}.__getitem__)
    with pytest.raises(ValueError, match="not a generator"):
        decode({"generator": {"dict": [["bit_generator", "seterr"]]}}, {}.__getitem__)
