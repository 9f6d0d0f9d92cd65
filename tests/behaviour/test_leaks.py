"""Rows of validation data that an earlier fit trained on are found, counted and told; others are not."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keepfit
from keepfit import fit_data, fitting, leaks, trained, watched
from keepfit.errors import InvalidArgument, KeepfitWarning
from keepfit.snapshot import Snapshot
from tests.behaviour.processes import Interrupt, Stop, attach_quietly, interrupt
from tests.bits import differing, state_bits
from tests.models import make, regression_data

pytestmark = pytest.mark.filterwarnings("ignore:Fit . is a new phase", "ignore:validation_split over different arrays")

SHORT: dict[str, Any] = {"batch_size": 16, "verbose": 0}
X, Y = regression_data(samples=320)
HELD = X[256:], Y[256:]


@contextmanager
def running(directory: Path | None = None, **settings: Any) -> Iterator[Any]:
    """Yield a run of a small dense net."""
    with keepfit.Run(make("plain_dense")[0], directory, seed=3, **settings) as run:
        yield run


def told(run: Any) -> list[tuple[int, int, int]]:
    """Return the leaks that the journal has: the fit, rows, of how many."""
    return [
        (event.fit, event.data["facts"]["rows"], event.data["facts"]["of"])
        for event in run.recorder.events
        if event.kind == leaks.KIND
    ]


def said(count: str) -> Any:
    """Expect a warning that begins with a number of rows."""
    return pytest.warns(KeepfitWarning, match=f"^{count} rows that fit")


# What is found


def test_validation_split_after_a_fit_on_everything_is_found() -> None:
    """The classical mistake: every row of the split was trained on, and the warning says how many and in which fit."""
    with running() as run:
        run.fit(X, Y, **SHORT)
        with said("64 of the 64") as caught:
            run.fit(X, Y, validation_split=0.2, **SHORT)
        text = next(str(each.message) for each in caught if "validates on" in str(each.message))
        assert "first in fit 1: what is measured on them says nothing about new data" in text
        assert told(run) == [(2, 64, 64)]


@pytest.mark.parametrize("row", [0, 17, 255])
def test_a_single_row_is_found(row: int) -> None:
    """One row of the validation data among the rows of an earlier fit, wherever it lies in either."""
    x, y = (np.concatenate([held, rows[row : row + 1]]) for held, rows in zip(HELD, (X, Y), strict=True))
    with running() as run:
        run.fit(X[:256], Y[:256], **SHORT)
        with said("1 of the 65"):
            run.fit(X[:100], Y[:100], validation_data=(x, y), **SHORT)


def test_validation_data_that_nobody_trained_on_is_silent() -> None:
    """Fit after fit over the same data, or over its parts, with rows that are held back: nothing is said."""
    with running() as run:
        for _ in range(3):
            run.fit(X[:256], Y[:256], validation_data=HELD, **SHORT)
        for part in (slice(0, 100), slice(100, 256)):
            run.fit(X[part], Y[part], validation_data=HELD, **SHORT)
        assert told(run) == []


def test_rows_that_a_fit_has_on_both_sides_do_not_count_in_that_fit() -> None:
    """A fit that validates on what it trains on itself is silent; the next one, which comes after it, is not."""
    with running() as run:
        run.fit(X, Y, epochs=3, validation_data=(X[:10], Y[:10]), **SHORT)
        assert told(run) == []
        with said("10 of the 10"):
            run.fit(X, Y, validation_data=(X[:10], Y[:10]), **SHORT)


def test_another_target_is_another_row() -> None:
    """Rows with the same inputs and other targets were not trained on; weights are no part of a row."""
    with running() as run:
        run.fit(X, Y, **SHORT)
        run.fit(X[:64], Y[:64], validation_data=(X[64:], Y[64:] + 1), **SHORT)
        with said("256 of the 256"):
            run.fit(X[:64], Y[:64], validation_data=(X[64:], Y[64:], np.ones(256)), **SHORT)


def test_rows_are_what_the_model_gets() -> None:
    """Data in another precision becomes the same rows; so it does as a dict, a frame or a tensor of the backend."""
    pandas = pytest.importorskip("pandas")
    with running() as run:
        run.fit(X[:256].astype("float64"), Y[:256].astype("float64"), **SHORT)
        held = keras.ops.convert_to_tensor(X[:50]), keras.ops.convert_to_tensor(Y[:50])
        with said("50 of the 50"):
            run.fit(X[256:], Y[256:], validation_data=held, **SHORT)
        with said("40 of the 40"):
            run.fit(X[256:], Y[256:], validation_data=(pandas.DataFrame(X[:40]), Y[:40]), **SHORT)


def test_nested_inputs_and_targets_are_rows() -> None:
    """Inputs and targets by name belong together, row by row."""
    model, x, y = make("two_in_two_out")
    first, last = ({name: array[part] for name, array in {**x, **y}.items()} for part in (slice(0, 56), slice(50, 70)))
    with keepfit.Run(model) as run:
        run.fit({name: first[name] for name in x}, {name: first[name] for name in y}, **SHORT)
        held = {name: last[name] for name in x}, {name: last[name] for name in y}
        with said("6 of the 20"):
            run.fit(x, y, validation_data=held, **SHORT)


def test_loop_over_parts_with_a_split_is_silent_until_parts_are_cut_anew() -> None:
    """Each part holds the same rows back in each round; parts with other borders hold back what was trained on."""
    with running() as run:
        for _ in range(2):
            for start in range(0, 320, 80):
                run.fit(X[start : start + 80], Y[start : start + 80], validation_split=0.25, **SHORT)
        assert told(run) == []
        with said("20 of the 20"):
            run.fit(X[:60], Y[:60], validation_split=1 / 3, **SHORT)


def test_split_anew_in_an_appending_run_is_found(tmp_path: Path) -> None:
    """A job that splits the same rows by chance each night validates on what the night before trained on."""
    for night in range(2):
        order = np.random.default_rng(night).permutation(len(X))
        model = attach_quietly(make("plain_dense")[0], tmp_path, mode="append")
        train, held = order[:256], order[256:]
        leaked = len(np.intersect1d(held, np.random.default_rng(0).permutation(len(X))[:256])) if night else 0
        with said(f"{leaked} of the 64") if night else warnings.catch_warnings():
            model.fit(X[train], Y[train], validation_data=(X[held], Y[held]), **SHORT)
        model.run.close()
    assert leaked > 30


# How often it is said, and what it costs


def test_a_pair_of_sets_is_told_once() -> None:
    """The same leak is told once; a set that was told of is told again when more of it was trained on."""
    with running() as run:
        run.fit(X[:100], Y[:100], **SHORT)
        for _ in range(3):
            with warnings.catch_warnings(record=True):
                warnings.simplefilter("always")
                run.fit(X[:200], Y[:200], validation_data=(X[90:110], Y[90:110]), **SHORT)
        assert told(run) == [(2, 10, 20), (3, 20, 20)]


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which the numbers of rows are added whose hashes are computed."""
    counts: list[int] = []
    compute = watched.batch_hashes

    def counted(batch: Any) -> Any:
        hashes = compute(batch)
        counts.append(len(hashes))
        return hashes

    monkeypatch.setattr(watched, "batch_hashes", counted)
    return counts


def test_rows_are_looked_at_once(looked_at: list[int]) -> None:
    """Epoch after epoch and fit after fit over the same arrays, or over copies of them: each row is hashed once."""
    with running() as run:
        for _ in range(4):
            run.fit(X[:256].copy(), Y[:256], epochs=3, validation_data=HELD, **SHORT)
        # The validation data once, in the second fit: there was nothing to compare with in the first.
        assert sum(looked_at) == 256 + 64
        changed = X[:256].copy()
        changed[5, 0] += 1
        run.fit(changed, Y[:256], **SHORT)
        assert sum(looked_at) == 256 + 64 + 256


@pytest.mark.parametrize("kind", ["arrays", "mapped"])
def test_validation_data_is_hashed_once_in_a_loop_over_parts(
    kind: str, looked_at: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many parts come, and each fit is told of all that the fits before it trained on."""
    held = HELD[0].copy(), HELD[1].copy()
    held[0][:8], held[1][:8] = X[60:68], Y[60:68]
    held[0][8:12], held[1][8:12] = X[200:204], Y[200:204]
    if kind == "mapped":
        held = mapped(tmp_path, monkeypatch, *held)
    monkeypatch.setattr(trained, "_RECENT", 100)  # what is known is sorted in twice in between
    with running() as run:
        for start in range(0, 256, 32):
            with warnings.catch_warnings(record=True):
                warnings.simplefilter("always")
                part = slice(start, start + 32)
                run.fit(X[part], Y[part], validation_data=held, **SHORT)
        assert sum(looked_at) == 256 + 64
        assert told(run) == [(3, 4, 64), (4, 8, 64), (8, 12, 64)]


def test_hashes_of_validation_data_are_held_within_bounds(
    looked_at: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sets that were used last are held; one larger than the bound never is, and is found all the same."""
    monkeypatch.setattr(leaks, "_MOST_HELD", 50)
    with running() as run:
        for start in range(0, 160, 32):
            for held in (slice(0, 30), slice(30, 60), slice(60, 130)):
                with warnings.catch_warnings(record=True):
                    warnings.simplefilter("always")
                    part = slice(start, start + 32)
                    run.fit(X[part], Y[part], validation_data=(X[held], Y[held]), **SHORT)
        kept = [each for each in run.leaks._compared.values() if each.hashes is not None]
        assert sum(each.count for each in kept) <= 50
        assert [(rows, of) for _, rows, of in told(run)][-1] == (70, 70)


def test_guard_that_is_off_looks_at_nothing(looked_at: list[int], tmp_path: Path) -> None:
    """leak_guard=False: nothing is hashed and nothing said; what was known before stays known."""
    with running(tmp_path, mode="append") as run:
        run.fit(X[:100], Y[:100], **SHORT)
    looked_at.clear()
    with running(tmp_path, mode="append", leak_guard=False) as run:
        run.fit(X[100:], Y[100:], validation_data=(X[:50], Y[:50]), **SHORT)
        assert told(run) == []
        assert looked_at == []
    with running(tmp_path, mode="append") as run, said("50 of the 200"):
        run.fit(X[200:], Y[200:], validation_data=(X[50:250], Y[50:250]), **SHORT)


def test_guard_changes_no_bit() -> None:
    """With the guard and without it, weights, optimizer and logs are the same."""
    ends = []
    for on in (True, False):
        model = make("dropout_batch_norm")[0]
        with keepfit.Run(model, seed=3, leak_guard=on) as run:
            logs = [run.fit(X, Y, validation_data=HELD, epochs=2, **SHORT).history]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                logs.append(run.fit(X, Y, validation_data=HELD, epochs=2, **SHORT).history)
        ends.append((state_bits(model), logs))
    assert differing(ends[0][0], ends[1][0]) == []
    assert ends[0][1] == ends[1][1]


def test_more_rows_than_are_kept_are_told_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound a sample of all rows is known, and the number that is told is about right."""
    monkeypatch.setattr(trained, "_RECENT", 64)
    monkeypatch.setattr(trained, "MOST_ROWS", 500)
    x, y = np.random.default_rng(1).normal(size=(2, 4000, 6)).astype("float32")
    with running() as run:
        run.fit(x, y[:, :1], batch_size=500, verbose=0)
        with pytest.warns(KeepfitWarning, match=r"^About .* of the 2,000 rows that fit 2"):
            run.fit(X, Y, validation_data=(x[2000:], y[2000:, :1]), **SHORT)
        ((_, rows, _),) = told(run)
        assert 1500 < rows <= 2000
        assert sum(len(array) for array in run.leaks.tensors().values()) < 1200


def test_what_is_no_switch_is_refused() -> None:
    """leak_guard takes True or False."""
    with pytest.raises(InvalidArgument, match=r"leak_guard='no': expected True or False\. Nothing was changed\."):
        keepfit.Run(make("plain_dense")[0], leak_guard="no")  # type: ignore[arg-type]


# Where only a part was trained on


def test_rows_that_were_not_reached_do_not_count() -> None:
    """With steps_per_epoch the rows that were visited count; the rest of the pass counts when it comes."""
    with running() as run:
        run.fit(X, Y, shuffle=False, steps_per_epoch=5, **SHORT)
        with said("80 of the 320"):
            run.fit(X[:1], Y[:1], validation_data=(X, Y), **SHORT)
    with running() as run:
        for _ in range(4):
            run.fit(X, Y, steps_per_epoch=5, **SHORT)
        with said("320 of the 320"):
            run.fit(X[:1], Y[:1], validation_data=(X, Y), **SHORT)


def test_a_fit_that_is_closed_as_it_stands_counts_with_what_it_trained_on() -> None:
    """Rows of a fit that was interrupted amid a pass, and given up for another one, are known."""
    with running() as run:
        with pytest.raises(KeyboardInterrupt):
            run.fit(X, Y, shuffle=False, callbacks=[Stop(4)], **SHORT)
        with said("64 of the 320"):
            run.fit(X[:1], Y[:1], validation_data=(X, Y), **SHORT)


# Over processes


def test_a_later_process_knows_what_earlier_ones_trained_on(tmp_path: Path, looked_at: list[int]) -> None:
    """A replay hashes nothing of the fits that are done, and knows their rows."""
    with running(tmp_path) as run:
        run.fit(X, Y, **SHORT)
    looked_at.clear()
    with running(tmp_path) as run:
        run.fit(X, Y, **SHORT)
        assert looked_at == []
        with said("64 of the 64"):
            run.fit(X, Y, validation_split=0.2, **SHORT)
        assert sum(looked_at) == 64 + 256


def test_without_that_part_of_the_state_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of the test above: a process that does not take it from the checkpoint says nothing."""
    parted = fitting.stand_at.__globals__["parted"]

    def forgetful(*given: Any) -> Any:
        return tuple(without(end) for end in parted(*given))

    def without(end: Snapshot) -> Snapshot:
        return replace(end, tensors={k: v for k, v in end.tensors.items() if not k.startswith("trained/")})

    with running(tmp_path) as run:
        run.fit(X, Y, **SHORT)
    monkeypatch.setitem(fitting.stand_at.__globals__, "parted", forgetful)
    with running(tmp_path) as run:
        run.fit(X, Y, **SHORT)
        run.fit(X, Y, validation_split=0.2, **SHORT)
        assert told(run) == []


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_fit_that_goes_on_in_another_process_is_known_whole(epoch: int, tmp_path: Path) -> None:
    """Interrupted in its first or second pass, resumed: all its rows are known, and what is kept is the same."""
    kept = []
    for name in ("whole", "cut"):
        model = attach_quietly(make("plain_dense")[0], tmp_path / name, seed=3)
        if name == "cut":
            interrupt(model, X, Y, epoch=epoch, epochs=3, **SHORT)
            model.run.close()
            model = attach_quietly(make("plain_dense")[0], tmp_path / name, seed=3)
        model.fit(X, Y, epochs=3, callbacks=[Interrupt(epoch, armed=False)], **SHORT)
        kept.append({key: array.tolist() for key, array in model.run.leaks.tensors().items()})
        with said("320 of the 320"):
            model.fit(X[:1], Y[:1], validation_data=(X, Y), **SHORT)
        model.run.close()
    assert kept[0] == kept[1]


def test_a_fit_cut_amid_its_first_pass_is_known_whole(tmp_path: Path, looked_at: list[int]) -> None:
    """What was trained on before the cut is in the checkpoint, the rest is added, and no row is hashed twice."""
    model = attach_quietly(make("plain_dense")[0], tmp_path, seed=3)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, epochs=2, callbacks=[Stop(8)], **SHORT)
    model.run.close()
    model = attach_quietly(make("plain_dense")[0], tmp_path, seed=3)
    model.fit(X, Y, epochs=2, callbacks=[Stop(1000)], **SHORT)
    assert sum(looked_at) == 320
    with said("320 of the 320"):
        model.fit(X[:1], Y[:1], validation_data=(X, Y), **SHORT)


def test_what_a_resumed_fit_trained_on_counts_in_the_next_one(tmp_path: Path) -> None:
    """A fit that went on in another process is an earlier one for the fit after it, over the same sets too."""
    settings = {"epochs": 2, "validation_data": (X[:50], Y[:50]), **SHORT}
    model = attach_quietly(make("plain_dense")[0], tmp_path, seed=3)
    model.fit(X[:10] + 1, Y[:10], **SHORT)
    interrupt(model, X, Y, epoch=1, **settings)
    model.run.close()
    model = attach_quietly(make("plain_dense")[0], tmp_path, seed=3)
    model.fit(X[:10] + 1, Y[:10], **SHORT)
    model.fit(X, Y, callbacks=[Interrupt(1, armed=False)], **settings)
    assert told(model.run) == []
    with said("50 of the 50"):
        model.fit(X, Y, callbacks=[Interrupt(1, armed=False)], **settings)


def test_rows_of_a_closed_branch_do_not_count(tmp_path: Path) -> None:
    """A fit that was taken back by a branch was never trained, for what comes after it."""
    with running(tmp_path, checkpoint_share="each") as run:
        run.fit(X[:100], Y[:100], **SHORT)
        run.fit(X[100:200], Y[100:200], **SHORT)
    with running(tmp_path, checkpoint_share="each", on_change="branch") as run:
        run.fit(X[:100], Y[:100], **SHORT)
        with pytest.warns(KeepfitWarning, match="were closed as a branch"):
            run.fit(X[200:], Y[200:], **SHORT)
        with said("10 of the 20"):
            run.fit(X[200:], Y[200:], validation_data=(X[90:110], Y[90:110]), **SHORT)


def test_a_fork_knows_what_its_model_was_trained_on(tmp_path: Path) -> None:
    """A fork after fit 1 knows the rows of fit 1, and those of fit 2 it does not."""
    with running(tmp_path / "run", checkpoint_share="each") as run:
        run.fit(X[:100], Y[:100], **SHORT)
        run.fit(X[100:200], Y[100:200], **SHORT)
        with run.fork(tmp_path / "fork", at=1) as fork, said("10 of the 20"):
            fork.fit(X[200:], Y[200:], validation_data=(X[90:110], Y[90:110]), **SHORT)


# Other kinds of data


def written(folder: Path) -> list[Path]:
    """Write the data as files of several sizes."""
    paths = [folder / f"part-{number}.npz" for number in range(3)]
    for path, part in zip(paths, (slice(0, 50), slice(50, 200), slice(200, 320)), strict=True):
        np.savez(path, x=X[part], y=Y[part])
    return paths


class Samples:
    """Gives one sample for an index."""

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> Any:
        return X[index], Y[index]


@pytest.fixture(params=["partitions", "mapped", "samples"])
def on_disk(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, ...]:
    """Return data that is not in memory as a whole, as ``x`` or as ``(x, y)``."""
    if request.param == "partitions":
        return (keepfit.partitions(written(tmp_path), window=2),)
    if request.param == "samples":
        return (Samples(),)
    return mapped(tmp_path, monkeypatch, X, Y)


def mapped(folder: Path, monkeypatch: pytest.MonkeyPatch, x: Any, y: Any) -> tuple[Any, Any]:
    """Return arrays as memory maps that are not read into memory."""
    monkeypatch.setattr("keepfit.data.adapters.MAPPED_BYTES", 0)
    monkeypatch.setattr(fit_data.training_source, "__kwdefaults__", {**_defaults(fit_data.training_source)})
    monkeypatch.setattr(fit_data.evaluation_source, "__kwdefaults__", {**_defaults(fit_data.evaluation_source)})
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    return np.load(folder / "x.npy", mmap_mode="r"), np.load(folder / "y.npy", mmap_mode="r")


def _defaults(function: Any) -> dict[str, Any]:
    return {**function.__kwdefaults__, "mapped_bytes": 0}


def test_training_data_on_disk_is_known(on_disk: tuple[Any, ...], looked_at: list[int]) -> None:
    """Rows are looked at as they are read for training, once."""
    with running() as run:
        run.fit(*on_disk, epochs=2, **SHORT)
        run.fit(*on_disk, epochs=2, **SHORT)
        assert sum(looked_at) == 320
        with said("64 of the 64"):
            run.fit(X[:1], Y[:1], validation_data=HELD, **SHORT)


def test_validation_data_on_disk_is_compared_as_it_is_read(on_disk: tuple[Any, ...]) -> None:
    """The first pass over it tells what was trained on."""
    with running() as run:
        run.fit(X[:100], Y[:100], **SHORT)
        for _ in range(2):
            with warnings.catch_warnings(record=True):
                warnings.simplefilter("always")
                held = on_disk if len(on_disk) == 2 else on_disk[0]
                run.fit(X[:100], Y[:100], epochs=2, validation_data=held, **SHORT)
        assert told(run) == [(2, 100, 320)]


def test_validation_data_that_was_compared_in_part_is_compared_again(on_disk: tuple[Any, ...]) -> None:
    """With ``validation_steps`` some rows are read; all of them count where a later fit reads all."""
    held = on_disk if len(on_disk) == 2 else on_disk[0]
    with running() as run:
        run.fit(X[100:], Y[100:], **SHORT)
        run.fit(X[100:], Y[100:], validation_data=held, validation_steps=2, **SHORT)
        assert told(run) == []
        with said("220 of the 320"):
            run.fit(X[100:], Y[100:], validation_data=held, **SHORT)


def test_what_a_fit_trained_on_counts_in_the_next_one_over_the_same_sets(on_disk: tuple[Any, ...]) -> None:
    """A validation set that was compared while its rows were trained on is compared again."""
    held = on_disk if len(on_disk) == 2 else on_disk[0]
    with running() as run:
        run.fit(X[:10] + 1, Y[:10], **SHORT)
        run.fit(X[:100], Y[:100], epochs=2, validation_data=held, **SHORT)
        assert told(run) == []
        with said("100 of the 320"):
            run.fit(X[:100], Y[:100], epochs=2, validation_data=held, **SHORT)


def test_split_of_partitions_is_silent_and_found_after_a_fit_on_all(tmp_path: Path) -> None:
    """Samples that a split of partitions holds back are never trained on, unless a fit before had no split."""
    data = keepfit.partitions(written(tmp_path), window=2)
    with running() as run:
        for _ in range(3):
            run.fit(data, validation_split=0.2, **SHORT)
        assert told(run) == []
    with running() as run:
        run.fit(data, **SHORT)
        with pytest.warns(KeepfitWarning, match=r"^(\d+) of the \1 rows that fit 2"):
            run.fit(data, validation_split=0.2, **SHORT)


def functions(*rows: slice) -> Any:
    """Return functions as partitions, always of the same sizes and first rows."""
    return keepfit.partitions([lambda part=part: (X[part], Y[part]) for part in (slice(0, 10), *rows)])


def test_functions_of_equal_sizes_are_all_looked_at(looked_at: list[int]) -> None:
    """What one set of functions returns says nothing of another; the same object is looked at once."""
    with running() as run:
        for data in (functions(slice(10, 60)), functions(slice(60, 110))):
            for _ in range(2):
                run.fit(data, epochs=2, **SHORT)
        assert sum(looked_at) == 120
        with said("110 of the 120"):
            run.fit(X[:1], Y[:1], validation_data=(X[:120], Y[:120]), **SHORT)


def test_functions_of_equal_sizes_are_all_compared() -> None:
    """Validation data of functions is told of, whatever other functions were, and each set once."""
    with running() as run:
        run.fit(X[:60], Y[:60], **SHORT)
        sets = [functions(slice(60, 80)), functions(slice(50, 70))]
        for _ in range(2):
            for held in sets:
                with warnings.catch_warnings(record=True):
                    warnings.simplefilter("always")
                    run.fit(X[:60], Y[:60], validation_data=held, **SHORT)
        assert told(run) == [(2, 10, 30), (3, 20, 30)]


def test_samples_that_are_held_back_are_told_of_once(tmp_path: Path, looked_at: list[int]) -> None:
    """A split of an object that gives samples is the same in every fit, and its rows are in every process."""
    data = Samples()
    for process in range(2):
        with running(tmp_path, mode="append") as run:
            looked_at.clear()
            for number in range(3):
                with warnings.catch_warnings(record=True):
                    warnings.simplefilter("always")
                    run.fit(data, validation_split=0.2 if process or number else 0.0, epochs=2, **SHORT)
            assert len(told(run)) == 1
            # Once all, and once both sides of the split; in another process the sides again.
            assert sum(looked_at) == (320 if process else 640)
        data = Samples()


def test_samples_mixed_in_are_looked_at_too() -> None:
    """Beside sample objects too, which tell nothing of their content."""

    class Shifted(Samples):
        def __init__(self, shift: int) -> None:
            self.shift = shift

        def __getitem__(self, index: int) -> Any:
            return X[index] + (self.shift if index > 100 else 0), Y[index]

    with running() as run:
        run.fit(X[:20] + 5, Y[:20], rehearse=0.0, **SHORT)
        for data in (Shifted(0), Shifted(1)):
            run.fit(data, rehearse=0.2, **SHORT)
        with said("64 of the 64"):
            run.fit(X[:20], Y[:20], validation_data=(X[256:] + 1, Y[256:]), **SHORT)


def test_earlier_samples_count_when_they_come() -> None:
    """Those of a fit that was closed before it trained on them, mixed in over several passes."""
    with running(reservoir=1000) as run:
        with pytest.raises(KeyboardInterrupt):
            run.fit(X, Y, shuffle=False, callbacks=[Stop(1)], **SHORT)
        run.fit(X[:20] + 5, Y[:20], rehearse=0.5, epochs=2, **SHORT)
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            run.fit(X[:20] + 5, Y[:20], rehearse=0.5, epochs=40, **SHORT)
        with said("320 of the 320"):
            run.fit(X[:1] - 9, Y[:1], validation_data=(X, Y), **SHORT)


def test_streams_and_batches_of_the_user_are_not_looked_at(looked_at: list[int]) -> None:
    """Generators and PyDatasets are trained and validated on as ever, and nothing is said of them."""

    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Any:
            return X[index * 16 : index * 16 + 16], Y[index * 16 : index * 16 + 16]

    with running() as run:
        run.fit(Batches(), verbose=0)
        run.fit((Batches()[index] for index in range(2)), steps_per_epoch=2, verbose=0)
        assert looked_at == []
        run.fit(X, Y, **SHORT)
        run.fit(X, Y, validation_data=Batches(), **SHORT)
        assert told(run) == []


@pytest.mark.parametrize("mapped", [False, True])
def test_rows_behind_a_frozen_prefix_are_those_of_the_data(mapped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where training goes on from what frozen layers gave, rows are still those that the user gave."""
    monkeypatch.setattr("keepfit.features.MEMORY_BYTES", 0 if mapped else 1 << 30)
    layers = [keras.layers.Dense(8, activation="tanh", trainable=False), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((6,)), *layers])
    model.compile("sgd", "mse")
    with keepfit.Run(model) as run:
        run.fit(X, Y, epochs=2, **SHORT)
        assert run.recorder.fits[1].plan["prefix"]["used"]
        with said("64 of the 64"):
            run.fit(X, Y, validation_split=0.2, **SHORT)


def test_a_fit_that_does_not_validate_is_told_nothing() -> None:
    """``validation_freq`` leaves out all epochs of the fit; the next one is told."""
    model, x, y = make("plain_dense")
    with keepfit.Run(model) as run:
        run.fit(x, y, verbose=0)
        run.fit(x, y, validation_data=(x, y), validation_freq=100, verbose=0)
        assert not [event for event in run.recorder.events if event.kind == "leak"]
        with pytest.warns(KeepfitWarning, match="were trained on before"):
            run.fit(x, y, validation_data=(x, y), verbose=0)
