"""Schedules over the run's steps and over the fit's own, by argument and by hand, on every backend."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keepfit
from keepfit import schedules
from keepfit.errors import FitUnderWay, InvalidArgument, RecipeChanged
from tests.behaviour.processes import Interrupt
from tests.bits import differing, state_bits

pytestmark = pytest.mark.filterwarnings("ignore::keepfit.errors.KeepfitWarning")

RATE = 0.01
STEPS = 7
decay = keras.optimizers.schedules.ExponentialDecay
# Over the fit's own steps; each with its rates in a fit of 14.
OF_A_FIT: dict[str, tuple[Callable[[], Any], Callable[[int], float]]] = {
    "linear": (lambda: schedules.Linear(RATE, 0.002, over=0.5), lambda t: RATE - 0.008 * min(t / 7, 1)),
    "cosine": (lambda: schedules.Cosine(RATE), lambda t: RATE * (1 + np.cos(np.pi * t / 14)) / 2),
    "steps": (lambda: schedules.Linear(RATE, over=10), lambda t: RATE * max(0, 1 - t / 10)),
    "warm-up": (
        lambda: schedules.WarmUp(schedules.Linear(RATE, over=1.0), over=4),
        lambda t: RATE * t / 4 if t < 4 else RATE * (1 - (t - 4) / 10),
    ),
    "warm-up to a number": (lambda: schedules.WarmUp(RATE, over=0.5), lambda t: RATE * min(t / 7, 1)),
    "one cycle": (
        lambda: schedules.OneCycle(RATE, start=0.0, end=0.0, rise=0.5),
        lambda t: RATE * (1 - np.cos(2 * np.pi * t / 14)) / 2,
    ),
    "piecewise": (
        lambda: schedules.Piecewise([0.25, 0.5], [RATE, RATE / 2, RATE / 4]),
        lambda t: RATE / (1 if t < 3.5 else 2 if t < 7 else 4),
    ),
    "per fit": (lambda: schedules.PerFit(decay(RATE, 5, 0.5)), lambda t: RATE * 0.5 ** (t / 5)),
}
OF_THE_RUN: dict[str, tuple[Callable[[], Any], Callable[[int], float]]] = {
    "cosine": (
        lambda: schedules.Cosine(RATE, over=28, clock="run"),
        lambda t: RATE * (1 + np.cos(np.pi * t / 28)) / 2,
    ),
    "keras": (lambda: decay(RATE, 20, 0.5), lambda t: RATE * 0.5 ** (t / 20)),
}


def sum_of_rates(optimizer: Any = None, *, accumulate: bool = False) -> tuple[Any, Any, Any]:
    """Return a model whose one weight falls by the rate in every step, for its gradient is 1; with its data."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(optimizer or keras.optimizers.SGD(RATE), loss=lambda y, prediction: prediction)
    return model, np.ones((70, 1), "float32"), np.zeros((70, 1), "float32")


def weight(model: Any) -> float:
    """Return the model's one weight."""
    return float(model.get_weights()[0][0, 0])


@pytest.mark.parametrize("plan", ["fused", "stepwise"])
@pytest.mark.parametrize("name", OF_A_FIT)
def test_a_schedule_of_the_fit_begins_anew_with_every_fit(name: str, plan: str) -> None:
    """What each step really moves is the rate at its place in the fit, in compiled steps too, in the second fit too."""
    make, rate = OF_A_FIT[name]
    model, x, y = sum_of_rates()
    with keepfit.Run(model, plan=plan) as run:
        run.fit(x, y, batch_size=10, verbose=0)  # 7 steps that are no part of it
        for _ in range(2):
            before = weight(model)
            run.fit(x, y, batch_size=10, epochs=2, verbose=0, learning_rate=make())
            expected = sum(rate(step) for step in range(2 * STEPS))
            # float32 sums of a few terms
            assert before - weight(model) == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", OF_THE_RUN)
def test_a_schedule_of_the_run_goes_on_over_fits(name: str) -> None:
    """Two fits use the rates of one long one."""
    make, rate = OF_THE_RUN[name]
    model, x, y = sum_of_rates()
    with keepfit.Run(model) as run:
        schedule = make()
        for _ in range(2):
            run.fit(x, y, batch_size=10, epochs=2, verbose=0, learning_rate=schedule)
    assert -weight(model) == pytest.approx(sum(rate(step) for step in range(4 * STEPS)), rel=1e-4)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda rate: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(rate), initial_scale=2.0),
        lambda rate: keras.optimizers.SGD(rate, momentum=0.0, weight_decay=0.0),
    ],
)
def test_schedules_in_the_constructor_of_an_optimizer(optimizer: Any) -> None:
    """They need not be given to fit, and may be inside another optimizer."""
    make, rate = OF_A_FIT["cosine"]
    model, x, y = sum_of_rates(optimizer(make()))
    with keepfit.Run(model) as run:
        for fits in (1, 2):
            run.fit(x, y, batch_size=10, epochs=2, verbose=0)
            expected = fits * sum(rate(step) for step in range(2 * STEPS))
            assert -weight(model) == pytest.approx(expected, rel=1e-4)


RATES: dict[str, Callable[[], Any]] = {
    "number": lambda: 0.5 * RATE,
    "keras": lambda: decay(RATE, 10, 0.5),
    "fit": lambda: schedules.Cosine(RATE),
    "run": lambda: schedules.Linear(RATE, over=100, clock="run"),
}


@pytest.mark.parametrize("first", RATES)
@pytest.mark.parametrize("wrapped", [False, True])
def test_rates_set_by_hand_work_in_every_combination(first: str, wrapped: bool) -> None:
    """After each kind of rate each other one can be set; what the steps do is what one of that kind alone does."""

    def moved(rates: list[Any], *, by_hand: bool) -> float:
        inner = keras.optimizers.SGD(rates[0])
        model, x, y = sum_of_rates(keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0) if wrapped else inner)
        with keepfit.Run(model) as run:
            run.fit(x, y, batch_size=10, verbose=0)
            for rate in rates[1:]:
                if by_hand:
                    model.optimizer.learning_rate = rate
                before = weight(model)
                run.fit(x, y, batch_size=10, verbose=0, **({} if by_hand else {"learning_rate": rate}))
        return before - weight(model)

    for second in RATES:
        hand = moved([RATES[first](), RATES[second](), RATES[first](), RATES[second]()], by_hand=True)
        asked = moved([RATES[first](), RATES[second](), RATES[first](), RATES[second]()], by_hand=False)
        assert hand == asked > 0
        if second == "number":
            assert hand == pytest.approx(STEPS * 0.5 * RATE, rel=1e-4)


def test_keras_still_refuses_what_no_run_serves() -> None:
    """An optimizer that belongs to no run behaves as Keras has it."""
    optimizer = keras.optimizers.SGD(decay(RATE, 10, 0.5))
    with keepfit.Run(sum_of_rates()[0]), pytest.raises(TypeError, match="not settable"):
        optimizer.learning_rate = 0.1


def test_a_schedule_amid_a_fit_is_refused() -> None:
    """The fit's steps are compiled and would ignore it."""

    class Sets(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.model.optimizer.learning_rate = decay(RATE, 10, 0.5)

    model, x, y = sum_of_rates()
    with keepfit.Run(model) as run, pytest.raises(FitUnderWay, match="Nothing was changed"):
        run.fit(x, y, batch_size=10, verbose=0, callbacks=[Sets()])


def test_a_second_fit_compiles_nothing_for_its_clock() -> None:
    """The clock is data of the program, not part of it."""
    model, x, y = sum_of_rates()
    schedule = schedules.Cosine(RATE)
    with keepfit.Run(model) as run:
        run.fit(x, y, batch_size=10, verbose=0, learning_rate=schedule)
        key = run.engine._key
        run.fit(x, y, batch_size=10, epochs=3, verbose=0, learning_rate=schedule)
        assert run.engine._key is key


@pytest.mark.parametrize("name", OF_A_FIT)
def test_interrupted_fits_go_on_with_every_bit(name: str, tmp_path: Path) -> None:
    """Another process finds where in the fit it stands; the clock forgotten, it would end elsewhere."""
    make, _ = OF_A_FIT[name]

    def script(directory: Path, *, stop: bool) -> Any:
        keras.utils.set_random_seed(4)
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(3), keras.layers.Dense(1)])
        model.compile(keras.optimizers.Adam(RATE), "mse")
        _, x, y = sum_of_rates()
        with keepfit.Run(model, directory, checkpoint_share="each") as run:
            run.fit(x, y, batch_size=10, verbose=0)
            callbacks = [Interrupt(2)] if stop else []
            run.fit(x, y, batch_size=10, epochs=4, verbose=0, learning_rate=make(), callbacks=callbacks)
            return state_bits(model), run.history.logs["loss"]

    whole = script(tmp_path / "whole", stop=False)
    with pytest.raises(KeyboardInterrupt):
        script(tmp_path / "cut", stop=True)
    cut = script(tmp_path / "cut", stop=False)
    assert (differing(whole[0], cut[0]), whole[1]) == ([], cut[1])


def test_a_resume_without_the_clock_would_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the test above."""
    from keepfit import standing

    whole = standing.restore

    def forgetful(run: Any, snapshot: Any) -> None:
        for name in [name for name in snapshot.tensors if "fit_clock/begin" in name]:
            snapshot.tensors[name] = np.zeros((), "int32")
        whole(run, snapshot)

    monkeypatch.setattr("keepfit.fitting.restore", forgetful)
    with pytest.raises(AssertionError):
        test_interrupted_fits_go_on_with_every_bit("cosine", tmp_path)


def test_more_epochs_over_fractions_of_a_fit_raise(tmp_path: Path) -> None:
    """The recorded epochs would have had other rates; with whole steps more epochs are trained."""
    for name, over in (("fractions", 1.0), ("steps", 20)):
        for epochs in (2, 3):
            model, x, y = sum_of_rates()
            with keepfit.Run(model, tmp_path / name) as run:
                arguments = {"batch_size": 10, "verbose": 0, "learning_rate": schedules.Cosine(RATE, over=over)}
                if epochs == 3 and name == "fractions":
                    with pytest.raises(RecipeChanged, match="over fractions of 2 epochs") as caught:
                        run.fit(x, y, epochs=epochs, **arguments)
                    assert list(caught.value.differences) == ["epochs", "learning_rate"]
                else:
                    assert len(run.fit(x, y, epochs=epochs, **arguments).epoch) == epochs


def test_more_epochs_after_an_interruption_begin_a_new_fit() -> None:
    """In one process the interrupted fit is closed as it stands, as for any other recipe."""
    model, x, y = sum_of_rates()
    with keepfit.Run(model) as run:
        arguments = {"batch_size": 10, "verbose": 0, "learning_rate": schedules.Cosine(RATE)}
        with pytest.raises(KeyboardInterrupt):
            run.fit(x, y, epochs=2, callbacks=[Interrupt(0)], **arguments)
        run.fit(x, y, epochs=3, **arguments)
        assert [(fit.status, fit.epochs) for fit in run.history] == [("closed", 0), ("finished", 3)]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: schedules.Cosine(RATE, over=0), "over zero steps"),
        (lambda: schedules.Cosine(RATE, over=-3), "1 step or more"),
        (lambda: schedules.Cosine(RATE, over=0.0), "a fraction of the fit above 0"),
        (lambda: schedules.Cosine(RATE, over=1.5), "up to 1.0"),
        (lambda: schedules.Cosine(RATE, over=float("nan")), "over=nan"),
        (lambda: schedules.Cosine(RATE, over=0.5, clock="run"), "a run has no length"),
        (lambda: schedules.Cosine(RATE, over=True), "over=True"),
        (lambda: schedules.Cosine(RATE, clock="epoch"), "clock='epoch'"),
        (lambda: schedules.Cosine(-RATE), "start=-0.01"),
        (lambda: schedules.Linear(float("nan")), "start=nan"),
        (lambda: schedules.Linear("fast"), "start='fast'"),
        (lambda: schedules.OneCycle(RATE, rise=1.0), "rise=1.0"),
        (lambda: schedules.OneCycle(RATE, rise=0), "rise=0"),
        (lambda: schedules.Piecewise([3, 2], [1.0, 0.5, 0.25]), "each larger than the one before"),
        (lambda: schedules.Piecewise([3, 0.5], [1.0, 0.5, 0.25]), "steps or fractions"),
        (lambda: schedules.Piecewise([3], [1.0]), "2 rates for 1 borders"),
        (lambda: schedules.WarmUp(RATE, over=1.0), "steps are left for what follows"),
        (lambda: schedules.WarmUp(schedules.Cosine(RATE, over=9, clock="run"), over=2), "a schedule with clock='fit'"),
        (lambda: schedules.PerFit(schedules.Cosine(RATE)), "a schedule of Keras"),
        (lambda: schedules.PerFit(0.1), "a schedule of Keras"),
    ],
)
def test_schedules_that_mean_nothing_are_refused(make: Any, words: str) -> None:
    """When they are made, in the house form."""
    with pytest.raises(InvalidArgument, match=words) as caught:
        make()
    assert "Nothing was changed." in str(caught.value)


@pytest.mark.parametrize("by_hand", [False, True])
def test_schedules_that_a_fit_is_too_short_for_are_refused(by_hand: bool) -> None:
    """A fraction of less than a step, or of a fit whose steps nobody knows: before anything changes."""

    def endless() -> Any:
        while True:
            yield np.ones((10, 1), "float32"), np.zeros((10, 1), "float32")

    model, x, y = sum_of_rates()
    with keepfit.Run(model) as run:
        run.fit(x, y, batch_size=10, verbose=0)
        before = state_bits(model)
        for given, over, words in (
            ((x, y), 0.1, "is over zero steps: the fit has 7"),
            ((endless(),), 0.5, "nobody knows how many steps"),
        ):
            schedule = schedules.Cosine(RATE, over=over)
            if by_hand:
                model.optimizer.learning_rate = schedule
            asked = {} if by_hand else {"learning_rate": schedule}
            batch_size = {"batch_size": 10} if len(given) == 2 else {}
            with pytest.raises(InvalidArgument, match=words):
                run.fit(*given, verbose=0, **batch_size, **asked)
            model.optimizer.learning_rate = RATE
            assert differing(before, state_bits(model)) == []
        assert len(run.history) == 1


def test_a_refused_recipe_takes_the_clock_back(tmp_path: Path) -> None:
    """RecipeChanged leaves the optimizer without the clock it would have needed."""
    for again in (False, True):
        model, x, y = sum_of_rates()
        with keepfit.Run(model, tmp_path / "run", checkpoint_share="each") as run:
            if again:
                with pytest.raises(RecipeChanged):
                    run.fit(x, y, batch_size=10, verbose=0, learning_rate=schedules.Cosine(RATE))
                assert not [name for name in state_bits(model) if "clock" in name]
            run.fit(x, y, batch_size=10, verbose=0)


def test_a_schedule_that_is_zero_throughout_is_said() -> None:
    """Before training, also where it is over the fit's own steps."""
    model, x, y = sum_of_rates()
    with keepfit.Run(model) as run, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        run.fit(x, y, batch_size=10, verbose=0, learning_rate=schedules.WarmUp(RATE, over=0.5))
        assert not [w for w in said if "zero throughout" in str(w.message)]
        run.fit(x, y, batch_size=10, verbose=0, learning_rate=schedules.Cosine(0.0))
        assert len([w for w in said if "zero throughout" in str(w.message)]) == 1


@pytest.mark.parametrize("name", OF_A_FIT)
def test_schedules_are_saved_with_their_model(name: str, tmp_path: Path) -> None:
    """Keras reads them back, whatever was trained; the clock is not part of what it saves."""
    model, x, y = sum_of_rates()
    model.compile(keras.optimizers.Adam(OF_A_FIT[name][0]()), "mse")
    with keepfit.Run(model) as run:
        run.fit(x, y, batch_size=10, verbose=0)
        model.save(tmp_path / "model.keras")
        config = model.optimizer._learning_rate.get_config()
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.optimizer._learning_rate.get_config() == config
    assert int(np.asarray(loaded.optimizer.iterations)) == STEPS


def test_a_schedule_is_not_shared_by_the_clocks_of_two_runs() -> None:
    """The same object in two runs goes by the fit of each."""
    make, rate = OF_A_FIT["cosine"]
    schedule = make()
    models = [sum_of_rates() for _ in range(2)]
    runs = [keepfit.Run(model) for model, _, _ in models]
    runs[1].fit(*models[1][1:], batch_size=10, verbose=0)
    before = [weight(model) for model, _, _ in models]
    for run, (_, x, y) in zip(runs, models, strict=True):
        run.fit(x, y, batch_size=10, epochs=2, verbose=0, learning_rate=schedule)
    for start, (model, _, _) in zip(before, models, strict=True):
        assert start - weight(model) == pytest.approx(sum(rate(step) for step in range(14)), rel=1e-4)


def test_multipliers_by_layer_apply_to_a_schedule() -> None:
    """A pair of a schedule and multipliers is both."""
    make, rate = OF_A_FIT["cosine"]
    model, x, y = sum_of_rates()
    with keepfit.Run(model) as run:
        layer = model.layers[-1].name
        run.fit(x, y, batch_size=10, epochs=2, verbose=0, learning_rate=(make(), {layer: 0.5}))
        assert -weight(model) == pytest.approx(0.5 * sum(rate(step) for step in range(14)), rel=1e-4)
        run.fit(x, y, batch_size=10, verbose=0, learning_rate=(RATE, slice(0.25, 1.0)))
        for wrong in ((make(), 0.5), ({layer: 1.0}, {layer: 0.5}), (make(),), (make(), {layer: -1.0})):
            with pytest.raises(InvalidArgument, match="Nothing was changed"):
                run.fit(x, y, batch_size=10, verbose=0, learning_rate=wrong)


def test_a_schedule_without_a_config_goes_on_over_freezing() -> None:
    """One of the user's own need not be serialisable."""

    class Halves(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step: Any) -> Any:
            return RATE * 0.5 ** (keras.ops.cast(step, "float32") / 10)

    keras.utils.set_random_seed(4)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(3, name="body"), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(Halves()), "mse")
    _, x, y = sum_of_rates()
    with keepfit.Run(model) as run:
        run.fit(x, y, batch_size=10, verbose=0)
        run.fit(x, y, batch_size=10, verbose=0, train="body")
        assert run.learning_rate == pytest.approx(RATE * 0.5**1.4)
