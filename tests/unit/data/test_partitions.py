"""Partitions as a source: what is read when, and what is wrong with it."""

import gc
import itertools
import threading
import time
import weakref

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepfit import errors
from keepfit.data import describe_difference, fingerprint, partitions, training_source
from keepfit.data.partitioned.sides import rows_of_side


def rows(start, stop):
    """Return inputs and targets that say which sample they are."""
    numbers = np.arange(start, stop)
    return np.stack([numbers, -numbers], axis=1).astype("float64"), numbers.astype("int32")


def functions(sizes):
    """Return one function for each partition, and the list of those that were called."""
    ends = np.cumsum(sizes).tolist()
    called = []

    def reader(number, start, stop):
        def read():
            called.append(number)
            return rows(start, stop)

        return read

    return [reader(n, end - size, end) for n, (end, size) in enumerate(zip(ends, sizes, strict=True))], called


def source_of(data, **settings):
    return training_source(data, seed=4, **{"batch_size": 4, **settings})


def files(folder, sizes, kind="npz"):
    """Write partitions as files, and return their paths."""
    paths, end = [], 0
    for number, size in enumerate(sizes):
        x, y = rows(end, end + size)
        end += size
        if kind == "npz":
            np.savez(folder / f"part-{number}.npz", x=x, y=y)
            paths.append(folder / f"part-{number}.npz")
        else:
            np.save(folder / f"x-{number}.npy", x)
            np.save(folder / f"y-{number}.npy", y)
            paths.append((folder / f"x-{number}.npy", str(folder / f"y-{number}.npy")))
    return paths


SIZES = st.lists(st.integers(0, 30), min_size=1, max_size=7).filter(any)


@given(
    SIZES, st.integers(1, 8), st.integers(1, 9), st.integers(1, 3), st.sampled_from([True, False, "batch"]), st.data()
)
def test_every_sample_comes_once_whatever_the_workers_and_cuts(sizes, window, batch_size, workers, shuffle, data):
    """Workers and the place where reading begins change nothing about which sample comes, whatever the sizes."""
    total = sum(sizes)
    made, _ = functions(sizes)
    source = training_source(
        partitions(made, sizes=sizes, window=window, workers=workers), batch_size=batch_size, seed=9, shuffle=shuffle
    )
    cut = data.draw(st.integers(0, total))
    whole = source.read(1, 0, total)
    assert sorted(whole[1].tolist()) == list(range(total))
    assert np.array_equal(whole[0][:, 0], whole[1])
    fresh = training_source(partitions(made, window=window), batch_size=batch_size, seed=9, shuffle=shuffle)
    places = [*range(cut, total, batch_size), total]
    rest = [fresh.read(1, start, stop)[1] for start, stop in itertools.pairwise(places)]
    assert np.array_equal(np.concatenate([whole[1][:0], *rest]), whole[1][cut:])


@pytest.mark.parametrize("kind", ["npz", "npy"])
def test_files_are_read_as_they_would_be_in_memory(tmp_path, kind):
    """Floats become ``floatx``, whole numbers stay, rows keep their order."""
    batch = source_of(partitions(files(tmp_path, [3, 0, 5], kind)), shuffle=False).read(0, 0, 8)
    x, y = rows(0, 8)
    assert np.array_equal(batch[0], x)
    assert (batch[0].dtype, batch[1].dtype) == (np.float32, np.int32)
    assert np.array_equal(batch[1], y)


def test_large_files_are_read_in_pieces(tmp_path, monkeypatch):
    """A partition larger than a piece is the same as in one."""
    monkeypatch.setattr("keepfit.readers.numpy_files.PIECE_BYTES", 50)
    batch = source_of(partitions(files(tmp_path, [30])), shuffle=False).read(0, 0, 30)
    assert np.array_equal(batch[0], rows(0, 30)[0])


def test_arrays_in_fortran_order_are_read_as_they_are(tmp_path):
    """The order in the file is nobody's business."""
    x = np.asfortranarray(np.arange(12.0).reshape(4, 3))
    np.save(tmp_path / "x.npy", x)
    assert np.array_equal(source_of(partitions([tmp_path / "x.npy"]), shuffle=False).read(0, 0, 4), x)


def test_named_arrays_are_inputs_beside_the_target(tmp_path):
    """With ``target=``, the other arrays of an ``.npz`` are a dict of inputs."""
    np.savez(tmp_path / "a.npz", age=np.arange(3.0), height=np.ones(3), label=np.arange(3))
    x, y = source_of(partitions([tmp_path / "a.npz"], target="label"), shuffle=False).read(0, 0, 3)
    assert sorted(x) == ["age", "height"]
    assert y.tolist() == [0, 1, 2]


def test_load_reads_any_item_as_fit_takes_it():
    """``load`` may return frames, tuples with weights, or inputs alone."""
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    x, y, weights = source_of(
        partitions([1, 2], load=lambda item: (frame * item, frame["a"], np.ones(2))), shuffle=False
    ).read(0, 0, 4)
    assert x.tolist() == [[1, 3], [2, 4], [2, 6], [4, 8]]
    assert y.tolist() == [[1], [2], [1], [2]]
    assert weights.tolist() == [1, 1, 1, 1]
    alone = source_of(partitions([1], load=lambda item: np.full((3, 2), item)), shuffle=False).read(0, 0, 3)
    assert alone.tolist() == [[1, 1]] * 3


def test_class_weights_are_those_of_the_samples():
    """``class_weight`` weighs as with arrays."""
    made, _ = functions([3, 3])
    batch = source_of(partitions(made), shuffle=False, class_weight={1: 5.0, 4: 2.0}).read(0, 0, 6)
    assert batch[2].tolist() == [1, 5, 1, 1, 2, 1]


def test_reading_goes_on_without_what_came_before():
    """At a place in the middle of a pass, only the partitions of the window there and the next one are read."""
    sizes = [10] * 20
    made, called = functions(sizes)
    data = partitions(made, sizes=sizes, window=2)
    source = source_of(data)
    source.peek()
    called.clear()
    source.read(3, 100, 104)
    wait_for_readers(data)
    assert len(called) == 3
    source.read(3, 104, 108)
    wait_for_readers(data)
    assert len(called) == 3


def test_the_next_partition_is_read_while_this_one_is_used():
    """Behind `read`, the partition that comes next is read, and never more than the window and that one are held."""
    made, called = functions([8] * 6)
    data = partitions(made, sizes=[8] * 6, window=1)
    source = source_of(data, shuffle=False)
    for start in range(0, 48, 4):
        source.read(0, start, start + 4)
        wait_for_readers(data)
        assert len(data.shelf.numbers) <= 2
        assert (start // 8 + 1) % 6 in data.shelf.numbers
    assert called == [0, 0, 1, 2, 3, 4, 5, 0, 1]  # one look at the first rows; at the end, the next pass


def wait_for_readers(data):
    for reading in data.shelf._held.values():
        assert reading.done.wait(60)


def test_partitions_that_nobody_uses_are_let_go_of():
    """Neither the rows nor the threads that read them outlive the object."""
    made, _ = functions([8] * 6)
    data = partitions(made, sizes=[8] * 6)
    source_of(data).read(0, 0, 8)
    kept = weakref.ref(data)
    before = threading.active_count()
    del data
    gc.collect()
    assert kept() is None
    deadline = time.monotonic() + 60
    while threading.active_count() >= before and time.monotonic() < deadline:
        time.sleep(0.01)  # the thread ends by itself, and tells nobody
    assert threading.active_count() < before


def test_a_window_that_exceeds_the_budget_says_what_fits():
    """The budget is checked before anything changes, and the window never becomes smaller by itself."""
    made, _ = functions([100_000] * 8)
    sizes, row = [100_000] * 8, 2 * 4 + 4
    room = (16 << 20) + 4 * 100_000 * row + 100_000 * 20
    with pytest.raises(errors.InvalidArgument, match="window=3, which would fit") as raised:
        source_of(partitions(made, sizes=sizes, window=6, memory=room))
    assert "Nothing was changed" in str(raised.value)
    assert source_of(partitions(made, sizes=sizes, window=3, memory=room)).num_samples == 800_000
    with pytest.raises(errors.InvalidArgument, match="Not even window=1 fits"):
        source_of(partitions(made, sizes=sizes, window=1, memory=1000))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"parts": []}, "no partitions"),
        ({"parts": ["a.npy"], "window": 0}, "window=0"),
        ({"parts": ["a.npy"], "workers": True}, "workers=True"),
        ({"parts": ["a.npy"], "sizes": [1, 2]}, "expected 1 numbers"),
        ({"parts": ["a.npy"], "sizes": [-1]}, "expected 1 numbers"),
        ({"parts": ["a.npy"], "sizes": 64}, "sizes=64: expected 1 numbers"),
        ({"parts": ["a.npy"], "sizes": [64.5]}, "expected 1 numbers"),
        ({"parts": ["a.npy"], "sizes": ["64"]}, "expected 1 numbers"),
        ({"parts": ["a.npy"], "memory": "1 GB"}, "memory='1 GB': expected a number above 0"),
        ({"parts": ["a.npy"], "memory": -5}, "memory=-5: expected a number above 0"),
        ({"parts": ["a.npy"], "timeout_s": 0}, "timeout_s=0: expected a number above 0"),
        ({"parts": ["a.npy"], "timeout_s": "5"}, "timeout_s='5': expected a number above 0"),
        ({"parts": ["a.npy"], "load": 5}, "load=5: expected a function"),
        ({"parts": ["a.npz"], "target": 3}, "target=3: expected the name"),
        ({"parts": {"train": "a.npy"}}, "cannot take a dict as parts"),
        ({"parts": 5}, "cannot take a int as parts"),
        ({"parts": None}, "cannot take a NoneType as parts"),
        ({"parts": ["a.npy"], "on_error": "ignore"}, "on_error='ignore'"),
        ({"parts": ["a.xyz"]}, "a format that is not known"),
        ({"parts": [5]}, "expected a path"),
        ({"parts": [("a.npy", "b.csv")]}, "a format that is not known"),
    ],
)
def test_arguments_without_a_meaning_are_refused(arguments, message):
    """Each message names what was given and what is expected."""
    with pytest.raises(errors.InvalidArgument, match=message) as raised:
        partitions(**arguments)
    assert "Nothing was changed" in str(raised.value)


def test_targets_beside_partitions_are_refused():
    """What a partition returns is all there is."""
    made, _ = functions([4])
    with pytest.raises(errors.InvalidArgument, match="y"):
        training_source(partitions(made), np.zeros(4), seed=0)


def test_partitions_without_samples_are_refused(tmp_path):
    """There must be something to train on."""
    with pytest.raises(errors.InvalidData, match="no samples"):
        source_of(partitions(files(tmp_path, [0, 0])))


# Sides of a split


@given(st.integers(0, 50), st.integers(0, 3000), st.integers(0, 500), st.floats(0.01, 0.99))
def test_no_row_changes_sides_when_a_partition_grows(partition, count, more, fraction):
    """The sides of the first rows are the same in a longer partition, and both sides together are all rows."""
    one, other = (rows_of_side(partition, count, fraction, held_back=side) for side in (True, False))
    assert sorted([*one, *other]) == list(range(count))
    longer = rows_of_side(partition, count + more, fraction, held_back=True)
    assert np.array_equal(longer[longer < count], one)


def test_a_split_holds_back_about_its_fraction_and_a_smaller_one_some_of_the_same():
    """A hundred thousand rows: the fraction within five standard deviations; a smaller fraction is a part of it."""
    large, small = (rows_of_side(7, 100_000, fraction, held_back=True) for fraction in (0.3, 0.1))
    assert abs(len(large) - 30_000) < 5 * (100_000 * 0.3 * 0.7) ** 0.5
    assert set(small) < set(large)


def test_the_sides_of_a_split_have_no_sample_in_common():
    """Training and validation see each sample once between them, in every pass."""
    made, _ = functions([40, 0, 25, 60])
    training, held_back = (source_of(side) for side in partitions(made, window=2).split(0.25))
    for number in (0, 3):
        seen = [each.read(number, 0, each.num_samples)[1].tolist() for each in (training, held_back)]
        assert sorted([*seen[0], *seen[1]]) == list(range(125))
        assert all(seen)


# What can go wrong


def test_a_missing_file_is_named(tmp_path):
    """Before anything is trained, with the number of the partition and its path."""
    paths = files(tmp_path, [3, 4])
    paths[1].unlink()
    with pytest.raises(errors.PartitionFailed, match=r"Partition 1 \(.*part-1.npz\)") as raised:
        source_of(partitions(paths))
    assert raised.value.partition == 1
    assert raised.value.sample is None


def test_a_truncated_file_is_named_with_the_sample_that_was_needed(tmp_path):
    """The header of a truncated file is whole, so that only reading its rows tells."""
    paths = files(tmp_path, [3, 4], "npy")
    whole = paths[1][0].read_bytes()
    paths[1][0].write_bytes(whole[:-20])
    source = source_of(partitions(paths), shuffle=False)
    with pytest.raises(errors.PartitionFailed, match="truncated") as raised:
        source.read(0, 0, 7)
    assert (raised.value.partition, raised.value.sample) == (1, 0)
    paths[1][0].write_bytes(whole)
    assert source_of(partitions(paths), shuffle=False).read(0, 3, 7)[1].tolist() == [3, 4, 5, 6]


@pytest.mark.parametrize("what", ["size", "content"])
def test_a_file_that_changes_after_the_fit_began_is_named(tmp_path, what):
    """The source notes what the files are like, and compares when it reads."""
    paths = files(tmp_path, [3, 400], "npy")
    data = partitions(paths, window=1)
    source = source_of(data, shuffle=False)
    source.read(0, 0, 2)
    wait_for_readers(data)
    data.close()
    x, _ = rows(3, 403)
    np.save(paths[1][0], np.concatenate([x, x]) if what == "size" else x + 1)
    with pytest.raises(errors.PartitionChanged, match="Partition 1") as raised:
        source.read(0, 0, 7)
    assert "bytes" in str(raised.value) if what == "size" else "other content" in str(raised.value)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: (np.zeros((3, 2), "float32"), np.zeros(3, "int32")), "x has dtype float32, expected float64"),
        (lambda: (np.zeros((3, 5)), np.zeros(3, "int32")), r"x has rows of shape \(5,\), expected \(2,\)"),
        (lambda: np.zeros((3, 2)), "y is missing"),
        (lambda: (np.zeros((3, 2)), np.zeros(3, "int32"), np.ones(3)), "sample_weight is new"),
        (lambda: (np.zeros((2, 2)), np.zeros(2, "int32")), "it has 2 rows, expected 3"),
        (lambda: (np.zeros((4, 2)), np.zeros(4, "int32")), "it has 4 rows, expected 3"),
    ],
)
def test_a_partition_with_other_columns_is_named(other, message):
    """Number, dtype and shape of rows must be those of the first partition and of the sizes."""
    made, _ = functions([3])
    source = source_of(partitions([*made, other], sizes=[3, 3]), shuffle=False)
    with pytest.raises(errors.PartitionChanged, match=message) as raised:
        source.read(0, 0, 6)
    assert raised.value.partition == 1


def test_other_columns_are_named_also_where_the_first_batch_finds_them():
    """A batch over two small partitions looks at both before anything is trained."""
    made, _ = functions([3])
    other = lambda: (np.zeros((3, 5)), np.zeros(3, "int32"))  # noqa: E731
    with pytest.raises(errors.PartitionChanged, match=r"Partition 1 .* x has rows of shape \(5,\)"):
        source_of(partitions([*made, other], sizes=[3, 3])).peek()


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (None, "it returned no inputs"),
        ((None, np.ones(3)), "it returned no inputs"),
        ((), "a tuple of 0"),
        ((3, 4), "it returned a int"),
        ((np.ones(3), [1, 2, 3]), "it returned a int"),
        (np.float32(3), "it returned a float32"),
    ],
)
@pytest.mark.parametrize("sizes", [None, [3]])
def test_a_loader_that_returns_something_else_is_told_what_is_expected(returned, told, sizes):
    """Before anything is trained, whether it is counted first or not."""
    with pytest.raises(errors.PartitionFailed, match=told) as raised:
        source_of(partitions([lambda: returned], sizes=sizes))
    assert "expected x, (x, y) or (x, y, sample_weight), of arrays" in str(raised.value)


@pytest.mark.parametrize("kind", ["<", ">"])
def test_files_of_any_byte_order_give_arrays_of_this_machine(kind, tmp_path):
    """Those of another order are converted, as no backend takes them."""
    x, y = rows(0, 9)
    for name, array in (("x", x.astype(f"{kind}f4")), ("y", y.astype(f"{kind}i4"))):
        np.save(tmp_path / f"{name}.npy", array)
    batch = source_of(partitions([(tmp_path / "x.npy", tmp_path / "y.npy")]), shuffle=False).read(0, 0, 9)
    assert [array.dtype for array in batch] == [np.float32, np.int32]
    assert all(array.dtype.isnative for array in batch)
    assert np.array_equal(batch[0], x)
    assert np.array_equal(batch[1], y)


def test_a_loader_that_raises_is_told_with_its_error():
    """The cause stays in the chain, and the partition may be tried again."""
    fails = [True]

    def flaky():
        if fails[0]:
            raise OSError("the disk is away")
        return rows(3, 6)

    made, _ = functions([3])
    source = source_of(partitions([*made, flaky], sizes=[3, 3]), shuffle=False)
    with pytest.raises(errors.PartitionFailed, match="the disk is away") as raised:
        source.read(0, 0, 6)
    assert isinstance(raised.value.__cause__, OSError)
    fails[0] = False
    assert source.read(0, 0, 6)[1].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_loader_that_hangs_is_given_up():
    """After ``timeout_s`` the partition is named; the process may end in spite of the thread."""
    release = threading.Event()
    made, _ = functions([3])

    def hangs():
        release.wait(60)
        return rows(3, 6)

    source = source_of(partitions([*made, hangs], sizes=[3, 3], timeout_s=0.05), shuffle=False)
    with pytest.raises(errors.PartitionFailed, match=r"not read within 0\.05 seconds"):
        source.read(0, 0, 6)
    release.set()


def test_objects_in_files_are_refused(tmp_path):
    """Reading them would execute code."""
    np.save(tmp_path / "x.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    with pytest.raises(errors.PartitionFailed, match="Python objects"):
        source_of(partitions([tmp_path / "x.npy"]))


def test_arrays_without_names_that_mean_something_are_asked_about(tmp_path):
    """An ``.npz`` of arrays by any name needs ``target=``, and a target that is there."""
    np.savez(tmp_path / "a.npz", a=np.ones(3), b=np.ones(3))
    with pytest.raises(errors.PartitionFailed, match="give target="):
        source_of(partitions([tmp_path / "a.npz"]))
    with pytest.raises(errors.PartitionFailed, match="no array 'c'"):
        source_of(partitions([tmp_path / "a.npz"], target="c"))


# What identifies partitions


def test_what_differs_between_partitions_is_told(tmp_path):
    """The sentence names the partition, and what about it is new."""
    paths = files(tmp_path, [3, 4], "npy")
    before = fingerprint(partitions(paths))
    assert describe_difference(before, fingerprint(partitions(paths))) is None
    assert describe_difference(before, fingerprint(partitions(paths, window=1))) == (
        "the data: the window was 4 partitions and is now 1"
    )
    assert "there were 2 partitions and are now 1" in describe_difference(before, fingerprint(partitions(paths[:1])))
    np.save(paths[1][0], rows(3, 7)[0] + 1)
    assert describe_difference({"kind": "dict", "items": {"x": before}}, fingerprint({"x": partitions(paths)})) == (
        "x: partition 1 (x-1.npy, y-1.npy) has other content"
    )
    np.save(paths[1][0], rows(3, 8)[0])
    np.save(paths[1][1], rows(3, 8)[1])
    assert "had 4 samples and has now 5" in describe_difference(before, fingerprint(partitions(paths)))


def test_functions_are_told_by_their_first_rows():
    """Beside sizes, layout and window; a fingerprint of before these were looked at tells nothing of them."""
    first, second = rows(0, 5), rows(1, 6)
    before = fingerprint(partitions([lambda: first, lambda: second]))
    assert before == fingerprint(partitions([lambda: first, lambda: first]))
    other = fingerprint(partitions([lambda: second, lambda: first]))
    assert describe_difference(before, other) == "the data: the first rows are other ones"
    del before["first"]
    assert describe_difference(before, other) is None
