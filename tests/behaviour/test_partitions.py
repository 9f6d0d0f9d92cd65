"""Training on partitions: the bits of arrays in memory, resumable at any sample, whatever goes wrong."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import warnings
from collections import deque
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keepfit
from keepfit import errors, fitting
from keepfit.data import training_source
from tests.behaviour.bounded import write
from tests.behaviour.processes import Interrupt, Stop, attach_quietly
from tests.bits import differing, state_bits
from tests.continuity.child import forget
from tests.models import make
from tests.unit.data import loads

ENDS = [0, 20, 20, 33, 47, 70]
OPTIONS: dict[str, Any] = {"batch_size": 8, "epochs": 3, "verbose": 0}


def written(folder: Path, x: Any, y: Any) -> list[Path]:
    """Write data as partitions of several sizes, one of them empty."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"part-{number}.npz" for number in range(len(ENDS) - 1)]
    for path, (start, stop) in zip(paths, itertools.pairwise(ENDS), strict=True):
        np.savez(path, x=x[start:stop], y=y[start:stop])
    return paths


def trained(*data: Any, name: str = "dropout_batch_norm", **options: Any) -> tuple[Any, Any, Any]:
    """Return the bits and the logs after a fit, and how often the model's step was traced."""
    model, _, _ = make(name)
    traced = []
    step = model.compute_loss
    model.compute_loss = lambda *args, **kwargs: (traced.append(1), step(*args, **kwargs))[1]
    with keepfit.Run(model, seed=5) as run:
        history = run.fit(*data, **{**OPTIONS, **options})
    return state_bits(model), history.history, len(traced)


@pytest.mark.parametrize("name", ["dropout_batch_norm", "convolution"])
@pytest.mark.parametrize("shuffle", [True, False, "batch"])
def test_partitions_in_the_order_of_memory_give_the_bits_of_memory(shuffle: Any, name: str, tmp_path: Path) -> None:
    """A window over all partitions, or no shuffling: weights, optimizer, metrics and logs are those of arrays."""
    _, x, y = make(name)
    window = 2 if shuffle is not True else 4
    data = keepfit.partitions(written(tmp_path, x, y), window=window)
    in_memory, logs, traced = trained(x, y, name=name, shuffle=shuffle)
    in_parts, own_logs, own_traced = trained(data, name=name, shuffle=shuffle)
    assert differing(in_memory, in_parts) == []
    assert logs == own_logs
    assert own_traced == traced  # no more shapes of batches than with arrays


def test_another_window_is_another_order(tmp_path: Path) -> None:
    """The test above can fail: with a smaller window the bits are others."""
    _, x, y = make("dropout_batch_norm")
    paths = written(tmp_path, x, y)
    assert differing(trained(x, y)[0], trained(keepfit.partitions(paths, window=2))[0]) != []


class Table:
    """Columns for a slice, as a data set of Hugging Face's ``datasets`` gives them."""

    def __init__(self, x: Any, y: Any) -> None:
        self.columns = {"x": x, "label": y}
        self.column_names = list(self.columns)

    def __len__(self) -> int:
        return len(self.columns["x"])

    def __getitem__(self, rows: slice) -> dict[str, Any]:
        assert isinstance(rows, slice)
        return {name: values[rows] for name, values in self.columns.items()}


def test_tables_in_memory_go_on_after_an_interruption_as_if_whole(tmp_path: Path) -> None:
    """With a split, in another process: the bits of one fit on the same rows in files; other content is refused."""
    _, x, y = make("dropout_batch_norm")

    def tables(x: Any) -> Any:
        borders = itertools.pairwise(ENDS)
        return keepfit.partitions([Table(x[a:b], y[a:b]) for a, b in borders], target="label", window=2)

    options = {**OPTIONS, "validation_split": 0.3}
    files = keepfit.partitions(written(tmp_path / "files", x, y), window=2)
    whole = trained(files, validation_split=0.3)[0]
    assert differing(whole, trained(tables(x), validation_split=0.3)[0]) == []
    for armed in (True, False):
        model, _, _ = make("dropout_batch_norm")
        attach_quietly(model, tmp_path / "run", seed=5)
        if armed:
            with pytest.raises(KeyboardInterrupt):
                model.fit(tables(x), callbacks=[Interrupt(1)], **options)
        else:
            with pytest.raises(errors.RecipeChanged, match="has other content"):
                model.fit(tables(x + 1), callbacks=[Interrupt(1, armed=False)], **options)
            model.fit(tables(x), callbacks=[Interrupt(1, armed=False)], **options)
        model.run.close()
    assert differing(whole, state_bits(model)) == []


def test_evaluating_and_predicting_are_those_of_memory(tmp_path: Path) -> None:
    """Partitions are data to evaluate and predict on, too, and to validate on."""
    model, x, y = make("dropout_batch_norm")
    data = keepfit.partitions(written(tmp_path, x, y), window=1)
    with keepfit.Run(model, seed=5) as run:
        run.fit(x, y, **OPTIONS)
        assert run.evaluate(data, batch_size=8, verbose=0) == run.evaluate(x, y, batch_size=8, verbose=0)
        assert np.array_equal(run.predict(data, batch_size=8, verbose=0), run.predict(x, batch_size=8, verbose=0))
    logs = [trained(x, y, validation_data=held)[1] for held in (data, (x, y))]
    assert logs[0] == logs[1]


@pytest.mark.parametrize("step", [1, 4, 9, 13, 20, 26])
@pytest.mark.parametrize("again", ["in the process", "in another"])
def test_a_fit_that_was_cut_at_any_step_ends_with_the_same_bits(step: int, again: str, tmp_path: Path) -> None:
    """Nine steps an epoch, cut in the middle of partitions and at borders of epochs, and gone on with."""
    _, x, y = make("dropout_batch_norm")
    paths = written(tmp_path / "data", x, y)
    whole = trained(keepfit.partitions(paths, window=2))[0]
    data = keepfit.partitions(paths, window=2)
    model = keepfit.attach(make("dropout_batch_norm")[0], tmp_path / "run", seed=5, plan="fused")
    with pytest.raises(KeyboardInterrupt):
        model.fit(data, **OPTIONS, callbacks=[Stop(step)])
    if again == "in another":
        model.run.close()
        data = keepfit.partitions(paths, window=2)
        model = attach_quietly(make("dropout_batch_norm")[0], tmp_path / "run", seed=5, plan="fused")
    model.fit(data, **OPTIONS, callbacks=[Stop(1000)])
    assert differing(whole, state_bits(model)) == []


def test_without_its_place_in_the_data_a_fit_ends_with_other_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the test above: a resume that begins the pass anew."""
    _, x, y = make("dropout_batch_norm")
    data = keepfit.partitions(written(tmp_path / "data", x, y), window=2)
    whole = trained(data)[0]
    model = keepfit.attach(make("dropout_batch_norm")[0], tmp_path / "run", seed=5, plan="fused")
    with pytest.raises(KeyboardInterrupt):
        model.fit(data, **OPTIONS, callbacks=[Stop(13)])
    model.run.close()
    monkeypatch.setattr(fitting, "parted", fitting.parted)
    forget("cursor")
    model = attach_quietly(make("dropout_batch_norm")[0], tmp_path / "run", seed=5, plan="fused")
    model.fit(data, **OPTIONS, callbacks=[Stop(1000)])
    assert differing(whole, state_bits(model)) != []


def test_a_resume_reads_only_what_it_needs(tmp_path: Path) -> None:
    """Cut in the last epoch: the other process reads the window there and what follows, not what came before."""
    read: list[int] = []
    _, x, y = make("dropout_batch_norm")

    def load(number: int) -> Any:
        read.append(number)
        return x[number * 10 : (number + 1) * 10], y[number * 10 : (number + 1) * 10]

    def new() -> Any:
        return keepfit.partitions(range(7), load=load, sizes=[10] * 7, window=1)

    model = keepfit.attach(make("dropout_batch_norm")[0], tmp_path / "run", seed=5)
    with pytest.raises(KeyboardInterrupt):
        model.fit(new(), **{**OPTIONS, "batch_size": 5}, callbacks=[Stop(14 * 2 + 12)])
    model.run.close()
    read.clear()
    model = attach_quietly(make("dropout_batch_norm")[0], tmp_path / "run", seed=5)
    data = new()
    model.fit(data, **{**OPTIONS, "batch_size": 5}, callbacks=[Stop(1000)])
    join_readers(data)
    # The first rows are looked at; then the last partition of the epoch, and one or two that the next would begin with.
    assert len(read) <= 4


def join_readers(data: Any) -> None:
    for reading in data.shelf._held.values():
        assert reading.done.wait(60)


def test_sizes_are_counted_once_in_the_life_of_a_run(tmp_path: Path) -> None:
    """To count what functions return means to call each; another process takes the sizes from the journal."""
    called: deque[int] = deque()  # no plain value, which the recipe would look at
    _, x, y = make("dropout_batch_norm")

    def load(number: int) -> Any:
        called.append(number)
        return x[number * 10 : (number + 1) * 10], y[number * 10 : (number + 1) * 10]

    for process in range(2):
        model = attach_quietly(make("dropout_batch_norm")[0], tmp_path / "run", seed=5)
        called.clear()
        model.fit(keepfit.partitions(range(7), load=load), verbose=0)
        model.run.close()
        # Counted, looked at, and trained on; then only the first rows are looked at: the fit was done before.
        assert set(called) == ({0, 1, 2, 3} if process else set(range(7))), called


def test_functions_of_other_sizes_are_counted_anew(tmp_path: Path) -> None:
    """Functions have no names to speak of: what they return first tells whose sizes the journal has."""
    model, x, y = make("dropout_batch_norm")
    with keepfit.Run(model, tmp_path / "run") as run:
        for first, cut in ((0, 20), (5, 30), (0, 20)):
            parts = [slice(first, cut), slice(cut, 40)]
            run.fit(keepfit.partitions([lambda rows=rows: (x[rows], y[rows]) for rows in parts]), verbose=0)
    assert run.position.samples == 40 + 35 + 40


def test_a_fit_goes_on_inside_a_pass(tmp_path: Path) -> None:
    """``steps_per_epoch`` leaves a pass unfinished, and the next fit goes on there: five fits are one."""
    _, x, y = make("dropout_batch_norm")
    paths = written(tmp_path, x, y)
    whole = trained(keepfit.partitions(paths, window=2), steps_per_epoch=3, epochs=5)[0]
    data = keepfit.partitions(paths, window=2)
    model, _, _ = make("dropout_batch_norm")
    with keepfit.Run(model, seed=5) as run:
        for _ in range(5):
            run.fit(data, **{**OPTIONS, "epochs": 1}, steps_per_epoch=3)
    assert differing(whole, state_bits(model)) == []


def test_a_split_is_the_same_in_every_fit(tmp_path: Path) -> None:
    """The validation data does not depend on seed, window or shuffle, and is not trained on."""
    _, x, y = make("dropout_batch_norm")
    data = keepfit.partitions(written(tmp_path, x, y), window=2)
    model, _, _ = make("dropout_batch_norm")
    with keepfit.Run(model, seed=5) as run:
        held = run.fit(data, validation_split=0.3, **OPTIONS).history["val_loss"][-1]
        side = data.split(0.3)[1]
        assert run.evaluate(side, batch_size=8, verbose=0)[0] == held
        run.fit(data, validation_split=0.3, **OPTIONS)
        assert run.recorder.fits[2].phase == "continues"


# Faults


@pytest.mark.parametrize("fault", ["missing", "truncated", "changed"])
def test_a_fault_leaves_the_last_finished_step_and_a_repair_goes_on(fault: str, tmp_path: Path) -> None:
    """In the middle of an epoch a file is damaged: an error names it; repaired, the end has the control's bits."""
    _, x, y = make("dropout_batch_norm")
    paths = written(tmp_path / "data", x, y)
    whole = trained(keepfit.partitions(paths, window=1))[0]
    bad = paths[3]
    content = bad.read_bytes()

    class Damage(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self._steps = 0

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1 and not self._steps:
                data.close()
                self._steps = 1
                if fault == "missing":
                    bad.unlink()
                else:
                    bad.write_bytes(content[:-200] if fault == "truncated" else content[:-1] + b"\x07")

    data = keepfit.partitions(paths, window=1)
    model = keepfit.attach(make("dropout_batch_norm")[0], tmp_path / "run", seed=5)
    with pytest.raises(errors.PartitionFailed, match=r"Partition 3 \(.*part-3.npz\)") as raised:
        model.fit(data, **OPTIONS, callbacks=[Damage()])
    assert raised.value.partition == 3
    assert "fit 1, epoch 2" in " ".join(raised.value.__notes__)
    assert int(model.optimizer.iterations) == model.run.position.step
    bad.write_bytes(content)
    model.fit(data, **OPTIONS, callbacks=[Damage()])
    model.run.close()
    assert differing(whole, state_bits(model)) == []


@pytest.mark.parametrize("how", ["killed", "hangs"])
def test_a_reader_that_is_lost_leaves_the_last_finished_step_and_the_fit_goes_on(how: str, tmp_path: Path) -> None:
    """A process that reads is killed, or hangs, in the middle of an epoch: the end is that of a fit with threads."""
    _, x, y = make("dropout_batch_norm")
    paths, flag = written(tmp_path / "data", x, y), tmp_path / "fails"
    whole = trained(keepfit.partitions(paths, window=2))[0]

    class Fault(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self._times = 0

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1 and not self._times:
                self._times = 1
                data.close()
                flag.touch()

    load = loads.FaultyFile(str(flag), how)
    data = keepfit.partitions(paths, load=load, window=2, workers=2, processes=True, timeout_s=5)
    model = keepfit.attach(make("dropout_batch_norm")[0], tmp_path / "run", seed=5)
    with pytest.raises(errors.PartitionFailed, match=r"Partition 3 \(.*part-3.npz\)") as raised:
        model.fit(data, **OPTIONS, callbacks=[Fault()])
    assert (raised.value.partition, raised.value.sample is None) == (3, False)
    assert "fit 1, epoch 2" in " ".join(raised.value.__notes__)
    assert int(model.optimizer.iterations) == model.run.position.step
    model.run.close()
    data.close()
    flag.unlink()
    data = keepfit.partitions(paths, load=load, window=2, processes=True)
    model = attach_quietly(make("dropout_batch_norm")[0], tmp_path / "run", seed=5)
    model.fit(data, **OPTIONS, callbacks=[Fault()])
    model.run.close()
    data.close()
    assert differing(whole, state_bits(model)) == []


def scaled(factor: float) -> Any:
    """Return a ``load`` with a value in its closure."""

    def load(path: Path) -> Any:
        with np.load(path) as file:
            return file["x"] * factor, file["y"]

    return load


def rewritten() -> Any:
    """Return a ``load`` of the same name with another body."""

    def load(path: Path) -> Any:
        factor = 1.0
        with np.load(path) as file:
            return factor * file["x"], file["y"]

    load.__qualname__ = scaled(1.0).__qualname__
    return load


@pytest.mark.parametrize(("other", "said"), [(scaled(1.0), False), (scaled(2.0), True), (rewritten(), True)])
@pytest.mark.parametrize("split", [0.0, 0.3])
def test_a_load_that_changed_between_processes_is_warned_of(
    other: Any, said: bool, split: float, tmp_path: Path
) -> None:
    """Its body, and plain values it was made with: the fit replays, and a warning and an event say what differs."""
    _, x, y = make("dropout_batch_norm")
    paths = written(tmp_path / "data", x, y)

    def fitted(load: Any) -> Any:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = attach_quietly(make("dropout_batch_norm")[0], tmp_path / "run")
            model.fit(keepfit.partitions(paths, load=load), validation_split=split, **OPTIONS)
        recorded = [event.message for event in model.run.recorder.events if event.kind == "recipe"]
        model.run.close()
        return [str(each.message) for each in caught], recorded

    fitted(scaled(1.0))
    told, recorded = fitted(other)
    assert any("load" in each and "recorded with other code" in each for each in told) == said
    assert any("load" in each for each in recorded) == said


def test_partitions_that_changed_between_processes_are_refused(tmp_path: Path) -> None:
    """The recipe knows the files; the message says which one is another."""
    _, x, y = make("dropout_batch_norm")
    paths = written(tmp_path / "data", x, y)
    model = keepfit.attach(make("dropout_batch_norm")[0], tmp_path / "run")
    model.fit(keepfit.partitions(paths), **OPTIONS)
    model.run.close()
    np.savez(paths[2], x=x[20:33] + 1, y=y[20:33])
    model = attach_quietly(make("dropout_batch_norm")[0], tmp_path / "run")
    with pytest.raises(errors.RecipeChanged, match=r"partition 2 \(part-2.npz\) has other content"):
        model.fit(keepfit.partitions(paths), **OPTIONS)
    with pytest.raises(errors.RecipeChanged, match="the window was 4 partitions and is now 2"):
        model.fit(keepfit.partitions(written(tmp_path / "data", x, y), window=2), **OPTIONS)


def test_a_partition_is_skipped_only_where_that_is_asked_for(tmp_path: Path) -> None:
    """The steps stay as many, other samples take the places; it is warned of and recorded, and a resume skips too."""
    x, y = np.arange(40, dtype="float32")[:, None], np.arange(40, dtype="float32")
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    fails = [True]

    def load(number: int) -> Any:
        if number == 1 and fails[0]:
            raise OSError("the disk is away")
        return x[number * 10 : (number + 1) * 10], y[number * 10 : (number + 1) * 10]

    def data() -> Any:
        return keepfit.partitions(range(4), load=load, sizes=[10] * 4, window=2, on_error="skip")

    run = keepfit.Run(model, tmp_path / "run", seed=2)
    with pytest.warns(errors.KeepfitWarning, match="Partition 1 .* is skipped .* the disk is away"):
        run.fit(data(), batch_size=5, verbose=0)
    assert run.position.step == 8
    assert [event.kind for event in run.recorder.events].count("skipped") == 1
    skipping = data()
    source = training_source(skipping, batch_size=5, seed=2)
    with pytest.warns(errors.KeepfitWarning, match="is skipped"):
        seen = source.read(0, 0, 40)[1]
    assert len(seen) == 40
    assert not set(seen) & set(range(10, 20))
    fails[0] = False
    resumed = training_source(data(), batch_size=5, seed=2)
    resumed.set_state(source.get_state())
    assert np.array_equal(resumed.read(0, 0, 40)[1], seen)


def test_nothing_is_skipped_where_nothing_is_left() -> None:
    """The last partition that fails raises."""

    def load(number: int) -> Any:
        raise OSError("the disk is away")

    data = keepfit.partitions(range(2), load=load, sizes=[4, 4], on_error="skip")
    with pytest.raises(errors.InvalidData, match="no samples"), pytest.warns(errors.KeepfitWarning, match="skipped"):
        training_source(data, batch_size=2, seed=0)


def test_a_split_over_different_arrays_is_told_once() -> None:
    """In a loop over parts, each makes another validation set: one notice; over the same arrays, none."""
    model, x, y = make("plain_dense")
    with keepfit.Run(model) as run, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for start in (0, 0, 20, 40):
            run.fit(x[start : start + 20], y[start : start + 20], validation_split=0.2, verbose=0)
    told = [str(each.message) for each in caught if "another validation set" in str(each.message)]
    assert len(told) == 1


@pytest.mark.slow
def test_memory_stays_inside_the_budget(tmp_path: Path) -> None:
    """Ten times the budget on disk: the process takes no more than the budget; all of it without a window."""
    if keras.backend.backend() != "jax":
        pytest.skip("what is held does not depend on the backend")
    memory = 65_000_000
    paths = write(tmp_path)
    assert sum(path.stat().st_size for path in paths) > 10 * memory
    assert rise(tmp_path, memory) < memory
    assert rise(tmp_path, 0) > 9 * memory


def rise(folder: Path, memory: int) -> int:
    """Return by how much training raises the memory of a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.behaviour.bounded", str(folder), str(memory)]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, cwd=root, env={**os.environ}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])
