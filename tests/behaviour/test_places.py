"""Going back, forking, opening again, closing, and where a run begins."""

from __future__ import annotations

import gc
import threading
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keepfit
from keepfit import kept_states
from keepfit.errors import (
    CannotAttach,
    InvalidArgument,
    KeepfitWarning,
    NotARun,
    RecipeChanged,
    RunClosed,
    StateNotKept,
)
from keepfit.recorder import DiskRecorder
from tests.behaviour.processes import SHORT, attach_quietly, attached, built, numbers, process
from tests.bits import differing, joined_history, state_bits
from tests.models import make

VERBS = ("fit", "evaluate", "predict", "train_on_batch", "save", "get_weights", "save_weights")


def three_fits(model: Any, x: Any, y: Any) -> list[dict[str, Any]]:
    """Return the states after three fits, of which the second is the best."""
    ends = []
    for rate in (1e-2, 1e-2, 3.0):
        model.optimizer.learning_rate = rate
        model.fit(x, y, **SHORT)
        ends.append(state_bits(model))
    return ends


# load


@pytest.mark.parametrize("directory", [None, "run"])
def test_load_brings_back_a_kept_state(directory: str | None, tmp_path: Path) -> None:
    """A fit by number, the best by a metric, the newest without either: the whole state, rate included."""
    model, x, y = make("dropout_batch_norm")
    keepfit.attach(model, directory and tmp_path / directory)
    ends = three_fits(model, x, y)
    for arguments, number in (({"fit": 1}, 1), ({}, 3), ({"best": "loss"}, 2), ({"best": "mae"}, 2)):
        assert model.run.load(**arguments) == number
        assert differing(ends[number - 1], state_bits(model)) == []
        assert model.run.learning_rate == pytest.approx([1e-2, 1e-2, 3.0][number - 1])


@pytest.mark.filterwarnings("ignore:.*have no value in the kept state")
def test_load_of_the_start_brings_back_a_fresh_optimizer() -> None:
    """Before fit 1 the optimizer had no moments, though its variables were not made yet."""
    model, x, y = make("plain_dense")
    with keepfit.Run(model) as run:
        start = state_bits(model)
        run.fit(x, y, **SHORT)
        assert run.load(fit=0) == 0
        now = state_bits(model)
        assert differing(start, {name: now[name] for name in start}) == []
        assert not any(np.any(np.asarray(each)) for each in model.optimizer.variables[2:])


def test_load_takes_the_highest_of_a_metric_that_should_grow(tmp_path: Path) -> None:
    """Of an accuracy the best is the highest."""
    _, x, y = make("plain_dense")
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1, activation="sigmoid")])
    model.compile(keras.optimizers.SGD(0.5), "binary_crossentropy", metrics=["accuracy"])
    targets = (y > 0).astype("float32")
    chance = np.random.default_rng(0).integers(0, 2, targets.shape).astype("float32")
    with keepfit.Run(model, tmp_path / "run") as run:
        run.fit(x, targets, **SHORT)
        run.fit(x, chance, **SHORT)
        assert run.history.logs["accuracy"][1] > run.history.logs["accuracy"][3]
        assert run.load(best="accuracy") == 1


def test_load_of_what_is_not_there_raises(tmp_path: Path) -> None:
    """A metric that nothing logged, a fit to come, and both arguments at once; nothing is changed."""
    with process(tmp_path / "run") as (model, x, y):
        model.fit(x, y, **SHORT)
        bits = state_bits(model)
        with pytest.raises(StateNotKept, match="No kept fit has a finite 'val_loss'"):
            model.run.load(best="val_loss")
        with pytest.raises(StateNotKept, match="fit 2 is not kept"):
            model.run.load(fit=2)
        with pytest.raises(InvalidArgument, match=r"fit= or best="):
            model.run.load(1, best="loss")
        assert differing(bits, state_bits(model)) == []


def test_load_counts_as_set_by_hand(tmp_path: Path) -> None:
    """The next fit is a new phase from the loaded state; without the load a replay is refused."""
    ends = []
    for again in (False, True):
        with process(tmp_path / "run") as (model, x, y):
            for _ in range(2):
                model.fit(x, y, **SHORT)
            model.run.load(fit=1)
            if not again:
                with pytest.warns(KeepfitWarning, match=r"Fit 3 is a new phase: .*set by hand"):
                    model.fit(x, y, **SHORT)
            else:
                model.fit(x, y, **SHORT)
            ends.append(state_bits(model))
    assert differing(*ends) == []
    with process(tmp_path / "run") as (model, x, y):
        for _ in range(2):
            model.fit(x, y, **SHORT)
        with pytest.raises(RecipeChanged, match=r"start\."):
            model.fit(x, y, **SHORT)


def test_loaded_state_is_kept(tmp_path: Path) -> None:
    """What a script loads is not thinned out, so that it can be loaded in every process."""
    with process(tmp_path / "run", keep=2, checkpoint_share="each") as (model, x, y):
        model.fit(x, y, **SHORT)
        model.run.load(fit=1)
        for _ in range(4):
            model.fit(x, y, **SHORT)
        assert model.run.load(fit=1) == 1


# fork


def test_fork_goes_its_own_way_from_a_fit(tmp_path: Path) -> None:
    """The fork's next fit is what the run's own next fit would have been; the run stays as it was."""
    control, x, y = attached(tmp_path / "control")
    histories = [control.fit(x, y, **SHORT) for _ in range(3)]
    control.run.close()
    model, x, y = attached(tmp_path / "run")
    for _ in range(2):
        model.fit(x, y, **SHORT)
    run = model.run
    fork = run.fork(tmp_path / "fork")
    assert (fork.position, len(fork.history), model.run is fork) == (run.position, 2, True)
    history = model.fit(x, y, **SHORT)
    assert joined_history([history]) == joined_history([histories[2]])
    assert differing(state_bits(control), state_bits(model)) == []
    assert numbers(fork) == dict.fromkeys((1, 2, 3), "finished")
    with pytest.raises(RunClosed, match="fork"):
        run.fit(x, y, **SHORT)
    fork.close()
    with process(tmp_path / "run") as (model, x, y):
        assert numbers(model.run) == dict.fromkeys((1, 2), "finished")


def forking(directory: Path, *, at: int | None = None) -> tuple[Any, ...]:
    """Return what a script that forks sees, in a new process."""
    model, x, y = attached(directory / "run")
    for _ in range(2):
        model.fit(x, y, **SHORT)
    fork = model.run.fork(directory / "fork", at=at)
    begins = state_bits(model), fork.position, model.evaluate(x, y, verbose=0)
    history = model.fit(x, y, **{**SHORT, "batch_size": 10})
    seen = (
        *begins,
        joined_history([history]),
        state_bits(model),
        fork.position,
        numbers(fork),
        len(fork.recorder.epochs),
    )
    fork.close()
    return seen


@pytest.mark.parametrize("at", [None, 1, 0])
def test_fork_is_made_once_and_opened_after_that(at: int | None, tmp_path: Path) -> None:
    """The same script again opens the fork and replays it."""
    first, second = (forking(tmp_path, at=at) for _ in range(2))
    assert differing(first[0], second[0]) == []
    assert differing(first[4], second[4]) == []
    assert (*first[1:4], *first[5:]) == (*second[1:4], *second[5:])
    assert first[6] == dict.fromkeys(range(1, (2 if at is None else at) + 2), "finished")
    assert first[1].epoch == 2 * (2 if at is None else at)


@pytest.mark.parametrize("spot", ["open", "set_meta", "put_fit", "put_epoch", "checkpoint", "pin"])
def test_fork_that_was_cut_short_is_made_anew(spot: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash at any point of a fork's making leaves a folder with which the same script goes on."""
    with process(tmp_path / "run") as (model, x, y):
        model.fit(x, y, **SHORT)
        model.fit(x, y, **SHORT)
        monkeypatch.setattr(kept_states, "DiskRecorder", _crash_after(spot))
        with pytest.raises(ZeroDivisionError):
            model.run.fork(tmp_path / "fork", at=1)
        monkeypatch.undo()
        assert not model.run.closed
        fork = model.run.fork(tmp_path / "fork", at=1)
        assert fork.position.fit == 1
        assert model.fit(x, y, **SHORT).epoch == [2, 3]
    whole = keepfit.Run(make("plain_dense")[0])
    whole.fit(x, y, **SHORT)
    whole.fit(x, y, **SHORT)
    assert differing(state_bits(whole.model), state_bits(model)) == []


def _crash_after(spot: str) -> Any:
    """Return a recorder that fails for good once a method was called."""

    def crash(recorder: Any) -> None:
        recorder.flush()
        raise ZeroDivisionError

    class Crashing(DiskRecorder):
        @classmethod
        def open(cls, *given: Any, **options: Any) -> Any:
            recorder = super().open(*given, **options)
            if spot == "open":
                recorder.close()
                raise ZeroDivisionError
            return recorder

    if spot != "open":

        def method(self: Any, *given: Any, **options: Any) -> None:
            getattr(DiskRecorder, spot)(self, *given, **options)
            crash(self)

        setattr(Crashing, spot, method)
    return Crashing


def test_fork_with_a_model_of_its_own_keeps_the_run_open(tmp_path: Path) -> None:
    """Both go on beside each other, and the fork's model has the whole state, its optimizer's too."""
    model, x, y = attached(tmp_path / "run")
    model.fit(x, y, **SHORT)
    end = state_bits(model)
    other, _, _ = built()
    with model.run.fork(tmp_path / "fork", model=other) as fork:
        other_history = fork.fit(x, y, **SHORT)
        assert differing(end, state_bits(model)) == []
        history = model.fit(x, y, **SHORT)
        assert joined_history([history]) == joined_history([other_history])
        assert differing(state_bits(model), state_bits(other)) == []
        assert (model.run.closed, numbers(fork)) == (None, numbers(model.run))


def test_fork_begins_with_the_seed_and_the_memory_of_the_run(tmp_path: Path) -> None:
    """The order of samples and what callbacks remember go on."""
    with process(tmp_path / "run") as (model, x, y):
        model.fit(x, y, callbacks=[keras.callbacks.EarlyStopping("loss", patience=3, min_delta=50)], **SHORT)
        other, _, _ = built()
        seed = model.run.seed
        with model.run.fork(tmp_path / "fork", model=other) as fork:
            stopping = keras.callbacks.EarlyStopping("loss", patience=3, min_delta=50)
            history = fork.fit(x, y, callbacks=[stopping], **{**SHORT, "epochs": 9})
            assert (fork.seed, history.epoch) == (seed, [2, 3])


@pytest.mark.parametrize("at", [-1, 2])
def test_fork_at_a_fit_that_is_not_there_raises(at: int, tmp_path: Path) -> None:
    """It goes off where the script has been; nothing is made."""
    with process(tmp_path / "run") as (model, x, y):
        model.fit(x, y, **SHORT)
        with pytest.raises(InvalidArgument, match="0 to 1"):
            model.run.fork(tmp_path / "fork", at=at)
        assert not (tmp_path / "fork").exists()
        model.fit(x, y, **SHORT)


@pytest.mark.filterwarnings("ignore::keepfit.errors.KeepfitWarning")
@pytest.mark.parametrize("what", ["another run", "another fork", "something else"])
def test_fork_into_a_folder_of_something_else_changes_nothing(what: str, tmp_path: Path) -> None:
    """The error says so, and the run still has its model."""
    if what == "another run":
        with process(tmp_path / "fork") as (model, x, y):
            model.fit(x, y, **SHORT)
    elif what == "something else":
        (tmp_path / "fork").mkdir()
        (tmp_path / "fork" / "notes.txt").write_text("mine")
    model, x, y = attached(tmp_path / "run")
    model.fit(x, y, **SHORT)
    if what == "another fork":
        other, _, _ = make("plain_dense")
        model.run.fork(tmp_path / "fork", at=0, model=other).close()
    bits = state_bits(model)
    run = model.run
    with pytest.raises(NotARun, match="Nothing was changed"):
        run.fork(tmp_path / "fork")
    assert differing(bits, state_bits(model)) == []
    assert (run.closed, model.run is run) == (None, True)
    assert model.fit(x, y, **SHORT).epoch == [2, 3]


# Opening again


def test_folder_opened_again_closes_the_earlier_run(tmp_path: Path) -> None:
    """The cell of a notebook that builds and attaches can be run again: the new run counts from 1."""
    first, x, y = attached(tmp_path / "run")
    first.fit(x, y, **SHORT)
    bits = state_bits(first)
    second, x, y = attached(tmp_path / "run")
    with pytest.raises(RunClosed, match="opened again in this process"):
        first.fit(x, y, **SHORT)
    with pytest.raises(RunClosed):
        first.evaluate(x, y, verbose=0)
    assert differing(bits, state_bits(first)) == []
    assert second.run.position.fit == 0
    assert second.fit(x, y, **SHORT).epoch == [0, 1]
    assert len(second.run.recorder.epochs) == 2
    assert differing(bits, state_bits(second)) == []


def test_folder_of_a_run_that_nobody_holds_can_be_opened_again(tmp_path: Path) -> None:
    """A function that attaches and fits can be called again, whether its model is gone by then or not."""

    def train() -> Any:
        model, x, y = attached(tmp_path / "run")
        return joined_history([model.fit(x, y, **SHORT)])

    first = train()
    for collect in (True, False):
        if collect:
            gc.collect()
        threads = threading.active_count()
        assert train() == first
        assert threading.active_count() <= threads


def test_folder_is_the_one_that_was_meant_when_it_was_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that changes its working directory opens another folder under the same relative name."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    first, x, y = attached(Path("run"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    second, x, y = attached(Path("run"))
    for model in (first, second):
        assert model.fit(x, y, **SHORT).epoch == [0, 1]
    attached(tmp_path / "run")
    with pytest.raises(RunClosed, match="opened again in this process"):
        first.fit(x, y, **SHORT)
    second.fit(x, y, **SHORT)


def test_run_that_was_opened_over_can_still_be_closed(tmp_path: Path) -> None:
    """Closing the earlier run gives its model its own fit back, and leaves the later run open."""
    first, x, y = attached(tmp_path / "run")
    second, x, y = attached(tmp_path / "run")
    first.run.close()
    assert not set(VERBS) & set(vars(first))
    first.fit(x, y, **SHORT)
    assert second.fit(x, y, **SHORT).epoch == [0, 1]


def test_folder_opened_again_with_the_same_model_counts_from_1(tmp_path: Path) -> None:
    """With Run, the same model begins at the recorded start again."""
    model, x, y = make("plain_dense")
    first = keepfit.Run(model, tmp_path / "run")
    start = state_bits(model)
    first.fit(x, y, **SHORT)
    end = state_bits(model)
    with pytest.warns(KeepfitWarning, match="holds the state that"):
        second = keepfit.Run(model, tmp_path / "run")
    now = state_bits(model)
    assert differing(start, {name: now[name] for name in start}) == []
    second.fit(x, y, **SHORT)
    assert differing(end, state_bits(model)) == []


@pytest.mark.parametrize("settings", [{}, {"keep": 10}, {"seed": 3}, {"seed": None}])
def test_attaching_again_changes_nothing(settings: dict[str, Any], tmp_path: Path) -> None:
    """The same model and the same folder: the run stays, at its place."""
    model, x, y = attached(tmp_path / "run", **settings)
    run = model.run
    model.fit(x, y, **SHORT)
    bits = state_bits(model)
    assert keepfit.attach(model, tmp_path / ".." / tmp_path.name / "run", **settings) is model
    assert (model.run is run, run.closed, run.position.fit) == (True, None, 1)
    assert differing(bits, state_bits(model)) == []
    assert model.fit(x, y, **SHORT).epoch == [2, 3]


def test_two_runs_over_one_optimizer_raise() -> None:
    """An optimizer serves one model: what it knows of the other one's weights would be lost at every change."""
    optimizer = keras.optimizers.Adam(1e-2)
    models = [make("plain_dense")[0] for _ in range(2)]
    for model in models:
        model.compile(optimizer, "mse")
    with keepfit.Run(models[0]) as run:
        with pytest.raises(CannotAttach, match=r"live and has the optimizer of this model\. Nothing was changed"):
            keepfit.Run(models[1])
        assert run.closed is None
    keepfit.Run(models[1]).close()


def test_two_runs_over_one_model_raise(tmp_path: Path) -> None:
    """Also where only a layer is shared, and where one of them has no folder; the folder is not made."""
    model, x, y = attached(tmp_path / "run")
    shared = keras.Sequential([keras.Input((6,)), model.layers[0], keras.layers.Dense(2)])
    shared.compile("sgd", "mse")
    for second in (model, shared):
        for directory in (None, tmp_path / "other"):
            with pytest.raises(CannotAttach, match=r"is live and has variables of this model\. Nothing was changed"):
                keepfit.Run(second, directory)
    assert not (tmp_path / "other").exists()
    assert model.fit(x, y, **SHORT).epoch == [0, 1]
    model.run.close()
    with keepfit.Run(shared) as run:
        assert run.closed is None


def test_close_gives_the_model_its_own_methods_back(tmp_path: Path) -> None:
    """After close the model trains as Keras does, and the journal knows nothing of it."""
    model, x, y = attached(tmp_path / "run")
    run = model.run
    assert {"fit", "evaluate", "predict", "train_on_batch", "run"} <= set(vars(model))
    model.fit(x, y, **SHORT)
    run.close()
    run.close()
    assert not ({*VERBS, "run"} & set(vars(model)))
    assert model.fit(x, y, **SHORT).epoch == [0, 1]
    with pytest.raises(RunClosed, match="closed"):
        run.fit(x, y, **SHORT)
    for call in (lambda: run.load(), lambda: run.fork(tmp_path / "fork"), lambda: run.predict(x)):
        with pytest.raises(RunClosed):
            call()
    assert len(keepfit.History.read(tmp_path / "run")) == 1


# The seed


def seed_of(directory: Path, **settings: Any) -> int:
    """Return the seed of a run in a folder."""
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The model now holds", KeepfitWarning)
        with keepfit.Run(model, directory, **settings) as run:
            return run.seed


def test_seed_is_that_of_keras_else_fresh_and_recorded(tmp_path: Path) -> None:
    """An argument wins over set_random_seed, which wins over a fresh one; what was chosen stays."""
    keras.utils.clear_session()
    fresh = [seed_of(tmp_path / f"fresh {number}") for number in range(2)]
    assert fresh[0] != fresh[1]
    assert seed_of(tmp_path / "fresh 0") == fresh[0]
    keras.utils.set_random_seed(17)
    assert seed_of(tmp_path / "keras") == 17
    assert seed_of(tmp_path / "given", seed=4) == 4
    assert seed_of(tmp_path / "given", seed=4) == 4


def test_recorded_seed_wins_over_another(tmp_path: Path) -> None:
    """Another seed= is refused; another set_random_seed is said once, and the recorded one stays."""
    keras.utils.set_random_seed(17)
    seed_of(tmp_path / "run")
    with pytest.raises(InvalidArgument, match=r"begun with seed 17, received seed=18\. Nothing was changed"):
        seed_of(tmp_path / "run", seed=18)
    keras.utils.set_random_seed(18)
    with pytest.warns(KeepfitWarning, match="keeps its recorded seed 17") as caught:
        assert seed_of(tmp_path / "run") == 17
    assert [item.category for item in caught].count(KeepfitWarning) == 1


def test_seed_decides_the_order_of_samples(tmp_path: Path) -> None:
    """Two runs with one seed end in the same bits, whatever was drawn before; another seed gives others."""
    ends = []
    for seed, draws in ((5, 0), (5, 3), (6, 0)):
        model, x, y = make("plain_dense")
        np.random.random(draws)
        with keepfit.Run(model, tmp_path / f"{seed} {draws}", seed=seed) as run:
            run.fit(x, y, **SHORT)
            ends.append(state_bits(model))
    assert differing(ends[0], ends[1]) == []
    assert differing(ends[0], ends[2]) != []


# The start


def test_start_is_taken_when_a_later_process_attaches(tmp_path: Path) -> None:
    """Whatever the model holds then; one notice says so, and none where the values are the same."""
    model, x, y = attached(tmp_path / "run", "dropout_batch_norm")
    start, score = state_bits(model), None
    model.run.close()
    for changed in (True, False):
        model, x, y = (built if changed else make)("dropout_batch_norm")
        if changed:
            with pytest.warns(KeepfitWarning, match="not the one it was made with") as caught:
                keepfit.attach(model, tmp_path / "run")
            assert [item.category for item in caught].count(KeepfitWarning) == 1
        else:
            keepfit.attach(model, tmp_path / "run")
        assert differing(start, state_bits(model)) == []
        score = score or model.evaluate(x, y, verbose=0)
        assert model.evaluate(x, y, verbose=0) == score
        model.run.close()


def unbuilt() -> Any:
    """Return a model whose weights are made with its first batch."""
    model = keras.Sequential([keras.layers.Dense(3), keras.layers.Dropout(0.3), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    return model


@pytest.mark.parametrize("first_call", ["fit", "evaluate", "predict"])
def test_unbuilt_model_takes_the_start_with_its_first_batch(first_call: str, tmp_path: Path) -> None:
    """In a later process the weights that the first batch makes give way to the recorded ones."""
    _, x, y = make("plain_dense")
    seen: list[Any] = []
    for seed in (3, 4):
        keras.utils.set_random_seed(3)
        model = unbuilt()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The model now holds", KeepfitWarning)
            keepfit.attach(model, tmp_path / "run")
            np.random.seed(seed)
            keras.random.normal((seed,))  # other draws, so that other weights are made
            if first_call == "predict":
                seen.append(model.predict(x, verbose=0).tolist())
            elif first_call == "evaluate":
                seen.append(model.evaluate(x, y, verbose=0))
            model.fit(x, y, **SHORT)
        seen.append(state_bits(model))
        model.run.close()
    half = len(seen) // 2
    assert seen[:half] == seen[half:]


def test_global_generators_are_those_of_the_start(tmp_path: Path) -> None:
    """What a script draws after attaching is the same in a later process, seeded or not."""
    drawn = []
    for _ in range(2):
        model, _, _ = attached(tmp_path / "run")
        drawn.append((np.random.random(), np.asarray(keras.random.uniform((2,))).tolist()))
        model.run.close()
        np.random.seed(99)
    assert drawn[0] == drawn[1]


def test_rate_is_a_setting_of_the_script(tmp_path: Path) -> None:
    """The start does not bring back the rate: a script that changed it is told so by its first fit."""
    with process(tmp_path / "run") as (model, x, y):
        model.fit(x, y, **SHORT)
    model, x, y = built()
    model.optimizer.learning_rate = 0.5
    attach_quietly(model, tmp_path / "run")
    assert model.run.learning_rate == 0.5
    with pytest.raises(RecipeChanged, match=r"learning_rate: recorded 0\.01, now 0\.5"):
        model.fit(x, y, **SHORT)
