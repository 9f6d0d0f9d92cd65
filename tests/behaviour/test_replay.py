"""A second process calls ``fit`` again: what is finished returns, what is not goes on."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import keras
import numpy as np
import pytest

import keepfit
from keepfit.errors import KeepfitWarning, RecipeChanged, StateNotKept
from tests.behaviour.processes import SHORT, Interrupt, attached, built, copied, interrupt, numbers, process
from tests.bits import differing, joined_history, state_bits
from tests.models import make


class Counting(keras.callbacks.Callback):
    """Counts the hooks that are called, where no replay brings the count back."""

    def __init__(self) -> None:
        super().__init__()
        calls: list[str] = []
        for name in ("on_train_begin", "on_epoch_begin", "on_train_batch_end", "on_epoch_end", "on_train_end"):
            setattr(self, name, lambda *given, logs=None, name=name: calls.append(name))
        _CALLS[self] = calls


_CALLS: WeakKeyDictionary[Counting, list[str]] = WeakKeyDictionary()


@functools.cache
def whole(maker: str, *epochs: int) -> tuple[dict[str, Any], list[dict[str, list[Any]]]]:
    """Return end state and logs of fits in one process, which nothing interrupts."""
    model, x, y = make(maker)
    with keepfit.Run(model) as run:
        logs = [joined_history([run.fit(x, y, **{**SHORT, "epochs": count})]) for count in epochs]
        return state_bits(model), logs


def test_finished_fits_return_with_their_end_states(tmp_path: Path) -> None:
    """History and state after each replayed fit are those of the first process, to the bit."""
    seen = []
    for _ in range(2):
        with process(tmp_path / "run", "dropout_batch_norm") as (model, x, y):
            for epochs in (2, 1):
                history = model.fit(x, y, **{**SHORT, "epochs": epochs}, validation_data=(x, y))
                seen.append((joined_history([history]), state_bits(model), model.run.position, model.run.learning_rate))
    for first, second in zip(seen[:2], seen[2:], strict=True):
        assert first[0] == second[0]
        assert differing(first[1], second[1]) == []
        assert first[2:] == second[2:]
    assert seen[0][0] != seen[1][0]


@pytest.mark.parametrize("frequency", [2, [1, 4]])
def test_history_has_no_validation_in_epochs_that_were_not_validated(frequency: Any, tmp_path: Path) -> None:
    """With ``validation_freq`` a replayed history, and the journal, have the values of the first time and no more."""
    seen = []
    for _ in range(2):
        with process(tmp_path / "run") as (model, x, y):
            history = model.fit(
                x, y, **{**SHORT, "epochs": 5}, validation_data=(x, y), validation_freq=frequency, callbacks=[]
            )
            seen.append((joined_history([history]), model.run.history.logs["val_loss"]))
    assert seen[0] == seen[1]
    validated = {2: [2, 4], (1, 4): [1, 4]}[frequency if isinstance(frequency, int) else tuple(frequency)]
    assert [epoch for epoch, value in enumerate(seen[0][1], start=1) if value is not None] == validated
    assert [value for value in seen[0][1] if value is not None] == seen[0][0]["val_loss"]


def test_callback_shared_by_two_fits_is_the_same_in_a_replay(tmp_path: Path) -> None:
    """A plateau whose sign Keras has turned within the first fit is no other one to the second, and nothing is said."""
    for _ in range(2):
        plateau = keras.callbacks.ReduceLROnPlateau("loss")
        with process(tmp_path / "run") as (model, x, y):
            for _ in range(2):
                model.fit(x, y, callbacks=[plateau], **SHORT)
            assert [event for event in model.run.history.events if event.kind == "recipe"] == []


def test_replay_calls_no_hook_and_writes_no_fit(tmp_path: Path) -> None:
    """A fit that is finished is not trained again: no hook, no epoch, no checkpoint."""
    calls, rows = [], []
    for _ in range(2):
        with process(tmp_path / "run") as (model, x, y):
            counting = Counting()
            history = model.fit(x, y, callbacks=[counting], **SHORT)
            model.run.recorder.flush()
            calls.append(len(_CALLS[counting]))
            rows.append((len(model.run.recorder.epochs), [c.id for c in model.run.recorder.checkpoints]))
            assert model.history is history
    assert calls == [1 + 2 * (1 + 5 + 1) + 1, 0]
    assert rows[0] == rows[1]


def test_what_a_script_reads_next_is_as_it_was(tmp_path: Path) -> None:
    """Evaluation, prediction and random numbers after a replayed fit are those of the first process."""
    seen = []
    for _ in range(2):
        with process(tmp_path / "run", "dropout_batch_norm") as (model, x, y):
            model.fit(x, y, **SHORT)
            noise = [float(np.random.random()), np.asarray(keras.random.normal((2,))).tolist()]
            seen.append((model.evaluate(x, y, verbose=0), model.predict(x, verbose=0).tobytes(), noise))
    assert seen[0] == seen[1]


def test_callbacks_hold_what_they_held(tmp_path: Path) -> None:
    """After a replay an early stopping that a script made anew has its best, its counters and its weights."""
    seen: list[Any] = []
    for _ in range(2):
        with process(tmp_path / "run") as (model, x, y):
            stopping = keras.callbacks.EarlyStopping("loss", patience=1, min_delta=50, restore_best_weights=True)
            history = model.fit(x, y, callbacks=[stopping], **{**SHORT, "epochs": 9})
            weights = [np.asarray(each).tobytes() for each in stopping.best_weights]
            values = float(stopping.best), stopping.best_epoch, stopping.wait, stopping.stopped_epoch
            seen.append((values, weights, model.stop_training, joined_history([history]), state_bits(model)))
    assert seen[0][:3] == ((pytest.approx(seen[0][0][0]), 0, 1, 1), seen[0][1], True)
    assert seen[0] == seen[1]


def test_fit_that_stopped_early_counts_as_finished(tmp_path: Path) -> None:
    """It is not trained to its planned length, asked for more or not; the fit after it trains."""
    for planned in (9, 9, 12):
        with process(tmp_path / "run") as (model, x, y):
            stopping = keras.callbacks.EarlyStopping("loss", patience=1, min_delta=50)
            assert model.fit(x, y, callbacks=[stopping], **{**SHORT, "epochs": planned}).epoch == [0, 1]
            assert model.stop_training
            assert numbers(model.run) == {1: "stopped"}
    with process(tmp_path / "run") as (model, x, y):
        model.fit(
            x, y, callbacks=[keras.callbacks.EarlyStopping("loss", patience=1, min_delta=50)], **SHORT | {"epochs": 9}
        )
        with pytest.warns(KeepfitWarning, match=r"Fit 2 is a new phase: fit 1 was stopped early"):
            assert model.fit(x, y, **SHORT).epoch == [2, 3]
        assert not model.stop_training


def test_answers_are_as_of_the_scripts_place(tmp_path: Path) -> None:
    """History, position, rate and load know nothing of fits that the script has not called yet."""
    seen: list[list[Any]] = []
    for _ in range(2):
        with process(tmp_path / "run") as (model, x, y):
            answers: list[Any] = []
            for rate in (1e-2, 1e-3, 1e-4):
                run = model.run
                answers.append((run.position, run.learning_rate, len(run.history), run.history.logs, run.load()))
                model.optimizer.learning_rate = rate
                model.fit(x, y, **SHORT)
            with pytest.raises(StateNotKept, match=r"fit 4 is not kept"):
                run.load(fit=4)
            seen.append(answers)
    assert [answer[4] for answer in seen[0]] == [0, 1, 2]
    assert [answer[2] for answer in seen[0]] == [0, 1, 2]
    assert seen[0] == seen[1]


def test_load_knows_nothing_of_later_fits(tmp_path: Path) -> None:
    """A fit that the journal has and the script has not called cannot be loaded."""
    for wanted in (None, StateNotKept):
        with process(tmp_path / "run") as (model, x, y):
            model.fit(x, y, **SHORT)
            if wanted is not None:
                with pytest.raises(StateNotKept):
                    model.run.load(fit=2)
                assert model.run.load(best="loss") == 1
            model.fit(x, y, **SHORT)
            assert model.run.load(best="loss") == 2


def test_events_of_later_fits_are_not_in_the_history(tmp_path: Path) -> None:
    """What happened in fit 2 is no part of the history at fit 1."""
    with process(tmp_path / "run") as (model, x, y):
        model.fit(x, y, **SHORT)
        with pytest.warns(KeepfitWarning, match="Fit 2 is a new phase"):
            model.fit(x, y, validation_data=(x, y), **SHORT)
    with process(tmp_path / "run") as (model, x, y):
        model.fit(x, y, **SHORT)
        assert [event.message for event in model.run.history.events if event.kind == "phase"] == []
        model.fit(x, y, validation_data=(x, y), **SHORT)
        assert len([event for event in model.run.history.events if event.kind == "phase"]) == 1


@pytest.mark.parametrize("maker", ["dropout_batch_norm", "averaged_weights"])
def test_more_epochs_in_the_last_fit_go_on(maker: str, tmp_path: Path) -> None:
    """The last fit, asked for more epochs, ends as if it had been that long from the beginning."""
    for epochs in (1, 3):
        with process(tmp_path / "run", maker) as (model, x, y):
            model.fit(x, y, **SHORT)
            history = model.fit(x, y, **{**SHORT, "epochs": epochs})
            found = state_bits(model), joined_history([history])
            assert numbers(model.run) == {1: "finished", 2: "finished"}
    state, logs = whole(maker, 2, 3)
    assert differing(state, found[0]) == []
    assert found[1] == logs[1]


def test_more_epochs_are_recorded(tmp_path: Path) -> None:
    """A third process finds the longer fit, and the shorter one is then too few."""
    for epochs in (1, 3, 3):
        with process(tmp_path / "run") as (model, x, y):
            assert model.fit(x, y, **{**SHORT, "epochs": epochs}).epoch == list(range(epochs))
    with process(tmp_path / "run") as (model, x, y), pytest.raises(RecipeChanged, match=r"epochs: recorded 3, now 1"):
        model.fit(x, y, **{**SHORT, "epochs": 1})


def test_more_epochs_in_an_earlier_fit_raise(tmp_path: Path) -> None:
    """Only the last fit can go on: those after it began with its result."""
    with process(tmp_path / "run") as (model, x, y):
        model.fit(x, y, **SHORT)
        model.fit(x, y, **SHORT)
    with process(tmp_path / "run") as (model, x, y), pytest.raises(RecipeChanged, match=r"epochs: recorded 2, now 3"):
        model.fit(x, y, **{**SHORT, "epochs": 3})


def swap(model: Any) -> None:
    """Average the weights, so that a swap makes sense."""
    model.compile(keras.optimizers.SGD(1e-2, use_ema=True), "mse")


@pytest.mark.parametrize(("maker", "named"), [("schedule", "keras.CosineDecay"), ("plain_dense", "SwapEMAWeights")])
def test_more_epochs_warn_where_the_length_was_planned_for(maker: str, named: str, tmp_path: Path) -> None:
    """A schedule, or a callback that does something at the planned end, gives another result than one longer fit."""
    for epochs in (1, 2):
        model, x, y = make(maker)
        callbacks = []
        if named == "SwapEMAWeights":
            swap(model)
            callbacks = [keras.callbacks.SwapEMAWeights()]
        with keepfit.Run(model, tmp_path / "run") as run:
            arguments = {**SHORT, "epochs": epochs, "callbacks": callbacks}
            if epochs == 1:
                run.fit(x, y, **arguments)
            else:
                with pytest.warns(KeepfitWarning, match=rf"asked for 2 epochs, not 1 as before; {named} may depend"):
                    run.fit(x, y, **arguments)


def test_fit_after_ctrl_c_in_another_process(tmp_path: Path) -> None:
    """A second process replays what is finished and goes on inside the fit that was interrupted."""
    with process(tmp_path / "run", "dropout_batch_norm") as (model, x, y):
        model.fit(x, y, **SHORT)
        interrupt(model, x, y, epoch=3, **{**SHORT, "epochs": 4})
        assert model.run.position.epoch >= 3
        assert numbers(model.run) == {1: "finished", 2: "open"}
    with process(tmp_path / "run", "dropout_batch_norm") as (model, x, y):
        model.fit(x, y, **SHORT)
        assert len(model.run.history) == 1
        history = model.fit(x, y, callbacks=[Interrupt(3, armed=False)], **{**SHORT, "epochs": 4})
    state, logs = whole("dropout_batch_norm", 2, 4)
    assert differing(state, state_bits(model)) == []
    assert joined_history([history]) == logs[1]


def test_same_recipe_after_ctrl_c_goes_on() -> None:
    """In one process the same call again ends in the bits of a fit that nobody interrupted."""
    model, x, y = make("dropout_batch_norm")
    with keepfit.Run(model) as run:
        callback = interrupt(run, x, y, epoch=1, **{**SHORT, "epochs": 4})
        assert 1 <= run.position.epoch <= 2
        history = run.fit(x, y, callbacks=[callback], **{**SHORT, "epochs": 4})
        assert numbers(run) == {1: "finished"}
    state, logs = whole("dropout_batch_norm", 4)
    assert differing(state, state_bits(model)) == []
    assert joined_history([history]) == logs[0]


@pytest.mark.parametrize("change", [{"batch_size": 10}, {"name": "other"}, {"epochs": 3}])
def test_other_recipe_after_ctrl_c_begins_another_fit(change: dict[str, Any], tmp_path: Path) -> None:
    """The interrupted fit is closed as it stands, and counts as finished for a second process."""
    states = []
    for first in (True, False):
        with process(tmp_path / "run") as (model, x, y):
            arguments = {**SHORT, "epochs": 4}
            if first:
                interrupt(model, x, y, epoch=0, **arguments)
                with pytest.warns(KeepfitWarning, match=r"Fit 2 is a new phase: fit 1 did not reach its length"):
                    model.fit(x, y, **{**arguments, **change})
            else:
                model.fit(x, y, callbacks=[Interrupt(0, armed=False)], **arguments)
                states.append(state_bits(model))
                model.fit(x, y, **{**arguments, **change})
            assert numbers(model.run) == {1: "closed", 2: "finished"}
            states.append(state_bits(model))
    assert differing(states[0], states[2]) == []
    assert differing(states[0], states[1]) != []


@pytest.fixture(scope="module")
def thinned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five fits of which the results of the last two are kept."""
    directory = tmp_path_factory.mktemp("thinned") / "run"
    with process(directory, keep=2, checkpoint_share="each") as (model, x, y):
        for _ in range(5):
            model.fit(x, y, **SHORT)
            # Falling losses: the best fit is among the last, so that nothing keeps an earlier one.
            model.run.recorder.flush()
        assert [c.fit for c in model.run.recorder.checkpoints] == [0, 4, 5]
    return directory


def test_replay_over_thinned_fits_says_so_once(thinned: Path, tmp_path: Path) -> None:
    """The model keeps the state it has, history and position are right, and one notice names the nearest kept fit."""
    model, x, y = attached(copied(thinned, tmp_path / "run"), keep=2)
    before = state_bits(model)
    with pytest.warns(KeepfitWarning, match="thinned out.* 4") as caught:
        epochs = [model.fit(x, y, **SHORT).epoch for _ in range(3)]
    assert [item.category for item in caught].count(KeepfitWarning) == 1
    assert epochs == [[0, 1], [2, 3], [4, 5]]
    assert (model.run.position.fit, model.run.position.epoch, model.run.position.step) == (3, 6, 30)
    after = state_bits(model)
    assert differing(before, {name: after[name] for name in before}) == []


@pytest.mark.filterwarnings("ignore:The results of earlier fits")
@pytest.mark.parametrize("verb", ["evaluate", "predict", "train_on_batch", "save", "get_weights", "load"])
def test_reading_a_thinned_state_raises(verb: str, thinned: Path, tmp_path: Path) -> None:
    """Nothing that depends on the state is answered while the model does not hold it, and again when it does."""
    model, x, y = attached(copied(thinned, tmp_path / "run"), keep=2)
    read = {
        "evaluate": lambda: model.evaluate(x, y, verbose=0),
        "predict": lambda: model.predict(x, verbose=0),
        "train_on_batch": lambda: model.train_on_batch(x, y),
        "save": lambda: model.save(tmp_path / "model.keras"),
        "get_weights": lambda: model.get_weights(),
        "load": lambda: model.run.load(),
    }[verb]
    model.fit(x, y, **SHORT)
    bits = state_bits(model)
    with pytest.raises(StateNotKept, match=r"result of fit 1.*Kept are the results of fits 4, 5") as caught:
        read()
    assert caught.value.fit == 1  # type: ignore[attr-defined]
    assert differing(bits, state_bits(model)) == []
    assert not (tmp_path / "model.keras").exists()
    for _ in range(4):
        model.fit(x, y, **SHORT)
    if verb == "train_on_batch":
        with pytest.warns(KeepfitWarning, match="not recorded"):
            read()
    else:
        read()


@pytest.mark.filterwarnings("ignore:The results of earlier fits")
@pytest.mark.parametrize("way", ["another fit", "more epochs", "after a kill"])
def test_newest_fit_goes_on_over_thinned_ones(way: str, thinned: Path, tmp_path: Path) -> None:
    """Whatever was thinned out before it, the newest fit goes on, in the bits of a run without a second process."""
    directory = copied(thinned, tmp_path / "run")
    if way == "after a kill":
        with process(directory, keep=2) as (model, x, y):
            for _ in range(5):
                model.fit(x, y, **SHORT)
            interrupt(model, x, y, epoch=10, **SHORT)
    last = {**SHORT, "epochs": 3 if way == "more epochs" else 2}
    if way == "after a kill":
        last["callbacks"] = [Interrupt(10, armed=False)]
    fits = [SHORT] * (4 if way == "more epochs" else 5) + [last]
    with process(directory, keep=2) as (model, x, y):
        for arguments in fits:
            model.fit(x, y, **arguments)
    state, _ = whole("plain_dense", *(fit["epochs"] for fit in fits))
    assert differing(state, state_bits(model)) == []


@pytest.mark.filterwarnings("ignore:The results of earlier fits")
def test_load_over_thinned_fits_replays(tmp_path: Path) -> None:
    """A script that goes back to a named fit replays, though the results in between were thinned out."""
    states = []
    for _ in range(2):
        with process(tmp_path / "run", keep=2, checkpoint_share="each") as (model, x, y):
            model.fit(x, y, name="head", **SHORT)
            for _ in range(2):
                model.fit(x, y, **SHORT)
            model.run.load(fit=1)
            if not states:
                with pytest.warns(KeepfitWarning, match="Fit 4 is a new phase: .* set by hand"):
                    model.fit(x, y, **SHORT)
            else:
                model.fit(x, y, **SHORT)
            for _ in range(2):
                model.fit(x, y, **SHORT)
            states.append(state_bits(model))
    assert differing(*states) == []


def frozen(model: Any) -> None:
    model.layers[0].trainable = False


def compiled_again(model: Any) -> None:
    model.compile(keras.optimizers.Adam(1e-3), "mse", metrics=["mae"])


def compiled_otherwise(model: Any) -> None:
    model.compile(keras.optimizers.SGD(1e-3, momentum=0.9), "mse", metrics=["mae"])


def other_rate(model: Any) -> None:
    model.optimizer.learning_rate = 1e-3


def other_weights(model: Any) -> None:
    model.set_weights([weight * 0.5 for weight in model.get_weights()])


def one_batch(model: Any) -> None:
    model.train_on_batch(np.ones((4, 6)), np.ones((4, 1)))


def loaded(model: Any) -> None:
    model.run.load(fit=1)


@pytest.mark.filterwarnings("ignore::keepfit.errors.KeepfitWarning")
@pytest.mark.parametrize(
    "between", [frozen, compiled_again, compiled_otherwise, other_rate, other_weights, one_batch, loaded]
)
def test_script_that_does_something_between_fits_replays(between: Any, tmp_path: Path) -> None:
    """The same script again replays what is finished, and goes on in the bits of one process."""
    ends: list[list[Any]] = []
    for folder in ("whole", "cut"):
        with process(tmp_path / folder) as (model, x, y):
            ends.append([])
            for number in range(3):
                if number == 1:
                    between(model)
                if (number, folder) == (2, "whole"):
                    model.run.recorder.flush()
                    copied(tmp_path / "whole", tmp_path / "cut")
                model.fit(x, y, **SHORT)
                ends[-1].append((state_bits(model), model.run.position, model.run.learning_rate))
    for first, second in zip(*ends, strict=True):
        assert differing(first[0], second[0]) == []
        assert first[1:] == second[1:]


def test_run_without_a_folder_keeps_places_in_memory() -> None:
    """Without a folder fits number, load and history work as with one."""
    model, x, y = built()
    with keepfit.Run(model) as run:
        run.fit(x, y, **SHORT)
        after = state_bits(model)
        run.fit(x, y, **SHORT)
        assert (len(run.history), run.position.fit, run.load(fit=1)) == (2, 2, 1)
        assert differing(after, state_bits(model)) == []


@pytest.mark.filterwarnings("ignore::keepfit.errors.KeepfitWarning")
def test_thinned_fits_leave_what_is_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where states were thinned out, a replay still gives callbacks' best values, and numbers as they were drawn."""

    class Draws(keras.callbacks.Callback):
        """Draw from NumPy's global generator in every epoch."""

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            np.random.rand(3)

    def script() -> list[Any]:
        model, x, y = attached(tmp_path / "run", keep=2, checkpoint_share="each")
        np.random.seed(7)
        seen: list[Any] = []
        for _ in range(6):
            stopping = keras.callbacks.EarlyStopping("loss", patience=3)
            model.fit(x, y, callbacks=[stopping, Draws()], **SHORT)
            seen += [stopping.best, stopping.wait, float(np.random.rand())]
        model.run.close()
        return seen

    first = script()
    assert script() == first
    monkeypatch.setattr("keepfit.fitting.left_by", lambda _detail: ([], {}))
    assert script() != first
