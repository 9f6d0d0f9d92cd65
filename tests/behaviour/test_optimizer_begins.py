"""An optimizer is built when the first fit knows what trains: no state is ever made for what never trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keepfit
from keepfit.errors import RecipeChanged
from tests.bits import differing, state_bits
from tests.models import regression_data

pytestmark = pytest.mark.filterwarnings("ignore::keepfit.errors.KeepfitWarning")

RATE = 1e-2
optimizers = keras.optimizers
OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "momentum": lambda: optimizers.SGD(RATE, momentum=0.9),
    "sgd": lambda: optimizers.SGD(RATE),
    "adagrad": lambda: optimizers.Adagrad(RATE),
    "nadam": lambda: optimizers.Nadam(RATE),
    "ema": lambda: optimizers.Adam(RATE, use_ema=True, ema_momentum=0.9),
    "accumulation": lambda: optimizers.Adam(RATE, gradient_accumulation_steps=3),
    "loss scale": lambda: optimizers.LossScaleOptimizer(optimizers.Adam(RATE), initial_scale=8.0),
}
if hasattr(optimizers, "ScheduleFreeAdamW"):
    OPTIMIZERS["schedule free"] = lambda: optimizers.ScheduleFreeAdamW(RATE)
X, Y = regression_data()


def network(name: str = "nadam", *, built: bool = True) -> Any:
    """Return a model of a body and a head."""
    keras.utils.set_random_seed(4)
    inputs = [keras.Input((6,))] if built else []
    model = keras.Sequential([*inputs, keras.layers.Dense(5, name="body"), keras.layers.Dense(1, name="head")])
    model.compile(OPTIMIZERS[name](), "mse")
    return model


def train(run: keepfit.Run, **arguments: Any) -> Any:
    """Train one fit."""
    return run.fit(X, Y, batch_size=10, verbose=0, **arguments)


def start_of(run: keepfit.Run) -> dict[str, Any]:
    """Return the tensors of the state before fit 1."""
    checkpoint = run.recorder.newest(kinds=("start",))
    assert checkpoint is not None
    return dict(run.recorder.load(checkpoint)[0])


@pytest.fixture
def made_for(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return a list of the variables that an optimizer makes something for, as it goes."""
    found: list[Any] = []
    own = optimizers.Optimizer.add_variable_from_reference

    def watched(self: Any, reference_variable: Any, *args: Any, **kwargs: Any) -> Any:
        found.append(reference_variable)
        return own(self, reference_variable, *args, **kwargs)

    monkeypatch.setattr(optimizers.Optimizer, "add_variable_from_reference", watched)
    return found


def belong_to(model: Any, layer: str, variables: list[Any]) -> bool:
    """Return whether every variable is one of a layer."""
    its = set(map(id, model.get_layer(layer).variables))
    return bool(variables) and all(id(variable) in its for variable in variables)


@pytest.mark.parametrize("built", [True, False])
@pytest.mark.parametrize("name", ["nadam", "ema", "accumulation", "loss scale"])
def test_nothing_is_made_for_a_frozen_backbone(name: str, built: bool, tmp_path: Path, made_for: list[Any]) -> None:
    """Attaching, asking, a range test and fits of the head make no array for the body; unfreezing makes them."""
    model = network(name, built=built)
    with keepfit.Run(model, tmp_path / "run") as run:
        run.predict(X[:4])
        run.evaluate(X, Y, verbose=0)
        run.test_on_batch(X[:4], Y[:4])
        assert made_for == []
        run.find_learning_rate(X, Y, batch_size=10, steps=10, train="head")
        train(run, train="head")
        train(run, epochs=2)
        assert belong_to(model, "head", made_for)
        assert not any(name.startswith("optimizer") and "/model/" in name for name in start_of(run))
        train(run, train="all")
        assert not belong_to(model, "head", made_for)
    made_for.clear()
    again = network(name, built=built)
    with keepfit.Run(again, tmp_path / "run") as run:
        train(run, train="head")
        assert belong_to(again, "head", made_for)


def test_an_optimizer_built_at_the_start_is_seen(made_for: list[Any]) -> None:
    """The control of the test above: where the optimizer is built before the fit, arrays are made for the body."""
    model = network()
    with keepfit.Run(model) as run:
        model.optimizer.build(model.trainable_variables)
        train(run, train="head")
    assert made_for
    assert not belong_to(model, "head", made_for)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_back_at_the_start_an_optimizer_is_as_new(name: str, tmp_path: Path) -> None:
    """A fork at 0 that takes a trained model trains as a run that begins, bit for bit."""
    with keepfit.Run(network(name), tmp_path / "run") as run:
        train(run, epochs=2)
        expected = state_bits(run.model)
        train(run)
        with run.fork(tmp_path / "fork", at=0) as fork:
            train(fork, epochs=2)
            assert differing(expected, state_bits(fork.model)) == []


def test_what_trained_would_stay_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the test above: where nothing fresh is put in, slots of after the training stay."""
    monkeypatch.setattr("keepfit.standing.fresh_values", lambda _model, _names: {})
    with keepfit.Run(network(), tmp_path / "run") as run:
        train(run, epochs=2)
        expected = state_bits(run.model)
        with run.fork(tmp_path / "fork", at=0) as fork:
            train(fork, epochs=2)
            assert differing(expected, state_bits(fork.model)) != []


def test_a_branch_at_the_start_begins_anew(tmp_path: Path) -> None:
    """Where fit 1 is asked for otherwise in one process, it trains as the first fit of a run does."""
    with keepfit.Run(network(), tmp_path / "one") as run:
        train(run, epochs=2, train="head")
        expected = state_bits(run.model)
    with keepfit.Run(network(), tmp_path / "two") as run:
        train(run)
    with keepfit.Run(network(), tmp_path / "two", on_change="branch") as run:
        train(run, epochs=2, train="head")
        assert differing(expected, state_bits(run.model)) == []


def test_loading_the_start_brings_the_optimizer_back_to_its_beginning() -> None:
    """Slots of a run that has trained are zero after load(0), and what one step makes of them is what it made once."""
    with keepfit.Run(network("momentum")) as run:
        train(run)
        run.load(0)
        slots = [variable for variable in run.model.optimizer.variables if "momentum" in variable.path]
        assert slots
        assert not any(np.asarray(keras.ops.convert_to_numpy(slot)).any() for slot in slots)


@pytest.mark.parametrize("name", ["nadam", "loss scale", "momentum"])
def test_an_optimizer_that_was_used_before_is_kept(name: str, tmp_path: Path) -> None:
    """What it knows at the start is in the start's state, and a process whose own is not built begins with it."""
    model = network(name)
    model.fit(X, Y, batch_size=10, verbose=0, shuffle=False)
    with keepfit.Run(model, tmp_path / "run") as run:
        assert any("/model/" in name for name in start_of(run) if name.startswith("optimizer"))
        with run.fork(tmp_path / "fork", at=0, model=network(name)) as fork:
            train(fork)
            expected = state_bits(fork.model)
        train(run)
        assert differing(expected, state_bits(model)) == []


class Unmakeable(optimizers.SGD):
    """An optimizer whose config does not make it again."""

    def get_config(self) -> dict[str, Any]:
        return {"nobody": "knows"}


def test_an_optimizer_that_cannot_be_made_anew_goes_back_too(tmp_path: Path) -> None:
    """Where its class gives no config that makes it, the start holds what it began with, and nothing for the body."""

    def unmakeable() -> Any:
        model = network()
        model.compile(Unmakeable(RATE, momentum=0.9), "mse")
        return model

    with keepfit.Run(unmakeable(), tmp_path / "run") as run:
        run.model.get_layer("head").set_weights([np.ones((5, 1)), np.ones(1)])
        train(run, epochs=2, train="head")
        expected = state_bits(run.model)
        slots = {name for name in start_of(run) if name.startswith("optimizer/model/")}
        assert slots == {f"optimizer/model/dense_1/{name}/momentums" for name in ("kernel", "bias")}
        run.load(0)
        assert not any(np.asarray(value).any() for name, value in start_of(run).items() if name in slots)
        assert not any(np.frombuffer(state_bits(run.model)[name][2], "float32").any() for name in slots)
    with keepfit.Run(unmakeable(), tmp_path / "run") as run:
        run.model.get_layer("head").set_weights([np.ones((5, 1)), np.ones(1)])
        train(run, epochs=2, train="head")
        assert differing(expected, state_bits(run.model)) == []


@pytest.mark.parametrize("train_", ["head", "all"])
def test_a_start_that_an_earlier_version_wrote_is_read(train_: str, tmp_path: Path) -> None:
    """A start with slots of everything, as a built optimizer gives it, begins a run as one without does."""
    with keepfit.Run(network(), tmp_path / "new") as run:
        train(run, train=train_)
        expected = state_bits(run.model)
    early = network()
    early.optimizer.build(early.trainable_variables)
    keepfit.Run(early, tmp_path / "old").close()
    with keepfit.Run(network(), tmp_path / "old") as run:
        assert any("/model/" in name for name in start_of(run) if name.startswith("optimizer"))
        train(run, train=train_)
        assert differing(expected, state_bits(run.model)) == []


def test_asking_before_the_first_fit_changes_no_bit() -> None:
    """A range test, an evaluation and a rate set by hand leave a first fit as it would have been."""
    with keepfit.Run(network()) as run:
        train(run, train="head")
        expected = state_bits(run.model)
    with keepfit.Run(network()) as run:
        run.evaluate(X, Y, verbose=0)
        run.find_learning_rate(X, Y, batch_size=10, steps=10)
        run.model.optimizer.learning_rate = keras.optimizers.schedules.ExponentialDecay(1.0, 3, 0.5)
        run.evaluate(X, Y, verbose=0)
        run.model.optimizer.learning_rate = RATE
        train(run, train="head")
        assert differing(expected, state_bits(run.model)) == []


def test_what_is_put_into_an_optimizer_before_the_first_fit_is_set_by_hand(tmp_path: Path) -> None:
    """A process that does not do it again is told; one that does gets its fit back."""

    def attached(*, warm: bool) -> keepfit.Run:
        run = keepfit.Run(network("momentum"), tmp_path / "run")
        run.model.optimizer.build(run.model.trainable_variables)
        if warm:
            slot = run.model.optimizer.variables[-1]
            slot.assign(np.ones(slot.shape))
        return run

    with attached(warm=True) as run:
        expected = train(run).history
    with attached(warm=True) as run:
        assert train(run).history == expected
    with attached(warm=False) as run, pytest.raises(RecipeChanged, match="momentum"):
        train(run)


def test_an_optimizer_compiled_before_the_first_fit_is_the_one_that_begins() -> None:
    """Compiling anew between attaching and the first fit asks nothing of the one that never trained."""
    model = network()
    with keepfit.Run(model) as run:
        run.evaluate(X, Y, verbose=0)
        model.compile(OPTIMIZERS["momentum"](), "mse")
        run.evaluate(X, Y, verbose=0)
        assert not model.optimizer.built
        train(run)
        got = state_bits(model)
    with keepfit.Run(network("momentum")) as run:
        train(run)
        assert differing(got, state_bits(run.model)) == []
