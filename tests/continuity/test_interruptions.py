"""Signals, exceptions and full disks: the last finished step is kept, and the run goes on from it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keepfit
from keepfit import _keras
from keepfit.errors import KeepfitWarning, StoreFull
from keepfit.journal import Reader
from keepfit.store import Disk
from tests.bits import differing, joined_history, state_bits
from tests.models import make

ROOT = Path(__file__).resolve().parents[2]


def control(name: str, epochs: int, **arguments: Any) -> tuple[Any, Any]:
    """Return state and logs of a training that nothing interrupts."""
    model, x, y = make(name)
    with keepfit.Run(model) as run:
        history = run.fit(x, y, batch_size=16, epochs=epochs, verbose=0, **arguments)
        return state_bits(model), joined_history([history])


class Raise(keras.callbacks.Callback):
    """Raise in one hook, once in the life of the object."""

    def __init__(self, hook: str, at: int, error: BaseException) -> None:
        super().__init__()
        number = at
        armed = {"armed": True}

        def raising(index: Any = None, logs: Any = None) -> None:
            # Some hooks are given a number, the others only logs.
            if armed["armed"] and (index == number or not isinstance(index, int)):
                armed["armed"] = False
                raise error

        setattr(self, hook, raising)


@pytest.mark.parametrize(
    ("hook", "number"),
    [
        ("on_train_begin", 0),
        ("on_epoch_begin", 1),
        ("on_train_batch_begin", 3),
        ("on_train_batch_end", 2),
        ("on_train_batch_end", 4),  # the last of an epoch: its logs are those of the epoch
        ("on_test_begin", 0),
        ("on_test_batch_end", 1),
        ("on_epoch_end", 2),
        ("on_train_end", 0),
    ],
)
@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError("from a callback")])
def test_fit_goes_on_after_an_exception_in(hook: str, number: int, error: BaseException) -> None:
    """The same call again ends with the bits and logs of a fit that nothing interrupted."""

    def callbacks() -> list[keras.callbacks.Callback]:
        return [
            keras.callbacks.EarlyStopping("loss", patience=9, restore_best_weights=True),
            keras.callbacks.ReduceLROnPlateau("val_loss", patience=1, min_delta=50.0, cooldown=1),
        ]

    model, x, y = make("averaged_weights")
    arguments: dict[str, Any] = {
        "batch_size": 16,
        "epochs": 4,
        "verbose": 0,
        "validation_data": (x, y),
        "callbacks": [*callbacks(), Raise(hook, number, error)],
    }
    with keepfit.Run(model) as run:
        with pytest.raises(type(error)):
            run.fit(x, y, **arguments)
        history = run.fit(x, y, **arguments)
        found = state_bits(model), joined_history([history])
    arguments["callbacks"] = callbacks()  # before 3.15 a used plateau callback knows its best value
    del arguments["batch_size"], arguments["verbose"], arguments["epochs"]
    whole = control("averaged_weights", 4, **arguments)
    assert differing(whole[0], found[0]) == []
    assert found[1] == whole[1]


def test_memory_survives_a_callback_that_fails_twice() -> None:
    """A resume that fails at its very beginning leaves what the callbacks remembered."""
    model, x, y = make("plain_dense")
    patience = keras.callbacks.EarlyStopping("loss", patience=3, min_delta=1e9)
    failing = [Raise("on_epoch_begin", 2, ZeroDivisionError()), Raise("on_train_begin", 0, KeyError())]
    failing[1].on_train_begin, later = keras.callbacks.Callback().on_train_begin, failing[1].on_train_begin
    arguments = {"batch_size": 16, "epochs": 8, "verbose": 0, "callbacks": [patience, *failing]}
    with keepfit.Run(model) as run:
        with pytest.raises(ZeroDivisionError):
            run.fit(x, y, **arguments)
        failing[1].on_train_begin = later
        with pytest.raises(KeyError):
            run.fit(x, y, **arguments)
        assert run.fit(x, y, **arguments).epoch == [0, 1, 2, 3]


def test_exception_names_the_place() -> None:
    """What is raised within a fit keeps its type and says where it was."""
    model, x, y = make("plain_dense")
    with keepfit.Run(model) as run, pytest.raises(ZeroDivisionError) as caught:
        run.fit(x, y, batch_size=16, epochs=4, verbose=0, callbacks=[Raise("on_epoch_end", 2, ZeroDivisionError())])
    assert caught.value.__notes__ == ["in fit 1, epoch 3, step 5"]


class Flaky(keras.utils.PyDataset):
    """Batches of which one cannot be read, once."""

    def __init__(self, x: Any, y: Any, *, broken: int | None) -> None:
        super().__init__()
        self.x, self.y, self.broken, self.reads = x, y, broken, 0

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> Any:
        self.reads += 1
        if self.reads == self.broken:
            raise OSError("the disk had a hiccup")
        rows = slice(index * 10, index * 10 + 10)
        return self.x[rows], self.y[rows]


def test_fit_goes_on_after_data_could_not_be_read() -> None:
    """An exception of the data leaves the last finished step; the next call takes the same batch again."""
    results = []
    for broken in (None, 10):
        model, x, y = make("dropout_batch_norm")
        data = Flaky(x, y, broken=broken)
        with keepfit.Run(model) as run:
            if broken is not None:
                with pytest.raises(OSError, match="hiccup"):
                    run.fit(data, epochs=3, verbose=0)
                assert 0 < run.position.step < 14
            history = run.fit(data, epochs=3, verbose=0)
            results.append((state_bits(model), joined_history([history])))
    assert differing(results[0][0], results[1][0]) == []
    assert results[0][1] == results[1][1]


def batches(x: Any, y: Any) -> Iterator[Any]:
    """Yield batches without end, the order drawn from NumPy's global generator."""
    while True:
        rows = np.random.randint(0, len(x), size=8)
        yield x[rows], y[rows]


# The second process's callback does not raise.
@pytest.mark.filterwarnings("ignore:Fit 2 was recorded with other code .* callbacks.Raise")
def test_generator_goes_on_in_a_new_process(tmp_path: Path) -> None:
    """A generator is brought back by replay, and that is said and recorded; the bits are the same."""
    whole = None
    for folder in ("whole", "cut"):
        model, x, y = make("dropout_batch_norm")
        callbacks = [Raise("on_epoch_begin", 2 if folder == "cut" else 99, ZeroDivisionError())]
        run = keepfit.Run(model, tmp_path / folder)
        generator = batches(x, y)
        run.fit(generator, epochs=2, steps_per_epoch=3, verbose=0)
        if folder == "whole":
            run.fit(generator, epochs=4, steps_per_epoch=5, verbose=0, initial_epoch=0, callbacks=callbacks)
            whole = state_bits(model)
            run.close()
            continue
        with pytest.raises(ZeroDivisionError):
            run.fit(generator, epochs=4, steps_per_epoch=5, verbose=0, initial_epoch=0, callbacks=callbacks)
        run.close()
    assert whole is not None
    model, x, y = make("dropout_batch_norm")
    run = keepfit.Run(model, tmp_path / "cut")
    generator = batches(x, y)
    run.fit(generator, epochs=2, steps_per_epoch=3, verbose=0)
    callbacks = [Raise("on_epoch_begin", 99, ZeroDivisionError())]
    with pytest.warns(KeepfitWarning, match="going through it again"):
        run.fit(generator, epochs=4, steps_per_epoch=5, verbose=0, initial_epoch=0, callbacks=callbacks)
    assert differing(whole, state_bits(model)) == []
    assert any("going through it again" in text for text in run.recorder.fits[2].approximate)


def test_fits_go_on_in_one_generator() -> None:
    """Three fits over one generator see its batches in a row, none lost and none twice."""
    seen: list[float] = []

    def counting() -> Iterator[Any]:
        for number in range(1000):
            yield np.full((4, 6), number, "float32"), np.zeros((4, 1), "float32")

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            seen.append(logs["number"])

    class Model(keras.Sequential):
        def train_step(self, *arguments: Any) -> Any:
            *state, data = arguments
            logs = {"number": data[0][0, 0]}
            return (logs, *state) if state else logs

    model = Model([keras.Input((6,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    generator = counting()
    with keepfit.Run(model) as run:
        for _ in range(3):
            run.fit(generator, epochs=2, steps_per_epoch=2, verbose=0, callbacks=[Look()])
    assert seen == list(range(12))


def test_full_disk_keeps_the_training_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No space left: a clear error, the model whole, nothing half-written counted; with space the run goes on."""
    model, x, y = make("dropout_batch_norm")
    run = keepfit.Run(model, tmp_path / "run", checkpoint_share=1.0)
    arguments = {"batch_size": 16, "epochs": 6, "verbose": 0}
    write = Disk.write

    def full(*given: Any, **options: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Disk, "write", full)
    slow = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: time.sleep(0.1))
    with pytest.warns(KeepfitWarning, match="could not be written"), pytest.raises(StoreFull, match="No space left"):
        run.fit(x, y, callbacks=[slow], **arguments)
    assert all(np.all(np.isfinite(w)) for w in model.get_weights())
    monkeypatch.setattr(Disk, "write", write)
    history = run.fit(x, y, callbacks=[slow], **arguments)
    found = state_bits(model), joined_history([history])
    run.close()
    whole = control("dropout_batch_norm", 6)
    assert differing(whole[0], found[0]) == []
    assert whole[1] == found[1]


@pytest.mark.parametrize("plan", ["fused", "stepwise"])
def test_loss_that_is_not_finite_is_said_at_once(plan: str, tmp_path: Path) -> None:
    """A NaN names fit, epoch and step, and the last good checkpoint stays."""
    model, x, y = make("plain_dense")
    run = keepfit.Run(model, tmp_path, plan=plan, checkpoint_share="each", keep=2)
    run.fit(x, y, batch_size=10, epochs=1, verbose=0, shuffle=False, name=None)
    y = y.copy()
    y[33] = np.nan
    with pytest.warns(KeepfitWarning, match="NaN or infinite in fit 2, epoch 2, step 4\\."):
        run.fit(x, y, batch_size=10, epochs=1, verbose=0, shuffle=False)
    for _ in range(4):
        with pytest.warns(KeepfitWarning, match="NaN or infinite"):
            run.fit(x, y, batch_size=10, epochs=1, verbose=0, shuffle=False)
    run.recorder.flush()
    good = [c.fit for c in run.recorder.checkpoints if c.kind == "end" and c.good]
    assert good == [1]
    assert run.load(fit=1) == 1
    assert all(np.all(np.isfinite(w)) for w in model.get_weights())


SCRIPT = """
import signal, sys, time, keepfit, keras
from tests.models import make
# Whoever starts the tests in the background may have them ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
model, x, y = make("dropout_batch_norm")
class Slow(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None): time.sleep(0.1)
    def on_test_batch_end(self, batch, logs=None): time.sleep(0.05)
model = keepfit.attach(model, sys.argv[1])
print("training", flush=True)
given = dict(validation_data=(x, y), validation_batch_size=10, callbacks=[Slow()])
model.fit(x, y, batch_size=16, epochs=20, verbose=0, **given)
print("done", flush=True)
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, -signal.SIGINT)])
def test_signal_leaves_a_checkpoint_and_the_usual_status(number: int, status: int, tmp_path: Path) -> None:
    """SIGTERM and Ctrl-C finish the dispatch in flight, keep the last step, and end the process as they always do."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, str(tmp_path / "run")],
        cwd=ROOT,
        env=os.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "training\n"
    while not _has_epochs(tmp_path / "run", 3):
        assert process.poll() is None
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert "done" not in output
    assert process.returncode == status, errors
    if number == signal.SIGINT:
        assert "KeyboardInterrupt" in errors
    with Reader.open(tmp_path / "run") as reader:
        newest = reader.checkpoints()[-1]
        interrupted = reader.events(kind="interrupted")
    assert newest.kind == "inside"
    assert newest.position.step == interrupted[-1].step
    assert newest.position.epoch >= 3


@pytest.fixture
def on_disk(tmp_path: Path) -> Iterator[list[str]]:
    """Note, when Ctrl-C or SIGTERM takes effect, what is on disk."""
    kinds: list[str] = []

    def leave(number: int, _: Any) -> None:
        with Reader.open(tmp_path / "run") as reader:
            kinds.append(reader.checkpoints()[-1].kind)
        sys.exit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGINT, signal.SIGTERM)}
    yield kinds
    for number, handler in before.items():
        assert signal.signal(number, handler) is leave


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("hook", ["on_epoch_end", "on_train_end"])
def test_signal_in_the_last_moments_of_a_fit_takes_effect(
    hook: str, number: int, tmp_path: Path, on_disk: list[str]
) -> None:
    """It is not lost with the fit it came in, nor is the fit: the same call ends what has not ended yet."""
    whole, logs = control("dropout_batch_norm", 2)
    model, x, y = make("dropout_batch_norm")
    at = 1 if hook == "on_epoch_end" else None

    def send(index: Any = None, logs: Any = None) -> None:
        if at is None or index == at:
            signal.raise_signal(number)

    arguments: dict[str, Any] = {"batch_size": 16, "epochs": 2, "verbose": 0}
    with keepfit.Run(model, tmp_path / "run") as run:
        with pytest.raises(SystemExit):
            run.fit(x, y, callbacks=[keras.callbacks.LambdaCallback(**{hook: send})], **arguments)
        assert on_disk == ["inside" if hook == "on_epoch_end" else "end"]
        assert (run.place.fits, run.position.epoch) == (0 if hook == "on_epoch_end" else 1, 2)
        if hook == "on_epoch_end":
            found = run.fit(x, y, callbacks=[keras.callbacks.LambdaCallback()], **arguments)
            assert joined_history([found]) == logs
        assert differing(whole, state_bits(model)) == []


@pytest.mark.usefixtures("_heard_ctrl_c")
@pytest.mark.parametrize("verb", ["evaluate", "predict"])
def test_ctrl_c_while_the_last_batch_is_evaluated_takes_effect(verb: str) -> None:
    """And the run goes on as if nobody had asked."""
    model, x, y = make("dropout_batch_norm")
    hook = {"evaluate": "on_test_end", "predict": "on_predict_end"}[verb]
    stop = keras.callbacks.LambdaCallback()
    setattr(stop, hook, lambda logs=None: signal.raise_signal(signal.SIGINT))
    with keepfit.Run(model) as run:
        run.fit(x, y, batch_size=16, epochs=2, verbose=0)
        with pytest.raises(KeyboardInterrupt):
            getattr(run, verb)(x, **({"y": y} if verb == "evaluate" else {}), verbose=0, callbacks=[stop])
        run.fit(x, y, batch_size=16, epochs=2, verbose=0)
        found = state_bits(model)
    assert differing(control("dropout_batch_norm", 4)[0], found) == []


def _has_epochs(directory: Path, count: int) -> bool:
    try:
        with Reader.open(directory) as reader:
            return len(reader.epochs()) >= count
    except OSError:
        return False


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="only JAX gives new arrays to variables after a dispatch")
@pytest.mark.parametrize("checkpoints", [False, True])
@pytest.mark.parametrize("noticed", [True, False])
@pytest.mark.filterwarnings("ignore:The model was brought back")
def test_second_ctrl_c_amid_a_dispatch_goes_back_to_a_whole_state(
    checkpoints: bool, noticed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the variables have their new values: the state is that of a checkpoint, never a mixture."""
    arguments: dict[str, Any] = {"batch_size": 16, "verbose": 0}
    model, x, y = make("dropout_batch_norm")
    whole, _ = control("dropout_batch_norm", 4)
    with keepfit.Run(model) as run:
        run.fit(x, y, epochs=1, **arguments)
        set_value, left = _keras.set_value, [20]
        monkeypatch.setattr(run.recorder, "due", lambda: checkpoints)

        def interrupted(variable: Any, array: Any) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
            set_value(variable, array)

        with monkeypatch.context() as amid:
            amid.setattr(_keras, "set_value", interrupted)
            amid.setattr(run.pace, "note", lambda steps, seconds: None)
            amid.setattr(type(run.pace), "steps", 2)
            if not noticed:
                amid.setattr(type(run.engine), "is_lost", lambda self: False)
            with pytest.raises(KeyboardInterrupt):
                run.fit(x, y, epochs=3, **arguments)
        run.engine.unsettled = False
        run.fit(x, y, epochs=3, **arguments)
        assert (state_bits(model) == whole) is noticed


@pytest.mark.parametrize("number", [1, 2, 5])
def test_ctrl_c_while_a_dispatch_is_waited_for_keeps_the_logs_of_the_next(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait for one dispatch is where the next one is under way: its logs are those of its epoch all the same."""
    arguments: dict[str, Any] = {"batch_size": 16, "verbose": 0, "epochs": 4}
    whole = control("dropout_batch_norm", 4)
    model, x, y = make("dropout_batch_norm")
    with keepfit.Run(model) as run, monkeypatch.context() as amid:
        waits = [0]

        def interrupted(steps: int, seconds: float) -> None:
            waits[0] += 1
            if waits[0] == number:
                raise KeyboardInterrupt

        amid.setattr(run.pace, "note", interrupted)
        amid.setattr(type(run.pace), "steps", 2)
        with pytest.raises(KeyboardInterrupt):
            run.fit(x, y, **arguments)
        history = run.fit(x, y, **arguments)
        assert differing(whole[0], state_bits(model)) == []
        assert joined_history([history]) == whole[1]
