"""Callbacks over fits: ``fit(epochs=1)`` in a loop decides and writes what one ``fit(N)`` does."""

from __future__ import annotations

import collections
import contextlib
import functools
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

import keepfit
from keepfit import fitting
from keepfit.errors import KeepfitWarning
from tests.bits import differing, joined_history, state_bits
from tests.models import make

EPOCHS = 6
GIVEN: dict[str, Any] = {"batch_size": 14, "verbose": 0}
# Keras's own trainer on PyTorch refuses more than one step per execution.
KERAS_EXECUTIONS = [1] if keras.backend.backend() == "torch" else [1, 3]
WAYS = {"one": [EPOCHS], "loop": [1] * EPOCHS, "cut": [2, 1, 3]}


class Shaped(keras.callbacks.Callback):
    """Replace the validation loss by given values, so that decisions fall where a test wants them.

    Comes before the callbacks that look at it.
    """

    def __init__(self, values: Sequence[float]) -> None:
        super().__init__()
        self.values = tuple(values)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs["val_loss"] = self.values[epoch]


def train(
    make_callbacks: Callable[[], list[Any]],
    fits: Sequence[int],
    *,
    model_name: str = "dropout_batch_norm",
    directory: Path | None = None,
    plan: str | None = None,
    steps_per_execution: int = 1,
    **arguments: Any,
) -> tuple[Any, Any]:
    """Train fits with new callbacks each until one stops early; return all state and everything logged."""
    model, x, y = make(model_name)
    model.steps_per_execution = steps_per_execution
    given = {**GIVEN, "validation_data": (x[:14], y[:14]), **arguments}
    histories = []
    with keepfit.Run(model, directory, plan=plan) as run:
        for epochs in fits:
            histories.append(run.fit(x, y, epochs=epochs, callbacks=make_callbacks(), **given))
            if model.stop_training:
                break
        return state_bits(model), joined_history(histories)


@functools.cache
def whole_of(name: str) -> tuple[Any, Any]:
    """Return what one fit with the callbacks of a case gives."""
    return train(CASES[name][0], WAYS["one"])


def assert_same(one: Any, other: Any) -> None:
    """Check that two trainings ended with the same bits and logs."""
    assert differing(one[0], other[0]) == []
    assert one[1] == other[1]


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch the memory of callbacks off, for a negative control."""
    monkeypatch.setattr(fitting.CallbackMemory, "before_begin", lambda self, saved, **how: [])
    monkeypatch.setattr(fitting.CallbackMemory, "after_begin", lambda self, saved, **how: [])


# Decisions: each case is callbacks, and what of the logs shows that they decided.

VALUES = (5.0, 3.0, 4.0, 3.5, 3.4, 2.0)


def early_stopping() -> list[Any]:
    """Stops at epoch 4 of 6, counted from 1: the best is the second."""
    return [Shaped(VALUES), keras.callbacks.EarlyStopping(patience=2)]


def best_weights() -> list[Any]:
    """Stops at epoch 5 with the weights of the second."""
    return [Shaped(VALUES), keras.callbacks.EarlyStopping(patience=3, restore_best_weights=True)]


def best_weights_at_the_end() -> list[Any]:
    """Never stops; Keras restores the best weights all the same."""
    return [Shaped((5.0, 3.0, *[4.0] * 4)), keras.callbacks.EarlyStopping(patience=9, restore_best_weights=True)]


def patience_zero() -> list[Any]:
    """Stops at the first epoch that is not better; Keras never stops at epoch 0."""
    return [Shaped((5.0, 4.0, 4.5, 1.0, 1.0, 1.0)), keras.callbacks.EarlyStopping(patience=0)]


def baseline() -> list[Any]:
    """Stops because the baseline is not reached."""
    return [Shaped(VALUES), keras.callbacks.EarlyStopping(patience=4, baseline=1.0)]


def plateau() -> list[Any]:
    """Reduces the rate twice, with a pause between."""
    return [
        Shaped((3.0, 3.0, 3.0, 3.0, 3.0, 3.0)),
        keras.callbacks.ReduceLROnPlateau(patience=1, factor=0.5, cooldown=1),
    ]


def both() -> list[Any]:
    """Reduces first and stops later, as people use them together."""
    shaped, stopping = best_weights()
    return [shaped, keras.callbacks.ReduceLROnPlateau(patience=2, factor=0.1), stopping]


class OwnDecision(keras.callbacks.Callback):
    """A user's callback: halves the rate when the mean of the last three losses is worse than it was."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: collections.deque[float] = collections.deque(maxlen=3)
        self.generator = np.random.default_rng(5)
        self.last_mean = np.inf

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.losses.append(logs["val_loss"])
        mean = float(np.mean(self.losses))
        if mean >= self.last_mean or len(self.losses) == 3:
            self.model.optimizer.learning_rate = float(self.model.optimizer.learning_rate) * self.generator.uniform(
                0.3, 0.7
            )
        self.last_mean = mean
        logs["learning_rate"] = float(self.model.optimizer.learning_rate)


class OwnState(OwnDecision):
    """The same with a state that it gives itself, and something that cannot be saved."""

    def __init__(self) -> None:
        super().__init__()
        self.file = sys.stderr

    def get_state(self) -> Any:
        return {"losses": list(self.losses), "mean": self.last_mean, "generator": self.generator}

    def set_state(self, state: Any) -> None:
        self.losses.extend(state["losses"])
        self.last_mean, self.generator = state["mean"], state["generator"]


class OwnSeed(keras.callbacks.Callback):
    """A user's callback that draws from a seed generator of Keras's: the rate is another after every epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seed_generator = keras.random.SeedGenerator(5)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        drawn = keras.ops.convert_to_numpy(keras.random.uniform((), 0.01, 0.02, seed=self.seed_generator))
        self.model.optimizer.learning_rate = logs["learning_rate"] = float(drawn)


def own_seed() -> list[Any]:
    """A user's callback with a seed generator."""
    return [OwnSeed()]


def own() -> list[Any]:
    """A user's callback with plain attributes."""
    return [OwnDecision()]


def own_state() -> list[Any]:
    """A user's callback with get_state and set_state."""
    return [OwnState()]


CASES: dict[str, tuple[Callable[[], list[Any]], int]] = {
    case.__name__: (case, epochs)
    for case, epochs in (
        (early_stopping, 4),
        (best_weights, 5),
        (best_weights_at_the_end, 6),
        (patience_zero, 3),
        (baseline, 4),
        (plateau, 6),
        (both, 5),
        (own, 6),
        (own_seed, 6),
        (own_state, 6),
    )
}


@pytest.mark.parametrize("way", ["loop", "cut"])
@pytest.mark.parametrize("name", CASES)
def test_new_callbacks_in_every_fit_decide_as_in_one_fit(name: str, way: str) -> None:
    """Where training stops, which rates it takes and which weights it ends with is the same however it is cut."""
    callbacks, epochs = CASES[name]
    whole = whole_of(name)
    assert len(whole[1]["epoch"]) == epochs
    assert_same(whole, train(callbacks, WAYS[way]))


@pytest.mark.parametrize("name", CASES)
def test_new_callbacks_without_their_memory_decide_otherwise(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: without the memory the loop of fits differs from the one fit."""
    callbacks, _ = CASES[name]
    whole = whole_of(name)
    forget(monkeypatch)
    cut = train(callbacks, WAYS["loop"])
    assert (whole[0], whole[1]) != (cut[0], cut[1])


@pytest.mark.parametrize("name", ["both", "own"])
def test_new_callbacks_in_new_processes_decide_as_in_one_fit(name: str, tmp_path: Path) -> None:
    """A script that is run again with one fit more each time ends as the one fit."""
    callbacks, _ = CASES[name]
    whole = whole_of(name)
    cut = None
    for fits in range(1, EPOCHS + 1):
        cut = train(callbacks, [1] * fits, directory=tmp_path)
    assert cut is not None
    assert_same(whole, cut)


def test_decisions_equal_those_of_keras() -> None:
    """The epochs, rates and names logged in one fit are those of Keras itself."""
    for name in ("best_weights", "plateau", "patience_zero"):
        callbacks, _ = CASES[name]
        model, x, y = make("plain_dense")
        given = {**GIVEN, "validation_data": (x[:14], y[:14]), "shuffle": False}
        expected = model.fit(x, y, epochs=EPOCHS, callbacks=callbacks(), **given)
        found = train(callbacks, WAYS["loop"], model_name="plain_dense", shuffle=False)
        assert found[1]["epoch"] == expected.epoch
        assert found[1].get("learning_rate") == expected.history.get("learning_rate")
        assert sorted(found[1]) == sorted([*expected.history, "epoch"])


# After an early stop


@pytest.mark.filterwarnings("ignore:Fit 2 is a new phase")
def test_fit_after_an_early_stop_trains_with_the_best_kept_and_counters_fresh(tmp_path: Path) -> None:
    """stop_training stays True until the next fit trains, which has patience anew and compares with the best of all."""
    values = (3.0, 4.0, 3.5, 3.2, 3.1, 9.0)
    weights = []
    for _ in range(2):  # the second time all is replayed
        model, x, y = make("dropout_batch_norm")
        given = {**GIVEN, "validation_data": (x[:14], y[:14])}
        with keepfit.Run(model, tmp_path) as run:
            for epochs in ([0, 1, 2], [3, 4]):
                stopping = keras.callbacks.EarlyStopping(patience=2, restore_best_weights=True)
                assert run.fit(x, y, epochs=6, callbacks=[Shaped(values), stopping], **given).epoch == epochs
                assert (stopping.best, stopping.best_epoch, stopping.wait) == (3.0, 0, 2)
                assert model.stop_training is True
                run.evaluate(x, y, verbose=0)
                assert model.stop_training is True
                weights.append(model.get_weights())
    for found in weights[1:]:
        assert all(np.array_equal(one, other) for one, other in zip(weights[0], found, strict=True))


def test_fit_after_an_early_stop_goes_on_from_its_result() -> None:
    """The weights that early stopping brought back are what the next fit starts from."""

    class Begin(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            seen.append(self.model.get_weights())

    seen: list[Any] = []
    model, x, y = make("dropout_batch_norm")
    given = {**GIVEN, "validation_data": (x[:14], y[:14])}
    with keepfit.Run(model) as run:
        run.fit(x, y, epochs=6, callbacks=best_weights(), **given)
        restored = model.get_weights()
        with pytest.warns(KeepfitWarning, match="Fit 2 is a new phase: fit 1 was stopped early"):
            run.fit(x, y, epochs=1, callbacks=[Begin()], **given)
    assert all(np.array_equal(one, other) for one, other in zip(restored, seen[0], strict=True))


def test_weights_that_a_callback_brought_back_stay_when_it_is_gone() -> None:
    """A fit without the callback that restored the best weights starts from those; with it, from before."""
    model, x, y = make("plain_dense")
    given = {**GIVEN, "validation_data": (x[:14], y[:14])}
    with keepfit.Run(model) as run:
        run.fit(x, y, epochs=3, callbacks=best_weights_at_the_end(), **given)
        restored = model.get_weights()
        with pytest.warns(KeepfitWarning, match="Fit 2 is a new phase: keras.EarlyStopping rewrote weights"):
            run.fit(x, y, epochs=1, **given)
        first = model.get_weights()
    model, x, y = make("plain_dense")
    with keepfit.Run(model) as run:
        run.fit(x, y, epochs=2, callbacks=best_weights_at_the_end(), **given)
        assert all(np.array_equal(one, other) for one, other in zip(restored, model.get_weights(), strict=True))
        run.fit(x, y, epochs=2, callbacks=best_weights_at_the_end(), **given)
        assert [r.phase for r in run.recorder.fits.values()] == ["first", "continues"]
    assert not all(np.array_equal(one, other) for one, other in zip(first, restored, strict=True))


@pytest.mark.parametrize(
    "hook",
    ["on_train_begin", "on_epoch_begin", "on_train_batch_begin", "on_train_batch_end", "on_test_end", "on_epoch_end"],
)
def test_stop_in_any_hook_ends_where_keras_ends(hook: str) -> None:
    """model.stop_training set in a hook lets as many batches and epochs happen as in Keras."""
    seen = {}
    for trainer in ("keras", "keepfit"):
        model, x, y = make("plain_dense")
        stop = keras.callbacks.Callback()
        setattr(stop, hook, lambda *given, model=model, **named: setattr(model, "stop_training", True))
        stream = Stream()
        given = {**GIVEN, "epochs": 3, "validation_data": (x, y), "callbacks": [stream, stop]}
        if trainer == "keras":
            model.fit(x, y, **given)
        else:
            with keepfit.Run(model) as run:
                run.fit(x, y, **given)
        seen[trainer] = stream.events
    assert seen["keepfit"] == seen["keras"]


def test_stop_without_batch_hooks_ends_after_one_step() -> None:
    """A stop at the beginning of an epoch lets one step happen, also where many steps are dispatched at once."""

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.model.stop_training = epoch == 1

    model, x, y = make("plain_dense")
    with keepfit.Run(model) as run:
        assert run.fit(x, y, epochs=4, callbacks=[Stop()], **GIVEN).epoch == [0, 1]
        assert run.position.step == 6


def test_stop_that_was_asked_for_before_an_interruption_ends_the_epoch_and_the_fit() -> None:
    """A fit that resumes in the validation of an epoch that was stopped finishes that epoch, and no other."""
    found = {}
    for way in ("whole", "interrupted"):
        model, x, y = make("dropout_batch_norm")
        stop = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs, model=model: setattr(model, "stop_training", batch == 2)
        )
        bomb, stream = Bomb(0), Stream()
        bomb.armed = way == "interrupted"
        given = {**GIVEN, "epochs": 3, "validation_data": (x, y), "callbacks": [stop, bomb, stream]}
        with keepfit.Run(model) as run:
            if way == "interrupted":
                with pytest.raises(ZeroDivisionError):
                    run.fit(x, y, **given)
            history = run.fit(x, y, **given)
            found[way] = state_bits(model), joined_history([history]), stream.events[-2:], model.stop_training
    assert found["whole"] == found["interrupted"]
    assert found["whole"][1]["epoch"] == [0]


@pytest.mark.parametrize("other", [False, True])
def test_best_weights_of_other_data_are_not_brought_back(other: bool) -> None:
    """Without validation data, a fit on other data keeps the best value, and restores no weights from before."""

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seen.append(self.model.get_weights())

    seen: list[Any] = []
    model, x, y = make("dropout_batch_norm")
    with keepfit.Run(model) as run:
        for part in (x[:35], x[35:] if other else x[:35]):
            stopping = keras.callbacks.EarlyStopping(patience=9, restore_best_weights=True)
            callbacks = [Shaped((1.0, 3.0, 2.0, 4.0)), stopping, Look()]
            run.fit(part, y[:35], epochs=2, callbacks=callbacks, **GIVEN)
        assert (stopping.best, stopping.wait) == (1.0, 3)
        expected = seen[2 if other else 0]
        assert all(np.array_equal(one, other) for one, other in zip(model.get_weights(), expected, strict=True))


# Epoch numbers


def test_learning_rate_scheduler_sees_epoch_numbers_that_go_on() -> None:
    """The rates of a loop of fits are those of one fit, and one notice says that epoch numbers go on."""

    def callbacks() -> list[Any]:
        return [keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5 if epoch % 2 else rate)]

    whole = train(callbacks, WAYS["one"])
    with pytest.warns(KeepfitWarning) as caught:
        cut = train(callbacks, WAYS["cut"])
    assert [str(w.message) for w in caught if "Epoch numbers" in str(w.message)] == [
        "Epoch numbers go on over fits: the first epoch of fit 2 is number 2 (from 0) for LearningRateScheduler. "
        "With initial_epoch=0 numbers begin at 0, as in Keras."
    ]
    assert_same(whole, cut)
    assert len(set(whole[1]["learning_rate"])) == 4


def test_start_from_epoch_counts_epochs_of_the_run() -> None:
    """EarlyStopping waits for the run's epoch, and that is said; without start_from_epoch nothing is."""

    def callbacks(start: int = 3) -> list[Any]:
        return [
            Shaped((1.0, 2.0, 3.0, 4.0, 5.0, 6.0)),
            keras.callbacks.EarlyStopping(patience=1, start_from_epoch=start),
        ]

    whole = train(callbacks, WAYS["one"])
    with pytest.warns(KeepfitWarning, match="fit 2 is number 1 .* for EarlyStopping"):
        cut = train(callbacks, WAYS["loop"])
    assert cut[1]["epoch"] == [0, 1, 2, 3, 4]
    assert_same(whole, cut)
    train(functools.partial(callbacks, 0), [1, 1])


def test_initial_epoch_given_explicitly_means_what_it_means_in_keras() -> None:
    """Numbers begin where initial_epoch says, epochs counts from 0, and nothing is said."""
    seen = {}
    for trainer in ("keras", "keepfit"):
        model, x, y = make("plain_dense")
        rates = keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1))
        stream = Stream()
        calls = [{"epochs": 2}, {"epochs": 2, "initial_epoch": 0}, {"epochs": 5, "initial_epoch": 3}]
        run = keepfit.Run(model) if trainer == "keepfit" else model
        epochs = [run.fit(x, y, callbacks=[rates, stream], **GIVEN, **call).epoch for call in calls]
        seen[trainer] = epochs, stream.events
    assert seen["keepfit"] == seen["keras"]
    assert seen["keras"][0] == [[0, 1], [0, 1], [3, 4]]


# The stream of hooks


class Stream(keras.callbacks.Callback):
    """Note every hook with its number and the names and types in its logs; that is no memory of the run."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Any] = []

    def get_state(self) -> None:
        return None

    def set_state(self, state: Any) -> None:
        assert state is None


def _noting(hook: str) -> Any:
    def note(self: Stream, *given: Any, **named: Any) -> None:
        logs = given[-1] if given and not isinstance(given[-1], int) else named.get("logs")
        kinds = None if logs is None else {name: type(value).__name__ for name, value in logs.items()}
        self.events.append((hook, given[0] if given and isinstance(given[0], int) else None, kinds))

    return note


for _hook in (
    "train_begin",
    "train_end",
    "epoch_begin",
    "epoch_end",
    "test_begin",
    "test_end",
    "predict_begin",
    "predict_end",
):
    setattr(Stream, f"on_{_hook}", _noting(f"on_{_hook}"))
for _kind in ("train", "test", "predict"):
    for _end in ("begin", "end"):
        setattr(Stream, f"on_{_kind}_batch_{_end}", _noting(f"on_{_kind}_batch_{_end}"))


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("steps_per_execution", KERAS_EXECUTIONS)
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"validation_data": None},
        {"initial_epoch": 1},
        {"steps_per_epoch": 3},
        {"epochs": 0},
        {"validation_freq": 2},
    ],
    ids=lambda arguments: "-".join(arguments) or "plain",
)
def test_hooks_of_one_fit_are_those_of_keras(steps_per_execution: int, arguments: dict[str, Any]) -> None:
    """Hooks come in Keras's order with Keras's numbers and kinds of logs; params and History have Keras's contents."""
    seen = {}
    for trainer in ("keras", "keepfit"):
        model, x, y = make("plain_dense")
        model.steps_per_execution = steps_per_execution
        stream = Stream()
        given = {
            "batch_size": 16,
            "verbose": 0,
            "epochs": 2,
            "validation_data": (x, y),
            "callbacks": [stream],
            **arguments,
        }
        given["shuffle"] = False
        run = keepfit.Run(model) if trainer == "keepfit" else model
        history = run.fit(x, y, **given)
        logged = {name: [type(value).__name__ for value in values] for name, values in history.history.items()}
        seen[trainer] = (stream.events, stream.params, history.epoch, logged, history.params, history is model.history)
    assert seen["keepfit"] == seen["keras"]


@pytest.mark.parametrize("steps_per_execution", KERAS_EXECUTIONS)
def test_hooks_of_evaluate_and_predict_are_those_of_keras(steps_per_execution: int) -> None:
    """Test and predict hooks have Keras's numbers, and predict hooks its outputs."""

    class Outputs(Stream):
        def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
            self.events.append((batch, [np.asarray(part).shape for part in keras.tree.flatten(logs["outputs"])]))

    seen = {}
    for trainer in ("keras", "keepfit"):
        model, x, y = make("plain_dense")
        model.steps_per_execution = steps_per_execution
        stream = Outputs()
        run = keepfit.Run(model) if trainer == "keepfit" else model
        run.evaluate(x, y, batch_size=16, verbose=0, callbacks=[stream])
        outputs = run.predict(x, batch_size=16, verbose=0, callbacks=[stream])
        seen[trainer] = (stream.events, stream.params, outputs.shape)
    assert seen["keepfit"] == seen["keras"]


@pytest.mark.parametrize("steps_per_execution", [1, 3])
def test_hooks_of_a_loop_of_fits_are_those_of_one_fit(steps_per_execution: int) -> None:
    """Names and numbers of hooks are the same, but for one beginning and one end a fit; the bits are too."""
    events: list[Any] = []

    def callbacks() -> list[Any]:
        stream = Stream()
        stream.events = events
        return [stream]

    seen = []
    for way in ("one", "cut"):
        found = train(callbacks, WAYS[way], steps_per_execution=steps_per_execution, batch_size=16)
        inner = [event for event in events if event[0] not in ("on_train_begin", "on_train_end")]
        seen.append((found, inner, len(events) - len(inner)))
        events.clear()
    assert seen[0][:2] == seen[1][:2]
    assert (seen[0][2], seen[1][2]) == (2, 6)


@pytest.mark.parametrize("plan", ["fused", "stepwise"])
def test_batch_hooks_change_no_bit(plan: str) -> None:
    """A callback that looks at every batch changes neither state nor logs, on either plan."""
    found = [train(lambda made=made: made, [3], plan=plan, batch_size=16) for made in ([], [Stream()])]
    assert_same(*found)


def test_a_batch_hook_that_reads_the_model_changes_no_bit() -> None:
    """Weights are there to be read after every batch."""
    read: list[Any] = []
    look = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: read.append(look.model.get_weights()))
    assert_same(train(list, [2]), train(lambda: [look], [2]))
    assert len(read) == 10
    assert len({weights[0].tobytes() for weights in read}) == 10


# Files


def csv_logger(directory: Path) -> Callable[[], list[Any]]:
    """Return a maker of loggers of one file, which is also read by other callbacks."""
    return lambda: [*plateau(), keras.callbacks.CSVLogger(str(directory / "log.csv"))]


def test_csv_of_a_loop_of_fits_is_that_of_one_fit(tmp_path: Path) -> None:
    """Every byte of the log is the same, however training is cut."""
    found = []
    for way in WAYS:
        (tmp_path / way).mkdir()
        train(csv_logger(tmp_path / way), WAYS[way])
        found.append((tmp_path / way / "log.csv").read_bytes())
    assert found[0].count(b"\n") == EPOCHS + 1
    assert found[1:] == found[:1] * 2


@pytest.mark.parametrize("lose", [False, True])
def test_csv_goes_on_after_an_interruption_in_a_new_process(lose: bool, tmp_path: Path) -> None:
    """Rows of epochs that are done again are there once; a file that was deleted begins anew with a header."""
    (tmp_path / "whole").mkdir()
    train(csv_logger(tmp_path / "whole"), [2, 4])
    whole = (tmp_path / "whole" / "log.csv").read_bytes()
    (tmp_path / "cut").mkdir()
    make_logger = csv_logger(tmp_path / "cut")
    path = tmp_path / "cut" / "log.csv"
    bomb = Bomb(4)
    made: list[Any] = []

    def callbacks() -> list[Any]:
        made.extend(make_logger())
        return [*made[-3:], bomb]

    with pytest.raises(ZeroDivisionError):
        train(callbacks, [2, 4], directory=tmp_path / "run")
    made[-1].csv_file.close()  # which Keras leaves open where fit raises
    assert path.read_bytes() == b"".join(whole.splitlines(keepends=True)[:6])  # the row of the epoch that is done again
    if lose:
        path.unlink()
    train(callbacks, [2, 4], directory=tmp_path / "run")
    if not lose:
        assert path.read_bytes() == whole
    else:
        lines = whole.splitlines(keepends=True)
        assert path.read_bytes() == b"".join([lines[0], *lines[5:]])


class Bomb(keras.callbacks.Callback):
    """Raise at the end of one epoch, once in the life of the object."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at
        self.armed = True

    def get_state(self) -> None:
        return None

    def set_state(self, state: Any) -> None:
        assert state is None

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch == self.at and self.armed:
            self.armed = False
            raise ZeroDivisionError


@pytest.mark.parametrize(
    ("pattern", "settings"),
    [
        ("{epoch}.weights.h5", {}),
        ("{epoch}-{val_loss:.1f}.weights.h5", {"save_best_only": True}),
        ("best.weights.h5", {"save_best_only": True}),
        ("{epoch}-{batch}.weights.h5", {"save_freq": 7}),
    ],
)
def test_model_checkpoints_of_a_loop_of_fits_are_those_of_one_fit(
    pattern: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    """The same files with the same weights, also where the best of all fits decides, or a number of batches."""
    found = {}
    for way in WAYS:

        def callbacks(way: str = way) -> list[Any]:
            path = str(tmp_path / way / pattern)
            return [Shaped(VALUES), keras.callbacks.ModelCheckpoint(path, save_weights_only=True, **settings)]

        train(callbacks, WAYS[way])
        found[way] = {path.name: weights_in(path) for path in sorted((tmp_path / way).iterdir())}
    expected = {
        "{epoch}.weights.h5": 6,
        "{epoch}-{val_loss:.1f}.weights.h5": 3,
        "best.weights.h5": 1,
        "{epoch}-{batch}.weights.h5": 4,
    }[pattern]
    assert len(found["one"]) == expected
    assert found["loop"] == found["one"] == found["cut"]


def weights_in(path: Path) -> dict[str, bytes]:
    """Return name -> bytes of everything in a file of weights, the optimizer's too."""
    found: dict[str, bytes] = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: found.update({name: item[()].tobytes()}) if isinstance(item, h5py.Dataset) else None
        )
    assert len(found) > 10
    return found


def test_model_checkpoint_does_not_overwrite_a_better_model_in_a_new_process(tmp_path: Path) -> None:
    """The best of an earlier process is not lost to a first epoch that is worse; without memory it is."""

    def callbacks() -> list[Any]:
        path = str(tmp_path / "best.weights.h5")
        return [Shaped(VALUES), keras.callbacks.ModelCheckpoint(path, save_weights_only=True, save_best_only=True)]

    train(callbacks, [2], directory=tmp_path / "run")
    best = weights_in(tmp_path / "best.weights.h5")
    train(callbacks, [2, 3], directory=tmp_path / "run")
    assert weights_in(tmp_path / "best.weights.h5") == best
    model, x, y = make("dropout_batch_norm")
    with keepfit.Run(model) as run:
        shaped, checkpoint = callbacks()
        run.fit(x, y, epochs=1, callbacks=[shaped, checkpoint], validation_data=(x[:14], y[:14]), **GIVEN)
    assert weights_in(tmp_path / "best.weights.h5") != best


# Averages


def averages(*, on_epoch: bool) -> tuple[Any, Any, Any]:
    """Return a model whose optimizer averages weights, and data."""
    model, x, y = make("dropout_batch_norm" if keras.backend.backend() == "jax" else "plain_dense")
    model.compile(keras.optimizers.Adam(1e-2, use_ema=True, ema_momentum=0.8), "mse", metrics=["mae"])
    return model, x, y


@pytest.mark.parametrize("on_epoch", [False, True])
@pytest.mark.parametrize("way", ["loop", "cut"])
def test_swapped_averages_of_a_loop_of_fits_are_those_of_one_fit(on_epoch: bool, way: str) -> None:
    """SwapEMAWeights validates with the averages, saves them, and training goes on from the weights behind them."""

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            saved[-1].append([weight.tobytes() for weight in self.model.get_weights()])

    found = {}
    saved: list[Any] = []
    for each in ("one", way):
        model, x, y = averages(on_epoch=on_epoch)
        histories = []
        saved.append([])
        with keepfit.Run(model) as run:
            for epochs in WAYS[each]:
                swap, look = keras.callbacks.SwapEMAWeights(swap_on_epoch=on_epoch), Look()
                given = {**GIVEN, "validation_data": (x[:14], y[:14]), "callbacks": [swap, look]}
                histories.append(run.fit(x, y, epochs=epochs, **given))
                assert swap.params["epochs"] == histories[-1].epoch[-1] + 1
        found[each] = state_bits(model), joined_history(histories)
    assert_same(found["one"], found[way])
    assert saved[0] == saved[1]


@pytest.mark.parametrize("on_epoch", [False, True])
def test_swapped_averages_of_one_fit_are_those_of_keras(on_epoch: bool) -> None:
    """After a fit the weights and averages are, to rounding, what Keras leaves."""
    found = []
    for trainer in ("keras", "keepfit"):
        model, x, y = averages(on_epoch=on_epoch)
        run = keepfit.Run(model) if trainer == "keepfit" else model
        swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=on_epoch)
        run.fit(x, y, epochs=3, callbacks=[swap], shuffle=False, validation_data=(x[:14], y[:14]), **GIVEN)
        found.append([*model.get_weights(), *[np.asarray(v.value) for v in model.optimizer.variables]])
    for mine, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2e-4, atol=2e-5)  # another program for the same arithmetic


def test_fit_without_the_callback_that_swapped_starts_from_the_averages() -> None:
    """The weights behind the averages come back only with SwapEMAWeights."""
    model, x, y = averages(on_epoch=True)
    with keepfit.Run(model) as run:
        run.fit(x, y, epochs=2, callbacks=[keras.callbacks.SwapEMAWeights(swap_on_epoch=True)], **GIVEN)
        with pytest.warns(KeepfitWarning, match="Fit 2 is a new phase: keras.SwapEMAWeights rewrote weights"):
            run.fit(x, y, epochs=1, **GIVEN)


# What a person is told


@pytest.mark.parametrize("verbose", [0, 1, 2])
def test_a_resume_and_a_replay_are_told(verbose: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lines tell, in the run's epoch numbers, where a fit goes on and what was done before; verbose=0 is silent."""
    bomb = Bomb(3)
    told = []
    for fits in ([1, 4], [1, 4], [1, 4]):
        with contextlib.suppress(ZeroDivisionError):
            train(lambda: [bomb], fits, directory=tmp_path, verbose=verbose)
        output = capsys.readouterr().out
        assert "\r" not in output
        told.append([line.split(",")[0].split(" | 5 ")[0] for line in output.splitlines()])
    done = ["fit 1 was done before: 1 epoch", "fit 2 was done before: 4 epochs"]
    expected = [
        [f"fit {1 if epoch == 1 else 2} | epoch {epoch}/{1 if epoch == 1 else 5}" for epoch in (1, 2, 3)],
        [done[0], "fit 2 resumed at epoch 4", "fit 2 | epoch 4/5", "fit 2 | epoch 5/5"],
        done,
    ]
    assert told == (expected if verbose else [[], [], []])


# Others of Keras


@pytest.mark.filterwarnings("ignore:The loss became NaN")
def test_terminate_on_nan_stops_where_keras_stops() -> None:
    """The fit ends after the batch with the NaN, and the next one trains."""
    positions = []
    for trainer in ("keras", "keepfit"):
        model, x, y = make("plain_dense")
        y = y.copy()
        y[30] = np.nan
        stream = Stream()
        given = {**GIVEN, "epochs": 3, "shuffle": False, "callbacks": [keras.callbacks.TerminateOnNaN(), stream]}
        run = keepfit.Run(model) if trainer == "keepfit" else model
        run.fit(x, y, **given)
        positions.append(([event[:2] for event in stream.events], model.stop_training))
    assert positions[0] == positions[1]
    assert positions[0][0][-3] == ("on_train_batch_end", 2)


def test_lambda_callbacks_see_every_fit() -> None:
    """Functions of a LambdaCallback are called with numbers that go on."""
    seen: list[Any] = []

    def callbacks() -> list[Any]:
        return [
            keras.callbacks.LambdaCallback(
                on_epoch_begin=lambda epoch, logs: seen.append(("begin", epoch)),
                on_train_batch_end=lambda batch, logs: seen.append(("batch", batch)),
                on_epoch_end=lambda epoch, logs: seen.append(("end", epoch, sorted(logs))),
            )
        ]

    train(callbacks, WAYS["one"])
    whole, seen[:] = list(seen), []
    train(callbacks, WAYS["loop"])
    assert whole == seen
    assert len(whole) == EPOCHS * 7


def test_backup_and_restore_does_nothing_and_says_so(tmp_path: Path) -> None:
    """No file is written, no file is read, and a warning tells why."""
    backup = keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))
    with pytest.warns(KeepfitWarning, match="BackupAndRestore does nothing here"):
        found = train(lambda: [backup], [2])
    assert not (tmp_path / "backup").exists()
    assert_same(found, train(list, [2]))


# Memory that is told of


class Holder(keras.callbacks.Callback):
    """Hold something that cannot be saved, from its making or from the first epoch on."""

    def __init__(self, *, early: bool) -> None:
        super().__init__()
        self.seen = 0
        if early:
            self.stream = sys.stderr

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seen += 1
        self.stream = sys.stderr


@pytest.mark.parametrize("early", [False, True])
def test_what_a_callback_cannot_save_is_said_once(early: bool) -> None:
    """A warning names callback and attribute, once, as soon as that is known; the rest is memory."""
    made: list[Holder] = []

    def callbacks() -> list[Any]:
        made.append(Holder(early=early))
        return made[-1:]

    with pytest.warns(KeepfitWarning) as caught:
        train(callbacks, [1, 1, 1])
    told = [str(warning.message) for warning in caught if warning.category is KeepfitWarning]
    told = [text for text in told if "were trained on before" not in text]  # its model validates on a part of its data
    assert len(told) == 1
    assert "Holder holds what cannot be saved: stream (a " in told[0]
    assert "get_state() and set_state(state)" in told[0]
    assert made[-1].seen == 3


def test_fresh_callback_starts_without_memory() -> None:
    """fresh= forgets one callback's patience, by object or by class."""
    for fresh in ("object", "class"):
        model, x, y = make("plain_dense")
        given = {**GIVEN, "validation_data": (x[:14], y[:14])}
        with keepfit.Run(model) as run:
            run.fit(
                x, y, epochs=2, callbacks=[Shaped((1.0, 2.0, 3.0)), keras.callbacks.EarlyStopping(patience=3)], **given
            )
            again = keras.callbacks.EarlyStopping(patience=3)
            chosen = [again] if fresh == "object" else [keras.callbacks.EarlyStopping]
            run.fit(x, y, epochs=1, callbacks=[Shaped((1.0, 2.0, 3.0)), again], fresh=chosen, **given)
        assert (again.best, again.wait) == (3.0, 0)


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_tensorboard_of_a_loop_of_fits_is_that_of_one_fit(tmp_path: Path) -> None:
    """The set of tag, step and value is the same, however training is cut, also after an interruption."""
    bomb = Bomb(4)

    def callbacks(way: str) -> list[Any]:
        keras.utils.clear_session()  # automatic names are in the graph that is written
        board = keras.callbacks.TensorBoard(str(tmp_path / way), histogram_freq=2, update_freq=2)
        return [board, bomb] if way == "interrupted" else [board]

    for way, fits in WAYS.items():
        keras.utils.clear_session()
        train(functools.partial(callbacks, way), fits)
    for _ in range(2):
        keras.utils.clear_session()
        with contextlib.suppress(ZeroDivisionError):
            train(functools.partial(callbacks, "interrupted"), [2, 4], directory=tmp_path / "run")
    found = {way: summaries_in(tmp_path / way) for way in (*WAYS, "interrupted")}
    assert found["loop"] == found["one"] == found["cut"] == found["interrupted"]
    assert len(found["one"]) > 20


def summaries_in(directory: Path) -> set[tuple[str, int, str]]:
    """Return tag, step and value of everything in a folder of TensorBoard's."""
    from tensorflow.python.summary.summary_iterator import summary_iterator

    found = set()
    for path in directory.rglob("events*"):
        for event in summary_iterator(str(path)):
            for value in event.summary.value:
                tensor = value.tensor.SerializeToString().hex()
                found.add((f"{path.parent.name}/{value.tag}", event.step, tensor))
    return found


class Bare:
    """A callback of slots only, which Keras takes for its hooks; it moves the learning rate by what it remembers."""

    __slots__ = ("fall", "model", "params", "seen")

    def __init__(self, fall: float) -> None:
        self.fall, self.seen = fall, 0

    def set_model(self, model: Any) -> None:
        self.model = model

    def set_params(self, params: Any) -> None:
        self.params = params

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seen += 1
        self.model.optimizer.learning_rate = self.fall**self.seen

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *given, **named: None


def test_callback_of_slots_goes_on_over_fits_and_processes(tmp_path: Path) -> None:
    """A class without a ``__dict__`` trains as in one fit, also as a new object in a new process."""
    states = []
    for cut in ([3], [1, 2], [1, 1, 1]):
        for again in (False, True):
            model, x, y = make("plain_dense")
            with keepfit.Run(model, tmp_path / f"{cut}") as run:
                for epochs in cut[: None if again else -1] or cut:
                    run.fit(x, y, epochs=epochs, batch_size=16, verbose=0, callbacks=[Bare(0.1)])
        states.append(state_bits(model))
    assert differing(states[0], states[1]) == differing(states[0], states[2]) == []
