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


@pytest.mark.skipif(BACKEND == "jax", reason="an array of JAX is written at once")
@pytest.mark.parametrize("written_by", ["forget", "set_value", "the end", "another program", "a program that fails"])
def test_what_is_to_be_written_later_is_there_before_anybody_looks(written_by: str) -> None:
    """What is left to a program is known at once, and written by whoever comes first."""
    variable, other = (keras.Variable(np.zeros(3, "float32")) for _ in range(2))
    begin = held.value(variable)
    variable.assign(np.ones(3))
    known = held.Known()
    with known.undisturbed():
        known.set_later([variable], [begin])
        assert known.value(variable) is begin
        assert np.array_equal(keras.ops.convert_to_numpy(variable), np.ones(3))
        if written_by == "forget":
            known.forget()
        elif written_by == "set_value":
            known.set_value(other, held.value(other))
        elif written_by == "another program":
            assert not known.hand_over({id(other): begin})
        elif written_by == "a program that fails":
            assert known.hand_over({id(variable): begin})
            assert np.array_equal(keras.ops.convert_to_numpy(variable), np.ones(3))
            known.forget()
        if written_by != "the end":
            assert np.array_equal(keras.ops.convert_to_numpy(variable), np.zeros(3))
    assert np.array_equal(keras.ops.convert_to_numpy(variable), np.zeros(3))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only programs of TensorFlow return what they wrote")
def test_what_a_program_wrote_is_not_written_again_and_is_known_without_a_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From then on a variable holds what the program says, until somebody else may have written."""
    import tensorflow as tf

    variable: Any = keras.Variable(np.zeros(3, "float32"))
    begin = held.value(variable)
    variable.assign(np.ones(3))
    known = held.Known()
    with known.undisturbed():
        known.set_later([variable], [begin])
        assert known.hand_over({id(variable): begin})
        variable.assign(np.full(3, 2.0))
        known.saw([variable], [tf.constant([2.0, 2.0, 2.0])])
        with monkeypatch.context() as patched:
            patched.setattr(held, "read_variables", None)
            now = known.value(variable)
        assert np.array_equal(np.asarray(now), np.full(3, 2.0))
        known.forget()
        assert known.value(variable) is now
        variable.assign(np.full(3, 4.0))
        known.forget()
        assert np.array_equal(np.asarray(known.value(variable)), np.full(3, 4.0))
    assert np.array_equal(keras.ops.convert_to_numpy(variable), np.full(3, 4.0))
