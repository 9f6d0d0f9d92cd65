from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keepfit.store.tensors import content, decoded, digest, dtype_named, encoded, name_of, plain, slices

DTYPES = [
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32",
    "float64", "complex64", "complex128", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3b11fnuz", "int4",
]  # fmt: skip


def round_trip(array: np.ndarray) -> np.ndarray:
    array = plain(array)
    data = bytearray(b"".join(encoded({"t": array})))
    return decoded(data, slices(data)["t"], dtype=name_of(array.dtype), shape=array.shape)


def assert_same_bits(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (5,), (2, 3, 4)])
def test_every_dtype_and_shape_comes_back_bit_for_bit(name, shape):
    """All numeric dtypes, those of ml_dtypes included, and empty and 0-d arrays round-trip."""
    dtype = dtype_named(name)
    array = np.arange(int(np.prod(shape)), dtype=np.float32).reshape(shape).astype(dtype)
    found = round_trip(array)
    assert_same_bits(found, array)
    assert found.flags.writeable


@given(hnp.arrays(hnp.floating_dtypes() | hnp.integer_dtypes(), hnp.array_shapes(min_dims=0, min_side=0)))
def test_any_values_come_back_bit_for_bit(array):
    """Payloads of NaN, signed zeros and any byte order survive, the last as little-endian."""
    expected = array.astype(array.dtype.newbyteorder("<"))
    assert_same_bits(round_trip(array), expected)


@pytest.mark.parametrize(
    "view",
    [lambda a: a.T, lambda a: a[::2], lambda a: a[:, 1:3], lambda a: a[::-1], lambda a: np.broadcast_to(a[0], (3, 4))],
)
def test_views_that_are_not_contiguous_are_stored_as_they_look(view):
    """Transposed, strided, reversed and broadcast arrays are stored by value."""
    array = view(np.arange(24.0).reshape(6, 4))
    assert np.array_equal(round_trip(array), array)


def test_files_are_read_by_the_safetensors_package(tmp_path):
    """What we write is the public format: its own reader gives the same arrays."""
    from safetensors.numpy import load_file

    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.asarray(7, np.int8), "c": np.zeros((2, 0), np.float32)}
    (tmp_path / "x.safetensors").write_bytes(b"".join(encoded(arrays)))
    found = load_file(tmp_path / "x.safetensors")
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        assert_same_bits(found[name], array)


def test_digest_tells_dtype_shape_and_bytes_apart():
    """Arrays that differ in anything have different hashes; a copy has the same."""
    base = np.zeros((2, 3), np.float32)
    others = [base.reshape(3, 2), base.astype(np.int32), base.astype(ml_dtypes.bfloat16), base + 1, -base]
    assert len({digest(plain(item)) for item in [base, *others]}) == len(others) + 1
    assert digest(plain(base.copy())) == digest(plain(base))


@pytest.mark.parametrize("value", ["text", object(), np.asarray(["a"]), np.asarray([1, None]), np.zeros(2, "M8[s]")])
def test_plain_refuses_what_is_not_numbers(value):
    """Text, objects and dates are refused by dtype."""
    with pytest.raises(TypeError, match="numeric dtype"):
        plain(value)


@pytest.mark.parametrize("name", ["object", "O", "str", "finfo", "void64", "datetime64[s]", "nonsense"])
def test_dtype_named_knows_numbers_only(name):
    """A manifest that was tampered with cannot ask for objects."""
    with pytest.raises(TypeError):
        dtype_named(name)


@given(st.data())
def test_slices_never_fail_otherwise_than_by_value_error(data):
    """Any damage to a header is a ValueError, never another exception or a read beyond the file."""
    whole = bytearray(b"".join(encoded({"a": np.arange(5.0), "b": np.zeros(3, np.int8)})))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    whole = whole[: data.draw(st.integers(0, len(whole)))]
    try:
        found = slices(whole)
    except ValueError:
        return
    assert all(0 <= item.start <= item.stop <= len(whole) for item in found.values())


def test_content_does_not_copy():
    """Large tensors are written from where they lie."""
    array = np.arange(4.0)
    view = content(array)
    array[0] = 7
    assert bytes(view[:8]) == np.asarray(7.0).tobytes()
