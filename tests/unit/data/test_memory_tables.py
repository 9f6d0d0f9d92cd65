"""Tables in memory as partitions: Arrow's, and data sets like those of Hugging Face's ``datasets``."""

import re
import subprocess
import sys

import numpy as np
import pytest

from keepfit import errors
from keepfit.data import describe_difference, evaluation_source, fingerprint, partitions, split_validation
from keepfit.data import training_source as source_of

COUNT = 50


def columns(start=0, count=COUNT):
    numbers = np.arange(start, start + count)
    return {"a": numbers * 1.5, "b": -numbers * 1.0, "label": numbers}


class Dataset:
    """What a data set of Hugging Face's ``datasets`` gives: a row for a number, a dict of columns for a slice."""

    def __init__(self, data, *, kind=None, shown=None):
        self.data, self.kind, self.shown = data, kind, list(data) if shown is None else shown
        self.column_names = list(data)
        self.rows_asked = []

    @property
    def format(self):
        return {"type": self.kind, "format_kwargs": {}, "columns": self.shown, "output_all_columns": False}

    def with_format(self, kind=None, columns=None):
        made = Dataset(self.data, kind=kind, shown=columns)
        made.rows_asked = self.rows_asked
        return made

    def __len__(self):
        return len(next(iter(self.data.values())))

    def __getitem__(self, key):
        if not isinstance(key, slice):
            self.rows_asked.append(key)
            return {name: values[key] for name, values in self.data.items()}
        if self.kind == "arrow":
            import pyarrow as pa

            return pa.table({name: list(values[key]) for name, values in self.data.items()})
        found = {name: self.data[name][key] for name in self.shown}
        if self.kind == "numpy":
            return {name: np.array(values, float if None in list(values) else None) for name, values in found.items()}
        return {name: list(values) for name, values in found.items()}


class Plain:
    """A table without formats: columns for slices, and no more."""

    def __init__(self, data):
        self._data = data
        self.column_names = list(data)

    def __len__(self):
        return len(self._data["a"])

    def __getitem__(self, key):
        assert isinstance(key, slice)
        return {name: values[key].tolist() for name, values in self._data.items()}


def arrow(data):
    return pytest.importorskip("pyarrow").table(data)


def batch(data):
    return pytest.importorskip("pyarrow").RecordBatch.from_pydict({name: list(each) for name, each in data.items()})


KINDS = pytest.mark.parametrize("make", [arrow, batch, Dataset, Plain])


@KINDS
@pytest.mark.parametrize("shuffle", [True, False, "batch"])
def test_tables_give_the_batches_of_memory(make, shuffle, monkeypatch):
    """Several tables, read some rows at a time: the columns beside the target are the inputs."""
    monkeypatch.setattr("keepfit.readers.memory_tables.ROWS", 7)
    data = partitions([make(columns(0, 20)), make(columns(20, 30))], target="label")
    assert data.sizes == (20, 30)
    whole = columns()
    source = source_of(data, batch_size=4, seed=3, shuffle=shuffle)
    memory = source_of(
        np.stack([whole["a"], whole["b"]], axis=1), whole["label"], batch_size=4, seed=3, shuffle=shuffle
    )
    for mine, other in zip(source.read(1, 0, COUNT), memory.read(1, 0, COUNT), strict=True):
        assert mine.dtype == other.dtype
        assert np.array_equal(mine, other)


@KINDS
def test_a_table_alone_is_the_only_partition(make):
    """It is not taken for a list of columns; without a target all columns are inputs."""
    assert partitions(make(columns()), target="label").sizes == (COUNT,)
    assert source_of(partitions(make(columns())), seed=0).peek().shape == (32, 3)


def test_a_data_set_is_read_by_slices():
    """No row is asked for alone, to train, to split or to identify it."""
    dataset = Dataset(columns())
    data = partitions([dataset], target="label")
    train, held_back = split_validation(data, None, None, 0.2)
    for side in (source_of(train[0], seed=0), evaluation_source(held_back[0])):
        side.read(0, 0, side.num_samples)
    fingerprint(data)
    assert dataset.rows_asked == []


def test_the_format_of_a_data_set_decides_which_columns_there_are():
    """Columns that it leaves out are left out, and what a transform gives is taken as it is."""
    chosen = Dataset(columns(), kind="torch", shown=["a", "label"])
    assert (
        source_of(partitions(chosen, target="label"), seed=0).peek()[0].tolist() == columns()["a"][:32, None].tolist()
    )

    class Transformed(Dataset):
        def __getitem__(self, key):
            made = {name: values * 2 for name, values in Dataset(self.data, kind="numpy")[key].items()}
            return {"a": made["a"], "made": made["label"]}

    made = source_of(partitions(Transformed(columns(), kind="custom"), target="made"), seed=0, shuffle=False)
    assert made.read(0, 0, 3)[1].tolist() == [0, 2, 4]


@KINDS
def test_a_table_given_as_it_is_is_refused_with_the_line_to_write(make):
    """To train, to split, to validate: nothing says which column is the target."""
    table = make(columns())
    told = (
        r'its columns is the target: a, b, label\. Nothing was changed.*keepfit.partitions\(\[table\], target="label"\)'
    )
    for call in (
        lambda: source_of(table, seed=0),
        lambda: evaluation_source(table, counted=True),
        lambda: split_validation(table, None, None, 0.5),
    ):
        with pytest.raises(errors.InvalidData, match=told):
            call()


@pytest.mark.parametrize("make", [arrow, batch])
def test_an_arrow_table_beside_targets_is_the_array_that_keras_takes_it_for(make):
    """So that what works with Keras's own ``fit`` and ``predict`` goes on working, split or not."""
    data, y = make({name: columns()[name] for name in "ab"}), columns()["label"]
    memory = np.stack([columns()["a"], columns()["b"]], axis=1).astype("float32")
    assert np.array_equal(source_of(data, y, seed=0, shuffle=False).read(0, 0, COUNT)[0], memory)
    assert np.array_equal(evaluation_source(data).read(0, 0, COUNT), memory)
    (train, targets, _), _ = split_validation(data, y, None, 0.2)
    assert np.array_equal(source_of(train, targets, seed=0, shuffle=False).read(0, 0, 40)[0], memory[:40])


def test_a_data_set_beside_targets_or_to_predict_is_refused_too():
    """Its rows are dicts, which it would give one by one."""
    dataset = Dataset(columns())
    for call in (lambda: source_of(dataset, columns()["a"], seed=0), lambda: evaluation_source(dataset)):
        with pytest.raises(errors.InvalidData, match="a table"):
            call()


@KINDS
def test_a_target_that_is_no_column_is_refused_at_once(make):
    """With the columns that there are."""
    with pytest.raises(errors.InvalidArgument, match=r"no column 'price', only a, b, label\. Nothing was changed"):
        partitions([make(columns())], target="price")


@KINDS
def test_the_fingerprint_of_tables_sees_what_changed(make):
    """Rows, columns and content; equal content in another object is the same."""
    one = fingerprint(partitions([make(columns())], target="label"))
    assert describe_difference(one, fingerprint(partitions([make(columns())], target="label"))) is None
    other = columns()
    other["b"][37] += 1
    for changed, told in (
        (other, "has other content"),
        (columns(0, 40), "had 50 samples and has now 40"),
        ({**columns(), "c": columns()["a"]}, "of a, b, label and is now .* of a, b, label, c"),
    ):
        difference = describe_difference(one, fingerprint(partitions([make(changed)], target="label")))
        assert difference is not None
        assert re.search(told, difference), difference


def test_of_a_large_table_stretches_are_compared(monkeypatch):
    """The first and the last rows, and some between; a change elsewhere escapes, as the guarantees say."""
    monkeypatch.setattr("keepfit.readers.memory_tables._WHOLE_BYTES", 1000)
    monkeypatch.setattr("keepfit.readers.memory_tables._STRETCH", 3)

    def facts(row=None):
        data = columns(0, 1000)
        if row is not None:
            data["a"][row] += 1
        return fingerprint(partitions([Dataset(data)], target="label"))

    assert all(describe_difference(facts(), facts(row)) for row in (0, 2, 997, 999))
    assert describe_difference(facts(), facts(50)) is None


def test_the_fingerprint_of_a_table_is_the_same_in_another_process():
    """It holds no number of an object, and no hash of Python's own."""
    code = (
        "from tests.unit.data.test_memory_tables import *\n"
        "print(fingerprint(partitions([Dataset(columns())], target='label')))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines()[-1] == str(fingerprint(partitions([Dataset(columns())], target="label")))


def test_values_that_are_missing_are_refused_and_nan_is_not():
    """As in files; as NumPy, a data set would give NaN for both."""
    pytest.importorskip("pyarrow")
    holes = {"a": np.array([1.0, None, 3.0], object), "label": np.arange(3)}
    for make in (arrow, batch, Dataset, Plain):
        with pytest.raises(errors.PartitionFailed, match="1 values are missing"):
            source_of(partitions([make(holes)], target="label"), seed=0)
        source_of(partitions([make({**holes, "a": np.array([1.0, np.nan, 3.0])})], target="label"), seed=0)


def test_lists_of_one_length_become_arrays_of_two_axes():
    """One of them that is missing is refused, not left out."""
    pyarrow = pytest.importorskip("pyarrow")
    kind = pyarrow.list_(pyarrow.float64(), 2)
    table = pyarrow.table({"x": pyarrow.array([[1, 2], [3, 4], [5, 6]], kind), "label": [0, 1, 2]})
    assert source_of(partitions([table], target="label"), seed=0).peek()[0].tolist() == [[1, 2], [3, 4], [5, 6]]
    table = pyarrow.table({"x": pyarrow.array([[1, 2], None, [5, 6]], kind), "label": [0, 1, 2]})
    with pytest.raises(errors.PartitionFailed, match="1 values are missing"):
        source_of(partitions([table], target="label"), seed=0)


def test_columns_of_the_same_name_are_refused():
    """One of them would be lost."""
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.Table.from_arrays([pyarrow.array([1.0])] * 2, names=["a", "a"])
    with pytest.raises(errors.PartitionFailed, match="the same name"):
        source_of(partitions([table]), seed=0)


def test_an_empty_table_among_others_has_no_samples():
    """As an empty file."""
    data = partitions([Dataset(columns(0, 0)), Dataset(columns(0, 9))], target="label")
    assert data.sizes == (0, 9)
    assert sorted(source_of(data, seed=0).read(0, 0, 9)[1].tolist()) == list(range(9))
