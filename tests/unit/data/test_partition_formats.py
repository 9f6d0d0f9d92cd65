"""Every format of partitions gives the rows that were written."""

import importlib
import importlib.util

import numpy as np
import pandas as pd
import pytest

from keepfit import errors
from keepfit.data import partitions, training_source

COUNTS = [3, 40, 7]


def table(start, count):
    numbers = np.arange(start, start + count)
    return pd.DataFrame({"a": numbers * 1.5, "b": -numbers * 1.0, "label": numbers})


def csv(path, frame):
    frame.to_csv(path, index=False)


def parquet(path, frame):
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pandas(frame, preserve_index=False), path, row_group_size=16)


def arrow(path, frame):
    import pyarrow as pa
    from pyarrow import feather

    feather.write_feather(pa.Table.from_pandas(frame, preserve_index=False), path, compression="zstd")


def hdf5(path, frame):
    import h5py

    with h5py.File(path, "w") as file:
        file["x"], file["y"] = frame[["a", "b"]].to_numpy(), frame["label"].to_numpy()


def zarr(path, frame):
    import zarr

    group = zarr.open_group(str(path), mode="w")
    for name, array in (("x", frame[["a", "b"]].to_numpy()), ("y", frame["label"].to_numpy())):
        group.create_array(name, shape=array.shape, chunks=(5, *array.shape[1:]), dtype=array.dtype)[:] = array


FORMATS = {
    "csv": (csv, "pandas", "label"),
    "parquet": (parquet, "pyarrow", "label"),
    "arrow": (arrow, "pyarrow", "label"),
    "h5": (hdf5, "h5py", None),
    "zarr": (zarr, "zarr", None),
}


def written(folder, suffix):
    write, module, target = FORMATS[suffix]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    paths, start = [], 0
    for number, count in enumerate(COUNTS):
        paths.append(folder / f"part-{number}.{suffix}")
        write(paths[-1], table(start, count))
        start += count
    return partitions(paths, target=target, window=2)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_format_gives_the_rows_that_were_written(suffix, tmp_path):
    """Sizes are counted, and inputs and targets are those of memory, shuffled and not."""
    data = written(tmp_path, suffix)
    whole = table(0, sum(COUNTS))
    assert data.sizes == tuple(COUNTS)
    for shuffle in (False, True):
        source = training_source(data, batch_size=4, seed=1, shuffle=shuffle)
        order = source.order(0, 0, sum(COUNTS))
        x, y = source.read(0, 0, sum(COUNTS))
        assert np.array_equal(x, whole[["a", "b"]].to_numpy("float32")[order])
        assert np.array_equal(y, whole["label"].to_numpy()[order])
        assert y.dtype == whole["label"].dtype


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_is_cut_off_is_not_read_as_if_it_were_whole(suffix, tmp_path):
    """A truncated file is named, whatever its format says to it."""
    data = written(tmp_path, suffix)
    path = data.parts[1].paths[0]
    training_source(data, batch_size=4, seed=1)
    if path.is_dir():
        next(each for each in sorted(path.rglob("*")) if each.is_file() and each.stat().st_size > 50).unlink()
    else:
        path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(errors.PartitionFailed, match="Partition 1"):
        training_source(data, batch_size=4, seed=1, shuffle=False).read(0, 0, 50)


@pytest.mark.parametrize(("suffix", "module", "extra"), [("parquet", "pyarrow", "arrow"), ("zarr", "zarr", "zarr")])
def test_a_missing_library_is_named_with_the_line_that_installs_it(suffix, module, extra, tmp_path, monkeypatch):
    """The message says which extra brings it."""
    imported = importlib.import_module

    def without(name, *rest):
        if name.split(".")[0] == module:
            raise ModuleNotFoundError(name, name=name)
        return imported(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    (tmp_path / f"a.{suffix}").mkdir()
    with pytest.raises(errors.PartitionFailed, match=rf'needs {module}, (.|\n)* pip install "keepfit\[{extra}\]"'):
        training_source(partitions([tmp_path / f"a.{suffix}"]), seed=0)


def test_a_target_that_is_not_there_is_named(tmp_path):
    """With the columns that are."""
    csv(tmp_path / "a.csv", table(0, 3))
    with pytest.raises(errors.PartitionFailed, match="no column 'price', only a, b, label"):
        training_source(partitions([tmp_path / "a.csv"], target="price"), seed=0)
