"""Fingerprints: the same data in another process is the same, changed data is told apart and described."""

import json

import jax.experimental.sparse as jax_sparse
import jax.numpy as jnp
import keras
import ml_dtypes
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from keepfit.data import describe_difference, fingerprint
from keepfit.data.fingerprint import WHOLE_BYTES, fixed_rows


class Batches(keras.utils.PyDataset):
    """A PyDataset of some length."""

    def __init__(self, count):
        super().__init__()
        self.count = count

    def __len__(self):
        return self.count


def ramp(*shape, dtype="float32"):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


PIN_ROWS = [
    "2a33816ed7e0c373dbe563c737220b65",
    "45cdd2e492a8bbfc29cc0124ca8bf34b",
    "0c3864a6c15091ba5c17dcab9fc3967b",
]
PIN_WHOLE = "583ee361663f563f83e77f585e9f1e52"

KINDS = {
    "array": lambda: ramp(30, 2),
    "one axis": lambda: ramp(30),
    "no axes": lambda: np.float32(3),
    "empty": lambda: np.zeros((0, 2)),
    "bfloat16": lambda: ramp(30, 2).astype(ml_dtypes.bfloat16),
    "bool": lambda: ramp(30) > 4,
    "text": lambda: np.array(["a", "bc"]),
    "objects": lambda: np.array(["a", "bc", None], dtype=object),
    "fortran order": lambda: np.asfortranarray(ramp(30, 2)),
    "jax": lambda: jnp.arange(30, dtype="bfloat16"),
    "frame": lambda: pd.DataFrame({"a": ramp(30), "b": ramp(30, dtype="int64")}),
    "series": lambda: pd.Series(ramp(30)),
    "scipy": lambda: scipy.sparse.random(30, 5, 0.3, random_state=1),
    "jax sparse": lambda: jax_sparse.BCOO.fromdense(jnp.eye(30)),
    "nested": lambda: {"x": [ramp(30), None], "y": (ramp(30),)},
    "PyDataset": lambda: Batches(4),
    "generator": lambda: (row for row in ()),
    "none": lambda: None,
    "something else": lambda: object(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_equal_data_has_equal_fingerprints(kind):
    """Data made twice has one fingerprint, and it survives JSON."""
    first, second = fingerprint(KINDS[kind]()), fingerprint(KINDS[kind]())
    assert json.loads(json.dumps(first)) == second
    assert describe_difference(first, second) is None


def test_fingerprints_are_pinned():
    """A fingerprint never changes between versions, or recorded fits would not be found."""
    assert fingerprint(ramp(3, dtype="int32")) == {
        "kind": "array",
        "shape": [3],
        "dtype": "int32",
        "rows": PIN_ROWS,
        "whole": PIN_WHOLE,
    }


def test_fixed_rows_depend_on_no_size():
    """The rows looked at in less data are the first of those in more data."""
    assert fixed_rows(14).tolist() == [0, 1, 2, 3, 5, 8, 13]
    assert fixed_rows(0).tolist() == []
    assert fixed_rows(1).tolist() == [0]
    longest = fixed_rows(10**18)
    assert len(longest) <= 64
    for count in (2, 3, 13, 100, 10**6):
        rows = fixed_rows(count)
        assert np.array_equal(rows, longest[: len(rows)])
        assert rows.max() < count


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (ramp(30, 2), ramp(40, 2), "x has grown from 30 to 40 rows with the same first rows"),
        (ramp(40, 2), ramp(30, 2), "x has shrunk from 40 to 30 rows with the same first rows"),
        (ramp(30, 2), ramp(30, 2) + 1, "x has other values: 8 of 8 compared rows differ"),
        (ramp(30), np.where(ramp(30) == 8, 0, ramp(30)), "x has other values: 1 of 8 compared rows differ"),
        (ramp(30), np.where(ramp(30) == 9, 0, ramp(30)), "x has other values in some rows"),
        (ramp(30, 2), ramp(40, 2) + 1, "x has grown from 30 to 40 rows; 8 of 8 compared rows differ"),
        (ramp(30, 2), ramp(30, 3), "x has another shape: (30, 2), now (30, 3)"),
        (ramp(30), ramp(30, 1), "x has another shape: (30,), now (30, 1)"),
        (ramp(30), ramp(30, dtype="float64"), "x has another dtype: float32, now float64"),
        (ramp(30), None, "x was an array and is now None"),
        ([ramp(3)], [ramp(3), ramp(3)], "x[1] is new"),
        ({"a": ramp(3), "b": ramp(3)}, {"a": ramp(3)}, "x['b'] is gone"),
        ({"a": [ramp(3)]}, {"a": [ramp(3) + 1]}, "x['a'][0] has other values: 3 of 3 compared rows differ"),
        (Batches(3), Batches(4), "x has another number of batches: 3, now 4"),
        (
            pd.DataFrame({"a": [1]}),
            pd.DataFrame({"b": [1]}),
            "x has other columns: ['a'], now ['b']",
        ),
        (scipy.sparse.eye(9, format="csr"), scipy.sparse.eye(9, format="csr") * 2, "x has other values: 6 of 6"),
    ],
)
def test_differences_are_described(old, new, said):
    """What changed is said in one sentence that names the array."""
    found = describe_difference(fingerprint({"x": old}), fingerprint({"x": new}))
    assert found.startswith(said)


def test_a_single_structure_is_described_without_a_name():
    """Data given without a name is called the data."""
    assert describe_difference(fingerprint(ramp(3)), fingerprint(ramp(4))).startswith("the data has grown")
    assert describe_difference(fingerprint((ramp(3), None)), fingerprint((ramp(3), ramp(3)))) == (
        "[1] was None and is now an array"
    )


def test_many_differences_are_counted():
    """Of many differences the first are told and the rest counted."""
    old, new = ({str(key): ramp(3) + shift for key in range(6)} for shift in (0, 1))
    found = describe_difference(fingerprint(old), fingerprint(new))
    assert found.count("differ;") == 3
    assert found.endswith("and 3 more")


def test_changes_beyond_the_whole_hash_may_escape():
    """Above 4 MB only the fixed rows are read: a change elsewhere escapes, one there does not."""
    x = np.zeros((WHOLE_BYTES // 4 + 10, 1), "float32")
    before = fingerprint(x)
    x[4] = 1
    assert fingerprint(x) == before
    x[5] = 1
    assert fingerprint(x) != before


def test_sparse_formats_of_the_same_values_are_equal():
    """The order in which a sparse matrix stores its values does not matter."""
    first = scipy.sparse.random(30, 5, 0.3, format="csr", random_state=1)
    assert fingerprint(first) == fingerprint(first.tocoo()) == fingerprint(first.tocsc())


def test_large_arrays_on_disk_are_not_read(tmp_path):
    """Of a memory-mapped array only the fixed rows are touched, and it is the same as one in memory."""
    data = ramp(1000, 3)
    np.save(tmp_path / "x.npy", data)
    assert fingerprint(np.load(tmp_path / "x.npy", mmap_mode="r")) == fingerprint(data)
