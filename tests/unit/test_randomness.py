"""Global generators go on after a restore as they would have gone on without it."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest

from keepfit import _keras, randomness


@pytest.fixture(autouse=True)
def _leave_generators_as_they_were() -> Iterator[None]:
    before = randomness.take()
    yield
    randomness.restore(before)


def through_json(state: Any) -> Any:
    return json.loads(json.dumps(state, allow_nan=False))


def draws() -> list[float]:
    """Draw from each generator, also from what keeps half of a pair of normal numbers."""
    own = [random.random(), random.gauss(0, 1)]
    numpy = [float(np.random.rand()), float(np.random.randn())]
    return [*own, *numpy, float(keras.random.uniform(())), float(keras.random.uniform(()))]


@pytest.mark.parametrize("drawn", [0, 1, 3, 700])
def test_restore_goes_on_as_without_it(drawn):
    """After any number of draws, the same numbers come again."""
    for _ in range(drawn):
        random.gauss(0, 1)
        np.random.randn()
    keras.random.uniform(())
    state = through_json(randomness.take())
    expected = draws()
    assert draws() != expected
    randomness.restore(state)
    assert draws() == expected


def test_draws_differ_when_nothing_is_restored():
    """The test above would fail without the restore."""
    assert draws() != draws()


def test_take_draws_nothing():
    """Looking at the generators does not move them."""
    keras.random.uniform(())
    state = randomness.take()
    assert randomness.take() == state
    assert draws() is not None
    assert randomness.take() != state


def test_take_again_equals_take_before_when_state_comes_back():
    """The kept encoding is used only for the state it was made from."""
    first = randomness.take()
    draws()
    second = randomness.take()
    randomness.restore(first)
    assert randomness.take() == first
    randomness.restore(second)
    assert randomness.take() == second


def test_restore_removes_a_seed_generator_that_was_not_there():
    """Keras's generator is made anew, from the seed or from Python's generator, as it would have been."""
    keras.utils.set_random_seed(11)
    state = through_json(randomness.take())
    assert state["keras"] == {"seed": 11, "generator": None}
    expected = draws()
    randomness.restore(state)
    assert _keras.global_seed_generator() is None
    assert draws() == expected


def test_restore_makes_a_seed_generator_without_drawing():
    """In a process where Keras has no generator yet, it gets one, and Python's generator does not move."""
    keras.random.uniform(())
    state = through_json(randomness.take())
    expected = draws()
    _keras.set_global_seed_generator(None)
    randomness.restore(state)
    assert draws() == expected


def test_restore_brings_another_bit_generator_back():
    """NumPy's global generator may be another than the Mersenne Twister."""
    twister = np.random.get_bit_generator()
    try:
        np.random.set_bit_generator(np.random.PCG64(3))
        state = through_json(randomness.take())
        expected = np.random.rand(3)
        np.random.set_bit_generator(np.random.MT19937(4))
        randomness.restore(state)
        np.testing.assert_array_equal(np.random.rand(3), expected)
    finally:
        np.random.set_bit_generator(twister)


def test_restore_leaves_alone_what_the_state_does_not_tell():
    """A state from a process without PyTorch says nothing about PyTorch; an empty one about nothing."""
    before = randomness.take()
    randomness.restore({})
    assert randomness.take() == before


def test_keras_seed_is_that_of_set_random_seed():
    """The seed a script gave is found."""
    keras.utils.set_random_seed(1234)
    assert randomness.keras_seed() == 1234


def test_keras_seed_is_none_when_none_was_set():
    """Without a seed there is none."""
    _keras.set_global_seed(None)
    assert randomness.keras_seed() is None


def test_fresh_seed_draws_from_no_generator():
    """A fresh seed is another one each time, and moves no generator."""
    keras.utils.set_random_seed(1)
    before = randomness.take()
    seeds = {randomness.fresh_seed() for _ in range(20)}
    assert len(seeds) > 15
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert randomness.take() == before


def test_take_includes_torch_when_it_is_imported(monkeypatch):
    """PyTorch's generators are taken and put back through its public names."""

    class Tensor(SimpleNamespace):
        def numpy(self):
            return self.array

    held = {"cpu": bytes(range(16))}
    torch = SimpleNamespace(
        random=None,
        uint8=None,
        get_rng_state=lambda: Tensor(array=np.frombuffer(held["cpu"], np.uint8)),
        Generator=lambda: SimpleNamespace(get_state=lambda: Tensor(array=np.zeros(16, np.uint8))),
        set_rng_state=lambda state: held.update(cpu=bytes(state)),
        frombuffer=lambda data, dtype: data,
        cuda=SimpleNamespace(is_available=lambda: False, is_initialized=lambda: False),
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    state = through_json(randomness.take())
    held["cpu"] = bytes(16)
    randomness.restore(state)
    assert held["cpu"] == bytes(range(16))


def test_import_of_randomness_imports_no_other_backend():
    """Looking for TensorFlow and PyTorch does not import them."""
    script = (
        "import os, sys; os.environ['KERAS_BACKEND'] = 'jax'\n"
        "from keepfit import randomness\n"
        "before = {'tensorflow', 'torch'} & set(sys.modules)\n"
        "randomness.restore(randomness.take())\n"
        "assert {'tensorflow', 'torch'} & set(sys.modules) == before\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
