"""Processes that read partitions: the same data as threads give, whatever becomes of them."""

import gc
import itertools
import os
import pickle
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.data import loads

from keepfit import errors
from keepfit.data import fingerprint, partitions, training_source
from keepfit.readers.formats import part_of
from keepfit.readers.wire import pickled

ROOT = Path(__file__).resolve().parents[3]


def items_of(sizes):
    ends = np.cumsum([0, *sizes]).tolist()
    return list(itertools.pairwise(ends))


def source_of(data, **options):
    return training_source(data, seed=4, **{"batch_size": 4, "shuffle": False, **options})


@settings(max_examples=12)
@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=6).filter(any),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from([True, False, "batch"]),
    st.data(),
)
def test_threads_and_processes_of_any_number_give_the_same_order_and_bits(sizes, window, workers, shuffle, data):
    """Sizes, windows, numbers of readers and places of a cut that hypothesis chooses."""
    items, total = items_of(sizes), sum(sizes)
    by_threads = partitions(items, load=loads.span, window=window)
    by_processes = partitions(items, load=loads.span, window=window, workers=workers, processes=True)
    one, other = (training_source(each, batch_size=4, seed=9, shuffle=shuffle) for each in (by_threads, by_processes))
    cut = data.draw(st.integers(0, total - 1))
    for start, stop in ((cut, total), (0, cut)):
        for mine, theirs in zip(one.read(2, start, stop), other.read(2, start, stop), strict=True):
            assert mine.dtype == theirs.dtype
            assert np.array_equal(mine, theirs)
    assert fingerprint(by_threads) == fingerprint(by_processes)
    by_processes.close()


def test_another_process_reads_without_keras_or_a_backend():
    """It reads elsewhere; the negative control is this process, which has them."""
    data = partitions([0, 1], load=loads.process, processes=True)
    seen = set(source_of(data).read(0, 0, 8)[:, 0].tolist())
    assert os.getpid() not in seen
    data.close()
    data = partitions([0], load=loads.heavy_modules, processes=True)
    assert not source_of(data).read(0, 0, 2).any()
    assert source_of(partitions([0], load=loads.heavy_modules)).read(0, 0, 2).any()
    data.close()


def test_files_are_read_by_processes_too(tmp_path):
    """Pieces of files come over one by one, under the folder that is the current one."""
    for number, item in enumerate(items_of([30, 0, 20])):
        x, y = loads.span(item)
        np.savez(tmp_path / f"part-{number}.npz", x=x, y=y)
    paths = [tmp_path / f"part-{number}.npz" for number in range(3)]
    data = partitions(paths, processes=True, workers=2)
    for mine, theirs in zip(source_of(data).read(0, 0, 50), source_of(partitions(paths)).read(0, 0, 50), strict=True):
        assert np.array_equal(mine, theirs)
    data.close()


def test_what_a_loader_prints_does_not_disturb_its_answers(capfd):
    """Lines go to stderr."""
    data = partitions(items_of([3, 4]), sizes=[3, 4], load=loads.printing, processes=True)
    assert source_of(data).read(0, 0, 7)[1].tolist() == list(range(7))
    data.close()
    assert "a line" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("killed", "ended by SIGKILL"),
        ("exits", "ended with exit code 3"),
        ("raises", "OSError: the disk is away"),
        ("hangs", r"not read within 5 seconds"),
        ("leaves", "SystemExit: enough"),
        ("odd", "Odd: "),
    ],
)
def test_a_process_that_fails_names_partition_and_sample_and_the_next_try_works(how, message, tmp_path):
    """Killed, ended, hanging or raising: the partition is named, and fresh processes read it once it is repaired."""
    flag = tmp_path / "fails"
    flag.touch()
    load = loads.Faulty(str(flag), how)
    data = partitions(items_of([3, 4]), sizes=[3, 4], load=load, processes=True, timeout_s=5)
    source = source_of(data)
    with pytest.raises(errors.PartitionFailed, match=message) as raised:
        source.read(0, 0, 7)
    assert (raised.value.partition, raised.value.sample) == (1, 0)
    flag.unlink()
    assert source.read(0, 0, 7)[1].tolist() == list(range(7))
    data.close()


def test_a_process_that_is_killed_between_two_partitions_is_replaced():
    """Nobody notices."""
    data = partitions(items_of([4] * 6), sizes=[4] * 6, load=loads.span, window=1, processes=True)
    source = source_of(data)
    for start in range(0, 24, 4):
        source.read(0, start, start + 4)
        for reading in data.shelf._held.values():
            assert reading.done.wait(60)
        (pid,) = data._workers.pids
        os.kill(pid, signal.SIGKILL)
        data._workers._idle[0].process.wait()
    data.close()


@pytest.mark.parametrize("end", ["close", "forget"])
def test_no_process_outlives_the_data(end):
    """Neither when it is closed nor when nobody uses it any more."""
    data = partitions(items_of([4, 4]), sizes=[4, 4], load=loads.span, processes=True)
    source = source_of(data)
    source.read(0, 0, 8)
    readers = [psutil.Process(pid) for pid in data._workers.pids]
    assert readers
    if end == "close":
        data.close()
    del data, source
    gc.collect()
    psutil.wait_procs(readers, timeout=60)
    assert not any(reader.is_running() for reader in readers)


@pytest.mark.parametrize("load", ["forever", "unwatched"])
def test_no_process_outlives_a_script_that_was_killed(load, tmp_path):
    """SIGKILL, in the middle of a partition that is never read; the negative control does not see who is dead."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys, signal\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "import keepfit\n"
        "from keepfit.readers.part import FunctionPart\n"
        "from keepfit.readers.workers import Workers\n"
        "from functools import partial\n"
        "from tests.unit.data import loads\n"
        f"list(Workers().pieces(FunctionPart(partial(loads.{load}, 'pids'), name='')))\n"
    )
    started = subprocess.Popen([sys.executable, script], cwd=tmp_path)
    pids = tmp_path / "pids"
    while not pids.exists() or not pids.read_text().endswith("\n"):
        assert started.poll() is None
    reader = psutil.Process(int(pids.read_text()))
    started.kill()
    started.wait()
    if load == "forever":
        psutil.wait_procs([reader], timeout=60)
        assert not reader.is_running()
        return
    looks = tmp_path / "looks"
    seen = looks.stat().st_size if looks.exists() else 0
    while not looks.exists() or looks.stat().st_size < seen + 2 * len("looked\n"):
        assert reader.is_running()
    assert reader.is_running()
    reader.kill()


def test_a_script_is_not_run_again_by_its_readers(tmp_path):
    """Without ``if __name__ == "__main__"``, and its own functions are refused before anything happens."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "print('run', flush=True)\n"
        "import keepfit\n"
        "from keepfit.data import training_source\n"
        "from tests.unit.data import loads\n"
        "data = keepfit.partitions([(0, 3), (3, 7)], load=loads.span, processes=True)\n"
        "print(training_source(data, batch_size=4, seed=0, shuffle=False).read(0, 0, 7)[1].tolist())\n"
        "def load(item):\n"
        "    return loads.span(item)\n"
        "try:\n"
        "    keepfit.partitions([(0, 3)], load=load, processes=True)\n"
        "except keepfit.errors.InvalidArgument as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=True)
    first, read, refused = done.stdout.splitlines()
    assert (first, read) == ("run", "[0, 1, 2, 3, 4, 5, 6]")
    assert "load is defined in the script itself" in refused
    assert "Nothing was changed. Move functions and classes that it needs" in refused


def test_what_cannot_be_sent_is_refused_before_anything_changes():
    """A lambda, as ``load`` or as a partition; threads take it."""
    for arguments in (
        {"parts": [1, 2], "load": lambda item: item},
        {"parts": [partial(loads.span, (0, 3)), lambda: 1]},
    ):
        with pytest.raises(errors.InvalidArgument, match=r"partition \d \(.*\) to another process") as raised:
            partitions(**arguments, processes=True)
        assert "Nothing was changed" in str(raised.value)
        assert "processes=False" in str(raised.value)
        partitions(**arguments)
    with pytest.raises(errors.InvalidArgument, match="processes=2"):
        partitions([1], load=loads.span, processes=2)


def test_a_slice_of_a_table_is_sent_without_the_rest():
    """A table that is cut into partitions: a process gets its rows alone, with the bits that threads give."""
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"x": np.arange(500_000) * 1.5, "label": np.arange(500_000)})
    for cut in (table.slice(499_900, 50), table.slice(499_900, 50).to_batches()[0]):
        part = part_of(cut, 0, load=None, target="label")
        assert len(pickled(part)) < 10_000
        assert len(pickle.dumps(cut, 5)) > 4_000_000  # what it would be
    items = [table.slice(0, 60), table.slice(70, 0), table.slice(60, 40)]
    one, other = (partitions(items, target="label", processes=processes) for processes in (False, True))
    for mine, theirs in zip(source_of(one).read(0, 0, 100), source_of(other).read(0, 0, 100), strict=True):
        assert np.array_equal(mine, theirs)
        assert mine.dtype == theirs.dtype
    assert fingerprint(one) == fingerprint(other)
    other.close()


def test_a_table_comes_over_as_it_was():
    """Chunks, metadata, no rows at all; a type of the user's own goes the usual way."""
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"x": [1.5, 2.5, 3.5], "t": ["a", None, "c"]}).replace_schema_metadata({"k": "v"})
    twice = pyarrow.concat_tables([table, table.slice(1)])
    kind = pyarrow.uuid()
    own = pyarrow.table(
        {"x": pyarrow.ExtensionArray.from_storage(kind, pyarrow.array([b"0123456789abcdef"] * 3, pyarrow.binary(16)))}
    )
    for each in (table, twice, table.slice(1, 1), table.slice(0, 0), table.to_batches()[0], own, own.slice(1)):
        back = pickle.loads(pickled(each))
        assert type(back) is type(each)
        assert back.equals(each)
        assert back.schema.equals(each.schema, check_metadata=True)
    assert pickle.loads(pickled(twice)).column("x").num_chunks == 2


def test_every_kind_of_partition_of_the_script_is_refused(tmp_path):
    """A table, the transform of one, a load with an object of the script: what is in modules is read."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "import keepfit\n"
        "from functools import partial\n"
        "from keepfit.data import training_source\n"
        "from tests.unit.data import loads\n"
        "class Table(loads.Rows):\n"
        "    pass\n"
        "class Transformed(loads.Rows):\n"
        "    def __init__(self, count, transform):\n"
        "        super().__init__(count)\n"
        "        self.transform = transform\n"
        "Transformed.__module__ = 'tests.unit.data.loads'\n"
        "loads.Transformed = Transformed\n"
        "def transform(columns):\n"
        "    return columns\n"
        "given = [\n"
        "    dict(parts=[loads.Rows(3), Table(3)], target='label'),\n"
        "    dict(parts=[loads.Rows(3), Transformed(3, transform)], target='label'),\n"
        "    dict(parts=[(0, 3), Table(3)], load=loads.span),\n"
        "    dict(parts=[(0, 3), (3, 4)], load=partial(loads.span, Table(3))),\n"
        "]\n"
        "for arguments in given:\n"
        "    try:\n"
        "        keepfit.partitions(**arguments, processes=True)\n"
        "    except keepfit.errors.InvalidArgument as error:\n"
        "        print(error)\n"
        "data = keepfit.partitions([loads.Rows(3), loads.Rows(4)], target='label', processes=True)\n"
        "print(training_source(data, batch_size=4, seed=0, shuffle=False).read(0, 0, 7)[1].tolist())\n"
    )
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=True)
    *refused, read = done.stdout.splitlines()
    assert read == "[0, 1, 2, 0, 1, 2, 3]"
    assert [("cannot send partition 1 (" in each, "cannot send partition 0 (" in each) for each in refused] == [
        (True, False),
        (True, False),
        (True, False),
        (False, True),
    ]
    for each in refused:
        assert "is defined in the script itself" in each
        assert "Nothing was changed" in each


def test_a_process_that_hangs_when_it_starts_is_given_up(monkeypatch):
    """Whatever Python runs before it answers; the partition is named, and the process is gone."""
    monkeypatch.setattr("keepfit.readers.workers._START_S", 0.2)
    monkeypatch.setattr(
        "keepfit.readers.workers._PROGRAM", "import threading; threading.Event().wait() # {path} {parent}"
    )
    data = partitions(items_of([3]), sizes=[3], load=loads.span, processes=True)
    with pytest.raises(errors.PartitionFailed, match=r"did not start within 0\.2 seconds"):
        source_of(data)
    assert data._workers.pids == []
    monkeypatch.undo()
    assert source_of(data).read(0, 0, 3)[1].tolist() == [0, 1, 2]
    data.close()


@pytest.mark.parametrize("processes", [False, True])
@pytest.mark.parametrize(
    "arguments",
    [
        {"parts": [(0, 3)], "load": loads.hangs},
        {"parts": [(0, 3)], "load": loads.hangs, "sizes": [3]},
        {"parts": [loads.HangsWhenCounted(3)], "target": "label"},
    ],
)
def test_a_look_at_the_data_that_hangs_is_given_up(arguments, processes):
    """Counting and the first rows, with threads and with processes."""
    data = partitions(**arguments, processes=processes, timeout_s=1)
    with pytest.raises(errors.PartitionFailed, match=r"not read within 1 seconds") as raised:
        source_of(data)
    assert (raised.value.partition, raised.value.sample) == (0, None)
    data.close()


def test_a_load_that_ends_its_process_does_not_end_this_one():
    """The first call of it is in a process that reads, too."""
    data = partitions([(0, 3)], load=loads.dies, processes=True)
    with pytest.raises(errors.PartitionFailed, match="ended with exit code 4"):
        source_of(data)
    data.close()


def test_one_process_does_all_looks():
    """A look at the first rows leaves it free for the next, also where it has more rows to give."""
    data = partitions([loads.Rows(20_000), loads.Rows(20_000)], target="label", processes=True)
    assert data.sizes == (20_000, 20_000)
    (first,) = data._workers.pids
    source_of(data).read(0, 0, 4)
    for reading in data.shelf._held.values():
        assert reading.done.wait(60)
    assert data._workers.pids == [first]
    data.close()


def test_a_piece_that_comes_over_is_counted_twice():
    """In the process that reads it and in this one: a budget for threads does not do."""
    sizes, row = [100_000] * 4, 2 * 4 + 4
    room = (16 << 20) + 2 * 100_000 * row + 100_000 * 20
    items = items_of(sizes)
    source_of(partitions(items, load=loads.span, sizes=sizes, window=1, memory=room))
    with pytest.raises(errors.InvalidArgument, match="Not even window=1 fits"):
        source_of(partitions(items, load=loads.span, sizes=sizes, window=1, memory=room, processes=True))
    source_of(partitions(items, load=loads.span, sizes=sizes, window=1, memory=room + 100_000 * 20, processes=True))
