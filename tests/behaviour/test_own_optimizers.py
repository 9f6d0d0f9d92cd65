"""Models without a compiled optimizer: those that only evaluate, and those whose step has optimizers of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keepfit
from keepfit import standing
from keepfit.errors import KeepfitWarning, NotCompiled
from tests.behaviour.processes import Stop
from tests.bits import differing, joined_history, state_bits
from tests.models import make, regression_data

adversaries = pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="Keras's JAX trainer gives a step the state of the compiled optimizer only"
)


def without_optimizer() -> tuple[Any, Any, Any]:
    """Return a model that is compiled to be evaluated only, and data."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4), keras.layers.Dense(1)])
    model.compile(optimizer=None, loss="mse", metrics=["mae"])
    return model, *regression_data()


@pytest.mark.parametrize("folder", [None, "run"])
def test_a_model_without_an_optimizer_evaluates_and_predicts_as_keras_does(folder: str | None, tmp_path: Path) -> None:
    """``compile(optimizer=None)`` is enough for what does not train, in memory and in a folder that is opened again."""
    model, x, y = without_optimizer()
    expected = model.evaluate(x, y, verbose=0), model.predict(x, verbose=0)
    for _ in range(2):
        attached = keepfit.attach(without_optimizer()[0], tmp_path / folder if folder else None)
        np.testing.assert_allclose(attached.evaluate(x, y, verbose=0), expected[0], rtol=1e-6)  # sums of other batches
        assert np.array_equal(attached.predict(x, verbose=0), expected[1])
        assert attached.test_on_batch(x, y) == pytest.approx(expected[0])
        assert attached.run.learning_rate is None
        attached.run.close()


@pytest.mark.parametrize("verb", ["fit", "train_on_batch", "find_learning_rate"])
def test_training_without_an_optimizer_is_refused(verb: str) -> None:
    """Keras's own step cannot train without one, which is said before anything changes."""
    model, x, y = without_optimizer()
    with keepfit.Run(model) as run:
        with pytest.raises(NotCompiled, match=rf"without an optimizer\. Nothing was changed.*compile.*before {verb}"):
            getattr(run, verb)(x, y)
        assert run.position.step == 0


def test_a_model_that_is_compiled_with_an_optimizer_later_trains_as_if_from_the_start(tmp_path: Path) -> None:
    """An optimizer that comes after `attach` trains, and the script that is run again replays and goes on."""
    found = []
    for _ in range(2):
        model, x, y = without_optimizer()
        model = keepfit.attach(model, tmp_path / "run")
        model.evaluate(x, y, verbose=0)
        model.compile(keras.optimizers.Adam(1e-2), "mse")
        model.fit(x, y, epochs=2, verbose=0)
        found.append(state_bits(model))
        model.run.close()
    model, x, y = without_optimizer()
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    with keepfit.Run(model) as run:
        run.fit(x, y, epochs=2, verbose=0)
        assert differing(found[0], state_bits(model)) == []
    assert differing(found[0], found[1]) == []


class StandsStill(keras.Sequential):
    """A model whose own step needs no optimizer."""

    def train_step(self, *given: Any) -> Any:
        """Return a loss."""
        logs = {"loss": keras.ops.zeros(())}
        return (logs, given[0]) if keras.backend.backend() == "jax" else logs


def test_an_optimizer_that_is_let_go_is_said() -> None:
    """Going on without an optimizer lets the state of the last one go, which one sentence says."""
    keras.utils.set_random_seed(3)
    model = StandsStill([keras.Input((6,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    x, y = regression_data()
    with keepfit.Run(model) as run:
        run.fit(x, y, verbose=0)
        model.optimizer.iterations.assign(5)  # as if the step had used it
        with pytest.warns(KeepfitWarning, match="set by hand"):
            run.fit(x, y, verbose=0)
        model.compile(optimizer=None, loss="mse")
        with pytest.warns(KeepfitWarning, match="without an optimizer now: the state of Adam is let go"):
            run.fit(x, y, verbose=0)
        run.fit(x, y, verbose=0)


def test_a_model_that_only_measures_without_an_optimizer_trains_on_with_the_state_there_was() -> None:
    """Compiling without an optimizer to evaluate, and with one to train, is as compiling with one."""
    found = []
    for measures in (False, True):
        model, x, y = make("plain_dense")
        with keepfit.Run(model) as run:
            run.fit(x, y, verbose=0)
            if measures:
                model.compile(optimizer=None, loss="mse")
                run.evaluate(x, y, verbose=0)
            model.compile("adam", "mse")
            going_on = pytest.warns(KeepfitWarning, match="goes on with the state of the last one")
            with pytest.warns(KeepfitWarning, match="the metrics changed"), going_on:
                run.fit(x, y, verbose=0)
            found.append(state_bits(model))
    assert differing(*found) == []


def train(folder: Path, *, stop_after: int = 1000) -> tuple[Any, Any]:
    """Train the adversaries in two fits, or until so many steps of the first one; return state and logs."""
    model, x, y = make("adversaries")
    model = keepfit.attach(model, folder)
    given: dict[str, Any] = {"batch_size": 10, "epochs": 2, "verbose": 0, "callbacks": [Stop(stop_after)]}
    try:
        histories = [model.fit(x, y, **given) for _ in range(2)]
    finally:
        model.run.close()
    return state_bits(model), joined_history(histories)


@adversaries
@pytest.mark.parametrize("step", [1, 4])
def test_optimizers_of_the_steps_own_go_on_after_an_interruption(step: int, tmp_path: Path) -> None:
    """Optimizers that the first step builds are in the checkpoints of the first fit, and nothing is said."""
    whole = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", stop_after=step)
    found = train(tmp_path / "cut")
    assert differing(whole[0], found[0]) == []
    assert found[1] == whole[1]
    assert any(name.startswith("optimizers/optimizers/d/model/discriminator") for name in found[0])


@adversaries
@pytest.mark.filterwarnings("ignore:.*(have no value in the kept state|set by hand)")
def test_a_resume_that_does_not_build_them_ends_with_other_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: their slots have no place to go to."""
    whole = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", stop_after=4)
    monkeypatch.setattr(standing, "begin_as", lambda model, values: None)
    assert differing(whole[0], train(tmp_path / "cut")[0]) != []


@adversaries
def test_fits_of_a_step_with_optimizers_of_its_own_are_one_fit_when_joined() -> None:
    """Two fits of one epoch are one fit of two, though the first step has built the optimizers."""
    found = []
    for cut in ((2,), (1, 1)):
        model, x, y = make("adversaries")
        with keepfit.Run(model) as run:
            histories = [run.fit(x, y, batch_size=10, epochs=epochs, verbose=0) for epochs in cut]
        found.append((state_bits(model), joined_history(histories)))
    assert differing(found[0][0], found[1][0]) == []
    assert found[0][1] == found[1][1]


@adversaries
@pytest.mark.filterwarnings("ignore:The model now holds the state")
def test_going_back_to_the_start_makes_them_fresh(tmp_path: Path) -> None:
    """A branch from fit 1 begins with optimizers as they were made, though the model's have been built since."""
    whole = train(tmp_path / "whole")
    model, x, y = make("adversaries")
    model = keepfit.attach(model, tmp_path / "run")
    given: dict[str, Any] = {"epochs": 2, "verbose": 0, "callbacks": [Stop(1000)]}
    model.fit(x, y, batch_size=35, **given)
    model = keepfit.attach(model, tmp_path / "run", on_change="branch")
    with pytest.warns(KeepfitWarning, match="closed as a branch"):
        histories = [model.fit(x, y, batch_size=10, **given)]
    histories.append(model.fit(x, y, batch_size=10, **given))
    assert differing(whole[0], state_bits(model)) == []
    assert joined_history(histories) == whole[1]


class FailOnce(keras.layers.Layer):
    """Raise in the second half of the first step that is really taken."""

    left = 0

    def call(self, x: Any) -> Any:
        if type(self).left > 0:
            type(self).left -= 1
            if type(self).left == 0:
                raise ZeroDivisionError
        return x


@adversaries
@pytest.mark.skipif(keras.backend.backend() != "torch", reason="a step that fails as it is traced runs nothing")
def test_a_first_step_that_fails_leaves_them_fresh() -> None:
    """One optimizer was built and had stepped when the step failed: it begins again with everything else."""
    found = []
    for fails in (False, True):
        model, x, y = make("adversaries")
        model.generator.add(FailOnce())
        with keepfit.Run(model, plan="stepwise") as run:
            # The layer is called twice in a step: once for each loss.
            FailOnce.left = 2 if fails else 0
            if fails:
                with pytest.raises(ZeroDivisionError):
                    run.fit(x, y, batch_size=10, verbose=0)
            FailOnce.left = 0
            run.fit(x, y, batch_size=10, verbose=0)
            found.append(state_bits(model))
    assert differing(*found) == []
