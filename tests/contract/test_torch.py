"""The captured step on PyTorch: the same bits as the step itself, or not captured."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest

if keras.backend.backend() != "torch":
    pytest.skip("about the PyTorch backend", allow_module_level=True)

import torch

import keepfit
from keepfit import randomness
from keepfit.engine import Block, make_engine, torch_library
from tests.bits import differing, state_bits
from tests.models import PenalisedDense, regression_data

SIZE = 10
STEPS = 120
layers = keras.layers
optimizers = keras.optimizers


def dense(*further: Any) -> Any:
    """Return a small net with further layers in its middle."""
    stack = [keras.Input((6,)), layers.Dense(8, activation="tanh"), *further, layers.Dense(1)]
    return keras.Sequential(stack)


def compiled(
    optimizer: Any, *further: Any, loss: Any = "mse", metrics: Any = ("mae",)
) -> Callable[[], tuple[Any, Any, Any]]:
    """Return what makes a compiled net with its data; layers and optimizers are given as functions."""

    def make() -> tuple[Any, Any, Any]:
        keras.utils.set_random_seed(7)
        model = dense(*(layer() for layer in further))
        model.compile(optimizer(), loss, metrics=list(metrics))
        x, y = regression_data(700)
        return model, x, y

    return make


def classifier() -> tuple[Any, Any, Any]:
    """Whole-number targets, an embedding, accuracy, gradients clipped by their norm."""
    keras.utils.set_random_seed(7)
    stack = [keras.Input((5,), dtype="int32"), layers.Embedding(9, 4), layers.Flatten(), layers.Dense(3)]
    model = keras.Sequential([*stack, layers.Softmax()])
    model.compile(optimizers.Adam(1e-2, global_clipnorm=0.5), "sparse_categorical_crossentropy", metrics=["accuracy"])
    generator = np.random.default_rng(3)
    return model, generator.integers(0, 9, (700, 5)), generator.integers(0, 3, 700)


def transformer() -> tuple[Any, Any, Any]:
    """Attention and layer normalisation, on a functional graph."""
    keras.utils.set_random_seed(7)
    inputs = keras.Input((4, 6))
    hidden = layers.LayerNormalization()(inputs + layers.MultiHeadAttention(2, 3, dropout=0.1)(inputs, inputs))
    model = keras.Model(inputs, layers.Dense(1)(layers.GlobalAveragePooling1D()(hidden)))
    model.compile(optimizers.Lion(1e-3), "mse")
    generator = np.random.default_rng(3)
    return (
        model,
        generator.normal(size=(700, 4, 6)).astype("float32"),
        generator.normal(size=(700, 1)).astype("float32"),
    )


def adapted() -> tuple[Any, Any, Any]:
    """A layer that keeps a view of a variable's memory."""
    x, _ = regression_data(700)
    normalization = layers.Normalization()
    normalization.adapt(x)
    return compiled(lambda: optimizers.Adam(1e-2), lambda: layers.Dense(6), lambda: normalization)()


def mixed() -> tuple[Any, Any, Any]:
    """float16, whose loss scale grows and shrinks."""
    keras.utils.set_random_seed(7)
    inputs = keras.Input((6,))
    hidden = layers.Dense(8, activation="relu", dtype=keras.DTypePolicy("mixed_float16"))(inputs)
    model = keras.Model(inputs, layers.Dense(1, dtype="float32")(hidden))
    scale = optimizers.LossScaleOptimizer(optimizers.Adam(1e-2), initial_scale=2.0**22, dynamic_growth_steps=5)
    model.compile(scale, "mse")
    return model, *regression_data(700)


def warm_up() -> Any:
    return optimizers.schedules.CosineDecay(5e-2, decay_steps=60, warmup_target=6e-2, warmup_steps=17)


CASES: dict[str, Callable[[], tuple[Any, Any, Any]]] = {
    "accumulation": compiled(lambda: optimizers.Adam(1e-2, gradient_accumulation_steps=50)),
    "averages": compiled(lambda: optimizers.Adam(1e-2, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=50)),
    "batch norm": compiled(lambda: optimizers.AdamW(1e-2), layers.BatchNormalization),
    "dropout": compiled(lambda: optimizers.RMSprop(1e-2, momentum=0.5, centered=True), lambda: layers.Dropout(0.3)),
    "seeded": compiled(
        lambda: optimizers.Nadam(1e-2), lambda: layers.Dropout(0.3, seed=5), lambda: layers.GaussianNoise(0.1, seed=2)
    ),
    "seeded adam": compiled(lambda: optimizers.Adam(1e-2, amsgrad=True), lambda: layers.Dropout(0.3, seed=5)),
    "noise": compiled(lambda: optimizers.Adamax(1e-2), lambda: layers.GaussianNoise(0.1)),
    "warm-up": compiled(lambda: optimizers.SGD(warm_up(), momentum=0.8, nesterov=True)),
    "restarts": compiled(lambda: optimizers.SGD(optimizers.schedules.CosineDecayRestarts(1e-2, 13))),
    "clipped": compiled(lambda: optimizers.SGD(1e-2, clipnorm=0.3), loss="huber"),
    "added loss": compiled(lambda: optimizers.Adagrad(1e-1), lambda: PenalisedDense(4, kernel_regularizer="l2")),
    "pieces": compiled(
        lambda: optimizers.Adam(optimizers.schedules.PiecewiseConstantDecay([30, 70], [1e-2, 1e-3, 5e-2]))
    ),
    "hinge": compiled(lambda: optimizers.Adadelta(1e-1), loss="hinge", metrics=("hinge",)),
    "classifier": classifier,
    "transformer": transformer,
    "adapted": adapted,
    "mixed": mixed,
}
NOT_CAPTURED = {"seeded": "it reads a tensor into Python"}


def rows(first: int, count: int) -> Any:
    return np.arange(first * SIZE, (first + count) * SIZE) % 700


def train(
    make: Callable[[], tuple[Any, Any, Any]],
    plan: str | None,
    cuts: list[int],
    between: Callable[[Any, int], None] = lambda model, step: None,
) -> tuple[Any, dict[str, Any], Any]:
    """Return the plan, all state bits and the last logs after training in dispatches of the given lengths."""
    model, x, y = make()
    engine = make_engine(model)
    engine.build((x[:SIZE], y[:SIZE]))
    chosen = engine.prepare((x[:SIZE], y[:SIZE]), plan=plan)
    step = 0
    logs: dict[str, Any] = {}
    for count in cuts:
        between(model, step)
        logs = engine.train(Block(count=count, samples=SIZE, arrays=(x, y), rows=rows(step, count))).logs()
        step += count
    bits = state_bits(model)
    bits["generators"] = ("", (), repr(randomness.take()).encode())
    return chosen, bits, logs


@pytest.mark.parametrize("name", CASES)
def test_a_captured_step_gives_the_bits_of_the_step_itself(name: str) -> None:
    """Over more steps than any branch of the step waits for, replayed or not, however it is cut."""
    plan, bits, logs = train(CASES[name], None, [40, 1, 1, 28, 50])
    assert plan.kind == ("stepwise" if name in NOT_CAPTURED else "fused"), plan.reason
    assert NOT_CAPTURED.get(name, "") in plan.reason
    _, expected, expected_logs = train(CASES[name], "stepwise", [STEPS])
    assert differing(bits, expected) == []
    assert logs == expected_logs


@pytest.mark.parametrize("name", ["batch norm", "classifier", "transformer"])
def test_evaluating_and_predicting_give_the_bits_of_the_steps_themselves(name: str) -> None:
    """Captured or not, a test step and a predict step give the same."""
    found = []
    for plan in (None, "stepwise"):
        model, x, y = CASES[name]()
        engine = make_engine(model)
        engine.build((x[:SIZE], y[:SIZE]))
        engine.prepare((x[:SIZE], y[:SIZE]), plan=plan)
        logs = [
            engine.test(Block(count=20, samples=SIZE, arrays=(x, y), rows=rows(first, 20))).logs() for first in (0, 20)
        ]
        outputs = engine.predict(Block(count=20, samples=SIZE, arrays=(x,), rows=rows(0, 20)))
        found.append((logs, [output.tobytes() for output in outputs], state_bits(model)))
    assert found[0] == found[1]


def set_rate(model: Any, step: int) -> None:
    model.optimizer.learning_rate = 1e-2 / (1 + step)


def set_attribute(model: Any, step: int) -> None:
    next(layer for layer in model.layers if isinstance(layer, layers.Dropout)).rate = 0.1 + step / 300


def freeze(model: Any, step: int) -> None:
    model.optimizer.beta_1 = 0.9 if step < 60 else 0.5


@pytest.mark.parametrize("between", [set_rate, set_attribute, freeze])
def test_what_changes_between_dispatches_is_honoured(between: Callable[[Any, int], None]) -> None:
    """A rate, an attribute of a layer and one of the optimizer, changed as a callback would."""
    make = compiled(lambda: optimizers.Adam(1e-2), lambda: layers.Dropout(0.3))
    cuts = [20] * 6
    plan, bits, _ = train(make, None, cuts, between)
    assert plan.kind == "fused"
    _, expected, _ = train(make, "stepwise", cuts, between)
    assert differing(bits, expected) == []
    _, other, _ = train(make, "stepwise", cuts)
    assert differing(bits, other) != []


SCALE = 1.0
NAMESPACE = SimpleNamespace(alpha=1.0)


def closure() -> tuple[Callable[[], float], Callable[[float], None]]:
    value = 1.0

    def get() -> float:
        return value

    def put(new: float) -> None:
        nonlocal value
        value = new

    return get, put


scale_of, set_scale = closure()


class Scaled(keras.Model):
    """A train step of its own, which reads whatever it likes."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.out = layers.Dense(1)
        self.how = how
        self.alpha = 1.0
        self.table = np.ones(3, "float32")
        self.tensor = torch.ones(())
        self.settings = {"alpha": 1.0}
        self.count = 0
        self.seen: list[Any] = []

    def call(self, x: Any) -> Any:
        return self.out(x)

    def factor(self, loss: Any) -> Any:
        """Return what the loss is multiplied by."""
        match self.how:
            case "attribute":
                return self.alpha
            case "array":
                return float(self.table[0])
            case "tensor":
                return self.tensor
            case "container":
                return self.settings["alpha"]
            case "global":
                return SCALE
            case "namespace":
                return NAMESPACE.alpha
            case "closure":
                return scale_of()
            case "value":
                return 2.0 if loss > 1 else 1.0
            case "host":
                return float(loss.detach().numpy()) / 10 + 1.0
            case "counter":
                self.count += 1
                return self.count / 10
            case "list":
                self.seen.append(loss.detach())
                return 1.0
            case "random":
                return np.random.random()
        raise AssertionError(self.how)

    def train_step(self, data: Any) -> Any:
        x, y = data
        self.zero_grad()
        loss = keras.ops.mean((self(x) - y) ** 2)
        loss = loss * self.factor(loss)
        loss.backward()
        with torch.no_grad():
            self.optimizer.apply([v.value.grad for v in self.trainable_weights], self.trainable_weights)
        return {"loss": loss}


def scaled(how: str) -> Callable[[], tuple[Any, Any, Any]]:
    def make() -> tuple[Any, Any, Any]:
        keras.utils.set_random_seed(7)
        model = Scaled(how)
        model.compile(optimizers.SGD(1e-2))
        return model, *regression_data(700)

    return make


def change(model: Any, step: int) -> None:
    """Change everything that a step may read."""
    global SCALE
    value = 1.0 + step // 40
    model.alpha = model.settings["alpha"] = SCALE = value
    model.table[0] = NAMESPACE.alpha = value
    set_scale(value)
    model.tensor = torch.tensor(value)


@pytest.mark.parametrize("how", ["attribute", "array", "tensor", "container", "global", "namespace", "closure"])
def test_what_a_train_step_reads_may_change_between_dispatches(how: str) -> None:
    """Numbers, arrays and tensors in attributes, containers and modules are honoured when a callback sets them."""
    plan, bits, _ = train(scaled(how), None, [20] * 6, change)
    assert plan.kind == "fused", plan.reason
    _, expected, _ = train(scaled(how), "stepwise", [20] * 6, change)
    assert differing(bits, expected) == []
    _, other, _ = train(scaled(how), "stepwise", [20] * 6, lambda model, step: change(model, 0))
    assert differing(bits, other) != []


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("value", "reads a tensor into Python"),
        ("host", "reads a tensor into Python"),
        ("counter", "changes Scaled.count"),
        ("list", "changes Scaled"),
        ("random", "draws from a random generator of Python or NumPy"),
    ],
)
def test_a_step_in_which_python_decides_is_not_captured(how: str, reason: str) -> None:
    """It runs as it is written, the plan says why, and nothing is left of the attempt."""
    plan, bits, _ = train(scaled(how), None, [20] * 6)
    assert plan.kind == "stepwise"
    assert reason in plan.reason
    _, expected, _ = train(scaled(how), "stepwise", [20] * 6)
    assert differing(bits, expected) == []


def test_capturing_leaves_no_trace() -> None:
    """Variables, gradients, attributes and random generators are after it as they were before."""
    model, x, y = CASES["dropout"]()
    engine = make_engine(model)
    engine.build((x[:SIZE], y[:SIZE]))
    before = state_bits(model), randomness.take(), [v.value.grad for v in model.trainable_variables]
    assert engine.prepare((x[:SIZE], y[:SIZE])).kind == "fused"
    assert differing(state_bits(model), before[0]) == []
    assert randomness.take() == before[1]
    assert [v.value.grad for v in model.trainable_variables] == before[2]


def test_a_block_in_which_a_step_fails_counts_for_nothing() -> None:
    """Variables and PyTorch's generator are as they were before it."""

    class Failing(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.out = layers.Dense(1)
            self.drop = layers.Dropout(0.5)

        def call(self, x: Any) -> Any:
            return self.out(self.drop(x))

        def train_step(self, data: Any) -> Any:
            logs = super().train_step(data)
            if float(data[0][0, 0]) > 100:
                raise ArithmeticError("too large")
            return logs

    model = Failing()
    model.compile("adam", "mse")
    x, y = regression_data()
    x[45] = 1000.0
    engine = make_engine(model)
    engine.build((x[:5], y[:5]))
    assert engine.prepare((x[:5], y[:5])).kind == "stepwise"
    before = state_bits(model), randomness.take()
    with pytest.raises(ArithmeticError):
        engine.train(Block(count=14, samples=5, arrays=(x, y), rows=np.arange(70)))
    assert differing(state_bits(model), before[0]) == []
    assert randomness.take() == before[1]
    assert not engine.is_lost()


def test_modules_are_told_whether_they_train() -> None:
    """A PyTorch module inside a model is in training mode in training steps only."""
    seen: list[bool] = []

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = torch.nn.Dropout(0.5)

        def forward(self, x: Any) -> Any:
            seen.append(self.drop.training)
            return self.drop(x)

    keras.utils.set_random_seed(7)
    model = keras.Sequential([keras.Input((6,)), layers.TorchModuleWrapper(Module()), layers.Dense(1)])
    model.compile("adam", "mse")
    x, y = regression_data()
    engine = make_engine(model)
    engine.build((x[:SIZE], y[:SIZE]))
    engine.prepare((x[:SIZE], y[:SIZE]), plan="stepwise")
    block = Block(count=2, samples=SIZE, arrays=(x, y), rows=rows(0, 2))
    for run, training in ((engine.train, True), (engine.test, False), (engine.train, True)):
        seen.clear()
        run(block)
        assert set(seen) == {training}
    assert not model.training


def test_tensors_that_keras_does_not_count_are_told() -> None:
    """The statistics of a wrapped module are in no checkpoint: the fit is marked, and a warning says so."""
    layers = [keras.Input((6,)), keras.layers.TorchModuleWrapper(torch.nn.BatchNorm1d(6)), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile("sgd", "mse")
    x = np.ones((20, 6), "float32")
    with keepfit.Run(model) as run:
        with pytest.warns(keepfit.errors.KeepfitWarning, match=r"3 tensors that Keras does not count, .*running_mean"):
            run.fit(x, x[:, :1], verbose=0)
        assert len(run.recorder.fits[1].approximate) == 1


class Counting(keras.Model):
    """Counts its steps in an attribute, as a step of the user's own may."""

    def __init__(self) -> None:
        super().__init__()
        self.out = layers.Dense(1)
        self.steps = 0

    def call(self, x: Any) -> Any:
        return self.out(x)

    def train_step(self, data: Any) -> Any:
        self.steps += 1
        return super().train_step(data)


def counting() -> tuple[Any, Any, Any]:
    keras.utils.set_random_seed(7)
    model = Counting()
    model.compile("adam", "mse")
    return model, *regression_data(700)


STEPWISE = {
    "dropout": (compiled(optimizers.Adam, layers.BatchNormalization, lambda: layers.Dropout(0.3)), True),
    "a module of PyTorch's": (compiled("sgd".lower, lambda: layers.TorchModuleWrapper(torch.nn.BatchNorm1d(8))), False),
    "a step of the user's own": (counting, False),
}


@pytest.mark.parametrize("verb", ["train", "test"])
@pytest.mark.parametrize("name", STEPWISE)
def test_a_pinned_step_is_tried_out_where_that_leaves_no_trace(
    name: str, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs once before anything is trained, so that wrong data is found; state and generators are as before."""
    make, is_tried = STEPWISE[name]
    model, x, y = make()
    ran = []
    run_once = torch_library.Library._run_once

    def counted(*given: Any) -> None:
        ran.append(given)
        run_once(*given)

    monkeypatch.setattr(torch_library.Library, "_run_once", counted)
    engine = make_engine(model)
    engine.build((x[:SIZE], y[:SIZE]))

    def state() -> Any:
        buffers = {key: value.numpy().tobytes() for key, value in model.named_buffers()}
        return state_bits(model), buffers, randomness.take(), getattr(model, "steps", 0)

    before = state()
    for _ in range(2):
        engine.prepare((x[:SIZE], y[:SIZE]), plan="stepwise", verb=verb)
        assert state() == before
    assert len(ran) == (is_tried or (verb == "test" and name == "a step of the user's own"))


def test_a_setting_that_is_left_aside_is_said_once() -> None:
    """With jit_compile=True Keras calls torch.compile; keepfit says that it does not, and gives the same bits."""
    found = []
    for compiles in (True, False):
        model, x, y = CASES["averages"]()
        model.jit_compile = compiles
        with keepfit.Run(model) as run, warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            for _ in range(2):
                run.fit(x, y, batch_size=SIZE, verbose=0)
        found.append(state_bits(model))
        assert len([each for each in told if "torch.compile" in str(each.message)]) == compiles
    assert differing(*found) == []


def test_an_optimizer_of_pytorchs_in_a_step_is_told() -> None:
    """Its state is in no checkpoint, which is said as soon as it is there."""

    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.out = layers.Dense(1)
            self.stepper: Any = None

        def call(self, x: Any) -> Any:
            return self.out(x)

        def train_step(self, data: Any) -> Any:
            if self.stepper is None:
                self.stepper = torch.optim.Adam(self.parameters())
            self.stepper.zero_grad()
            loss = keras.ops.mean((self(data[0]) - data[1]) ** 2)
            loss.backward()
            self.stepper.step()
            return {"loss": loss}

    model = Own()
    model.compile("adam", "mse")
    x, y = regression_data(20)
    with keepfit.Run(model) as run:
        run.fit(x, y, verbose=0)
        with pytest.warns(keepfit.errors.KeepfitWarning, match=r"Own.stepper is an optimizer of PyTorch's"):
            run.fit(x, y, verbose=0)
        assert run.recorder.fits[2].approximate
