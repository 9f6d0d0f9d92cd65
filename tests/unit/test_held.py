"""What a variable holds is found out by its bits, however they came there."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from keepfit import held

BACKEND = keras.backend.backend()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int32", "bool"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (40, 50)])
def test_a_value_is_the_same_object_while_the_bits_are(shape: tuple[int, ...], dtype: str) -> None:
    """Looking again gives the same object; other bits give another one with shape, dtype and bits of now."""
    variable: Any = keras.Variable(np.ones(shape), dtype=dtype, trainable=False)
    first = held.value(variable)
    assert held.value(variable) is first
    for number in (0, 1, 0):
        variable.assign(np.full(shape, number))
        now = held.value(variable)
        assert now.shape == shape
        assert now.dtype == np.dtype(dtype)
        assert np.array_equal(np.asarray(now), np.full(shape, number, now.dtype))
        assert held.value(variable) is now
    assert np.array_equal(np.asarray(first), np.ones(shape, first.dtype))


@pytest.mark.skipif(BACKEND == "jax", reason="an array of JAX never changes")
def test_minus_zero_and_other_nans_are_other_bits() -> None:
    """What compares equal may differ in bits, and is another value then."""
    variable: Any = keras.Variable(np.zeros(2, "float32"))
    zero = held.value(variable)
    variable.assign(np.array([-0.0, 0.0], "float32"))
    assert held.value(variable) is not zero
    variable.assign(np.full(2, np.nan, "float32"))
    nan = held.value(variable)
    assert held.value(variable) is nan


@pytest.mark.skipif(BACKEND != "torch", reason="only a parameter of PyTorch can be given other memory")
def test_a_parameter_with_other_memory_is_looked_at_there() -> None:
    """Memory that was put under a parameter, or is read in another order, counts; what it had before does not."""
    import torch

    variable: Any = keras.Variable(np.arange(6, dtype="float32").reshape(2, 3))
    parameter = variable._value
    first = held.value(variable)
    assert held.value(variable) is first
    old = parameter.data
    parameter.data = torch.full((2, 3), 7.0)
    other = held.value(variable)
    assert np.array_equal(np.asarray(other), np.full((2, 3), 7.0))
    old.fill_(9.0)
    assert held.value(variable) is other
    square = torch.arange(9.0).reshape(3, 3)
    parameter.data = square
    turned = held.value(variable)
    parameter.data = square.t()
    now = held.value(variable)
    assert now is not turned
    assert np.array_equal(np.asarray(now), np.arange(9.0).reshape(3, 3).T)
    assert held.value(variable) is now
    parameter.data.mul_(2)
    assert np.array_equal(np.asarray(held.value(variable)), 2 * np.arange(9.0).reshape(3, 3).T)
    assert np.array_equal(np.asarray(first), np.arange(6.0).reshape(2, 3))


@pytest.mark.skipif(BACKEND == "jax", reason="a look at an array of JAX costs nothing")
def test_a_known_value_is_written_only_where_another_is_held() -> None:
    """Within a stretch that nobody disturbs a value that is there is left alone, and another one is written."""
    variable: Any = keras.Variable(np.zeros(3, "float32"))
    zero = held.value(variable)
    variable.assign(np.ones(3))
    known = held.Known()
    with known.undisturbed():
        one = known.value(variable)
        known.set_value(variable, zero)
        assert known.value(variable) is zero
        assert np.array_equal(keras.ops.convert_to_numpy(variable), np.zeros(3))
        known.set_value(variable, one)
        known.set_value(variable, one)
        assert np.array_equal(keras.ops.convert_to_numpy(variable), np.ones(3))
    assert held.value(variable) is one
