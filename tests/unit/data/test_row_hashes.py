"""Hashes of rows tell rows apart, whatever they are like, and stay what they are."""

from __future__ import annotations

from typing import Any

import keras
import ml_dtypes
import numpy as np
import pytest

from keepfit.data import batch_hashes, content_digest, row_hashes

GENERATOR = np.random.default_rng(3)
EXPECTED = ["81085cdf61b8b35f", "ae130261050e337f", "b1b9ac6aefa4bfce", "a919cbf380657c0c"]


def pixels() -> Any:
    """Whole numbers from 0 to 255 as floats: the lower half of every word is zero."""
    return GENERATOR.integers(0, 256, size=(200_000, 12)).astype("float32")


def counters() -> Any:
    """Rows that differ in one number, in steps."""
    rows = np.zeros((1_000_000, 3), "float64")
    rows[:, 1] = np.arange(len(rows)) * 2.0**40
    return rows


def one_hot() -> Any:
    """One bit of each row is set, or two."""
    size = 1000
    rows = np.eye(size, dtype="uint8")
    return np.concatenate([rows, rows | np.roll(rows, 1, axis=1), rows | np.roll(rows, 7, axis=1)])


def wide() -> Any:
    """Rows that xxh3 hashes, each pair of them differing in few bits."""
    rows = np.zeros((20_000, 200), "float32")
    rows[:, 150] = np.arange(len(rows)) * 2.0**20
    return rows


@pytest.mark.parametrize("make", [pixels, counters, one_hot, wide])
def test_rows_that_differ_have_hashes_that_differ(make: Any) -> None:
    """Of up to a million different rows of numbers as they occur, no two have the same hash."""
    rows = make()
    different = len(np.unique(rows, axis=0))
    assert len(np.unique(row_hashes([rows]))) == different


def test_a_row_that_occurs_again_has_the_same_hash_wherever_it_lies() -> None:
    """The place of a row, the rows beside it and the memory it lies in do not matter."""
    rows, targets = GENERATOR.normal(size=(5000, 9)).astype("float32"), GENERATOR.normal(size=(5000, 1))
    hashes = row_hashes([rows, targets])
    order = GENERATOR.permutation(len(rows))
    assert np.array_equal(row_hashes([rows[order], targets[order]]), hashes[order])
    assert np.array_equal(row_hashes([np.asfortranarray(rows), targets[::-1][::-1]]), hashes)
    assert np.array_equal(row_hashes([rows[:1], targets[:1]]), hashes[:1])


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "int64", "float16", "bfloat16", "float32", "complex64"])
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 5), (257,)])
def test_every_dtype_and_width_has_hashes(dtype: str, shape: tuple[int, ...]) -> None:
    """Bytes that are no whole number of words count too: a change of the last element changes the hash."""
    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    rows = np.zeros((6, *shape), kind)
    before = row_hashes([rows])
    assert len(set(before.tolist())) == 1
    rows[(4, *(-1 for _ in shape))] = 1
    after = row_hashes([rows])
    assert np.flatnonzero(after != before).tolist() == [4]


def test_hashes_are_what_they_were() -> None:
    """Hashes lie in checkpoints: another version of keepfit, NumPy or xxhash must give the same ones."""
    narrow = row_hashes([np.arange(6, dtype="float32").reshape(2, 3), np.array([0, 1])])
    broad = row_hashes([np.arange(400, dtype="float32").reshape(2, 200)])
    assert [f"{value:016x}" for value in (*narrow.tolist(), *broad.tolist())] == EXPECTED


def test_weights_are_no_part_of_a_row() -> None:
    """A row with another weight is the same row; with another target it is another."""
    x, y, weights = np.ones((3, 2)), np.arange(3), np.arange(3.0)
    assert np.array_equal(batch_hashes((x, y, weights)), batch_hashes((x, y)))
    assert len(set(batch_hashes((x, y)).tolist())) == 3
    assert len(set(batch_hashes((x,)).tolist())) == 1


def test_arrays_of_inputs_by_name_are_one_row() -> None:
    """Inputs and targets in dicts belong to their row, None among them is nothing."""
    x = {"a": np.arange(4.0), "b": np.array([0.0, 0.0, 1.0, 1.0])}
    hashes = batch_hashes((x, {"out": np.zeros(4), "none": None}))
    assert len(set(hashes.tolist())) == 4


def test_hashes_are_spread_evenly() -> None:
    """Of rows that count up, a quarter has a hash in each quarter: a sample by hash is a fair one."""
    for rows in (np.arange(40_000, dtype="float32")[:, None], np.arange(40_000)[:, None] * 1024):
        quarters = np.bincount((row_hashes([rows]) >> np.uint64(62)).astype(int), minlength=4)
        assert np.all(np.abs(quarters - 10_000) < 400)


def test_a_change_shows_in_the_digest() -> None:
    """A small array changed in place anywhere, another shape or another dtype is other content."""
    array = np.zeros((32, 100), "float32")
    seen = {content_digest([array])}
    for place in (0, 1234, array.size - 1):
        array.flat[place] = 1.0
        seen.add(content_digest([array]))
    seen |= {content_digest([array.reshape(100, 32)]), content_digest([array.view("int32")])}
    assert len(seen) == 6


@pytest.mark.parametrize("array", [GENERATOR.normal(size=(70_000, 9)), GENERATOR.normal(size=(3, 400_000))])
def test_digest_of_large_arrays_is_that_of_equal_ones(array: Any) -> None:
    """Of a large array parts are read: a copy has the same digest, other content another one."""
    assert content_digest([array]) == content_digest([array.copy()])
    assert content_digest([array[:, ::2]]) == content_digest([array[:, ::2].copy(order="F")])
    assert content_digest([array]) != content_digest([array + 1])


def test_arrays_of_the_backend_have_the_digest_of_their_content() -> None:
    """An array of JAX is read once, and known by its content after that."""
    if keras.backend.backend() != "jax":
        pytest.skip("of other backends a source makes NumPy arrays")
    import jax.numpy as jnp

    array = jnp.arange(12.0).reshape(3, 4)
    assert content_digest([array]) == content_digest([array]) == content_digest([jnp.arange(12.0).reshape(3, 4)])
    assert content_digest([array]) != content_digest([array + 1])
