"""What every engine and every plan must hold, on tiny models."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from keepfit.engine import Block, Engine, make_engine
from tests.bits import differing, state_bits
from tests.models import make

JAX, TORCH = (keras.backend.backend() == name for name in ("jax", "torch"))
# The data may lie on the device or on the host; with PyTorch there is one way.
PLANS = [("fused", False), *([] if TORCH else [("fused", True)]), ("stepwise", False)]
SIZE = 10
only_jax = pytest.mark.skipif(not JAX, reason="only JAX gives arrays away")


def prepared(name: str, plan: str, resident: bool) -> tuple[Any, Any, Any]:
    """Return an engine ready to train a model of the list, with the data."""
    model, x, y = make(name)
    engine: Any = make_engine(model)
    if not TORCH:
        engine = type(engine)(model, resident=resident)
    batch = (x[:SIZE], y[:SIZE])
    engine.build(batch)
    assert engine.prepare(batch, plan=plan).kind == plan
    return engine, x, y


def train(engine: Engine, x: Any, y: Any, cuts: list[int]) -> dict[str, Any]:
    """Train the given numbers of steps in turn; return the last logs."""
    first = 0
    logs: dict[str, Any] = {}
    for count in cuts:
        rows = np.arange(first * SIZE, (first + count) * SIZE)
        logs = engine.train(Block(count=count, samples=SIZE, arrays=(x, y), rows=rows)).logs()
        first += count
    return logs


@pytest.mark.parametrize(("plan", "resident"), PLANS)
@pytest.mark.parametrize("cuts", [[1, 1, 1, 1, 1, 1, 1], [3, 4], [6, 1]])
def test_length_of_a_dispatch_changes_no_bit(plan: str, resident: bool, cuts: list[int]) -> None:
    """However steps are cut into dispatches, state and logs are the same."""
    whole, x, y = prepared("dropout_batch_norm", plan, resident)
    logs = train(whole, x, y, [7])
    cut, x, y = prepared("dropout_batch_norm", plan, resident)
    assert train(cut, x, y, cuts) == logs
    assert differing(state_bits(whole.model), state_bits(cut.model)) == []


@pytest.mark.parametrize(("plan", "resident"), PLANS)
def test_arrays_of_others_are_neither_deleted_nor_changed(plan: str, resident: bool) -> None:
    """Arrays that a user, a snapshot or a second variable holds survive training."""
    engine, x, y = prepared("plain_dense", plan, resident)
    kernel = engine.variables.trainable[0]
    given, host = keras.ops.ones(kernel.shape), np.ones(kernel.shape, "float32")
    kernel.assign(given)
    train(engine, x, y, [2])
    assert np.array_equal(keras.ops.convert_to_numpy(given), np.ones(kernel.shape))
    kernel.assign(host)
    train(engine, x, y, [2])
    assert np.array_equal(host, np.ones(kernel.shape))
    snapshot = engine.variables.values()
    before = {name: np.array(value) for name, value in snapshot.items()}
    train(engine, x, y, [2])
    assert all(np.array_equal(np.asarray(snapshot[name]), value) for name, value in before.items())


@pytest.mark.skipif(not JAX, reason="only arrays of JAX are given away")
@pytest.mark.parametrize(("plan", "resident"), PLANS)
def test_arrays_that_two_variables_share_survive(plan: str, resident: bool) -> None:
    """A buffer that two variables hold is not given away."""
    engine, x, y = prepared("plain_dense", plan, resident)
    train(engine, x, y, [2])
    shared = engine.variables.optimizer[-1]
    kernels = [v for v in engine.variables.optimizer if tuple(v.shape) == tuple(shared.shape)]
    for variable in kernels:
        variable._value = shared._value
    train(engine, x, y, [2])
    assert not any(v._value.is_deleted() for v in engine.variables.all())


@pytest.mark.skipif(not JAX, reason="only arrays of JAX are given away")
@pytest.mark.parametrize(("plan", "resident"), PLANS)
def test_nothing_is_copied_where_nobody_else_holds_it(
    plan: str, resident: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the second dispatch on, a training step overwrites its arrays in place."""
    engine, x, y = prepared("plain_dense", plan, resident)
    train(engine, x, y, [2])
    copied: list[int] = []
    monkeypatch.setattr("keepfit.engine.jax._copies", lambda arrays: copied.append(len(arrays)) or arrays)
    train(engine, x, y, [3])
    train(engine, x, y, [1, 1, 1])
    assert copied == []


@pytest.mark.parametrize(("plan", "resident"), PLANS)
def test_first_step_with_a_loss_that_is_not_finite_is_told(plan: str, resident: bool) -> None:
    """A NaN in the fourth batch is told as step 3, counted from 0."""
    engine, x, y = prepared("plain_dense", plan, resident)
    y = y.copy()
    y[33] = np.nan
    outcome = engine.train(Block(count=7, samples=SIZE, arrays=(x, y), rows=np.arange(70)))
    assert outcome.first_nonfinite() == 3
    engine, x, y = prepared("plain_dense", plan, resident)
    assert engine.train(Block(count=7, samples=SIZE, arrays=(x, y), rows=np.arange(70))).first_nonfinite() is None


@pytest.mark.skipif(TORCH, reason="its stepwise plan runs the model's Python in every step")
@pytest.mark.parametrize(("plan", "resident"), PLANS)
def test_second_fit_traces_nothing(plan: str, resident: bool) -> None:
    """Training again, with another rate, runs none of the model's Python."""
    engine, x, y = prepared("dropout_batch_norm", plan, resident)
    step, traced = engine.model.train_step, []

    def counted(*arguments: Any) -> Any:
        traced.append(1)
        return step(*arguments)

    engine.model.train_step = counted
    train(engine, x, y, [7])
    known = len(traced)  # none where preparing ran it already
    engine.model.optimizer.learning_rate = 1e-4
    engine.model.reset_metrics()
    engine.build((x[:SIZE], y[:SIZE]))
    engine.prepare((x[:SIZE], y[:SIZE]), plan=plan)
    train(engine, x, y, [7])
    assert len(traced) == known
    engine.prepare((x[:2], y[:2]), plan=plan)
    engine.train(Block(count=1, samples=2, arrays=(x, y), rows=np.arange(2)))
    assert len(traced) > known


@pytest.mark.skipif(not (JAX or TORCH), reason="only these tell when they compile")
@pytest.mark.parametrize(("plan", "resident"), PLANS)
def test_second_fit_compiles_nothing(plan: str, resident: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training again, with another rate, uses the programs that are there."""
    engine, x, y = prepared("dropout_batch_norm", plan, resident)
    train(engine, x, y, [7])
    engine.model.optimizer.learning_rate = 1e-4
    engine.model.reset_metrics()
    engine.build((x[:SIZE], y[:SIZE]))
    train(engine, x, y, [7])
    compiled: list[str] = []
    if JAX:
        import jax

        jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: compiled.append(name))
    else:
        monkeypatch.setattr("keepfit.engine.torch_library.record", lambda *_, **__: compiled.append("compile"))
    try:
        engine.build((x[:SIZE], y[:SIZE]))
        engine.prepare((x[:SIZE], y[:SIZE]), plan=plan)
        train(engine, x, y, [7])
    finally:
        if JAX:
            jax.monitoring.clear_event_listeners()
    assert [name for name in compiled if "compile" in name] == []


@pytest.mark.parametrize("setting", ["dropout", "optimizer", "compile"])
def test_changed_setting_gives_a_new_program(setting: str) -> None:
    """What a step has closed over is honoured when it changes between two fits."""
    engine, x, y = prepared("dropout_batch_norm", "fused", False)
    train(engine, x, y, [1])
    key = engine._key
    if setting == "dropout":
        next(layer for layer in engine.model.layers if isinstance(layer, keras.layers.Dropout)).rate = 0.9
    elif setting == "optimizer":
        engine.model.optimizer.beta_1 = 0.5
    else:
        engine.model.compile("adam", "mae")
    engine.build((x[:SIZE], y[:SIZE]))
    assert engine._key != key


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="captured steps are kept by their bytes there")
def test_programs_of_ever_new_schedules_are_let_go() -> None:
    """P5: a script that gives each fit a schedule of its own does not hold every step that was ever compiled."""
    engine, x, y = prepared("plain_dense", "fused", False)
    held_at_last = []
    for number in range(12):
        schedule = keras.optimizers.schedules.ExponentialDecay(1e-3 + number * 1e-5, 10, 0.9)
        engine.model.optimizer._learning_rate = schedule
        engine.build((x[:SIZE], y[:SIZE]))
        train(engine, x, y, [1])
        held_at_last.append(len(engine._kept))
    assert held_at_last[:3] == [1, 2, 3] or held_at_last[:3] == [2, 3, 4], "each schedule is a program of its own"
    assert max(held_at_last) == held_at_last[-1] < 12


def test_generator_may_fill_one_buffer_again_and_again() -> None:
    """A batch belongs to its source: what is written into it later does not reach a step under way."""
    results = []
    for again in (False, True):
        engine, x, y = prepared("plain_dense", "stepwise", False)
        buffer = x[:SIZE].copy()
        for step in range(6):
            rows = slice(step * SIZE, (step + 1) * SIZE)
            batch = x[rows].copy()
            if again:
                buffer[...] = batch
                batch = buffer
            engine.train(Block(count=1, samples=SIZE, batches=((batch, y[rows]),)))
            if again:
                buffer[...] = np.nan
        results.append(state_bits(engine.model))
    assert differing(*results) == []
