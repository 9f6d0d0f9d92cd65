"""What only TensorFlow's engine can get wrong: steps that fail within, XLA, hidden generators, its tensors."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keepfit
from keepfit import _keras, held
from keepfit.engine import Block, make_engine
from keepfit.engine.program import _KEPT_KEYS
from keepfit.errors import EngineError, KeepfitWarning
from tests.bits import differing, state_bits
from tests.models import make, regression_data

if keras.backend.backend() != "tensorflow":
    pytest.skip("TensorFlow's own", allow_module_level=True)

import tensorflow as tf

from keepfit.engine import graph
from keepfit.engine.tensorflow import _Step
from keepfit.engine.tensors import Spec

SIZE = 10


def prepared(model: Any, x: Any, y: Any, plan: str = "fused") -> Any:
    """Return an engine ready to train a model on arrays."""
    engine = make_engine(model)
    engine.build((x[:SIZE], y[:SIZE]))
    engine.prepare((x[:SIZE], y[:SIZE]), plan=plan)
    return engine


def block(x: Any, y: Any, first: int, count: int) -> Block:
    """Return steps of unshuffled arrays."""
    return Block(count=count, samples=SIZE, arrays=(x, y), rows=np.arange(first * SIZE, (first + count) * SIZE))


def embedding() -> tuple[Any, Any, Any]:
    """Return a model whose step fails for numbers that it does not know, on arrays of numbers that it knows."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((2,), dtype="int32"),
            keras.layers.Embedding(9, 4),
            keras.layers.Dropout(0.3),
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.Adam(1e-2), "mse", metrics=["mae"])
    generator = np.random.default_rng(1)
    return model, generator.integers(0, 9, (70, 2)).astype("int32"), generator.normal(size=(70, 1)).astype("float32")


@pytest.mark.parametrize("plan", ["fused", "stepwise", "eager"])
def test_a_block_counts_whole_or_not_at_all(plan: str) -> None:
    """Where the third of five steps fails, every variable is as it was, and training goes on from there."""
    model, x, y = embedding()
    model.run_eagerly = plan == "eager"
    engine = prepared(model, x, y, plan)
    engine.train(block(x, y, 0, 2))
    before = state_bits(model)
    bad = x.copy()
    bad[45] = 77
    with pytest.raises(tf.errors.InvalidArgumentError):
        engine.train(block(bad, y, 2, 5))
    assert differing(state_bits(model), before) == []
    assert not engine.is_lost()
    engine.train(block(x, y, 2, 5))
    unharmed, x, y = embedding()
    unharmed.run_eagerly = plan == "eager"
    whole = prepared(unharmed, x, y, plan)
    whole.train(block(x, y, 0, 2))
    whole.train(block(x, y, 2, 5))
    assert differing(state_bits(model), state_bits(unharmed)) == []


def test_a_large_state_that_is_half_written_comes_back_from_the_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state that is not held is lost by a step that fails; the run brings the model back, and goes on exactly."""
    monkeypatch.setattr("keepfit.engine.tensorflow._HELD_BYTES", 0)
    model, x, y = embedding()
    bad = x.copy()
    bad[45] = 77
    given = {"batch_size": SIZE, "shuffle": False, "verbose": 0}
    with keepfit.Run(model, plan="fused") as run:
        run.fit(x, y, **given)
        before = state_bits(model)
        with pytest.raises(EngineError, match="half-written"), pytest.warns(KeepfitWarning, match="brought back"):
            run.fit(bad, y, **given)
        assert differing(state_bits(model), before) == []
        run.fit(x, y, **given)
    whole, x, y = embedding()
    with keepfit.Run(whole, plan="fused") as run:
        run.fit(x, y, epochs=2, **given)
    assert differing(state_bits(model), state_bits(whole)) == []


class FailsOnce(keras.layers.Layer):
    """Raises in the first step of the second epoch of three steps, once."""

    def __init__(self, fails: bool) -> None:
        super().__init__()
        self._calls = 0 if fails else 4

    def call(self, x: Any) -> Any:
        y = tf.py_function(self._count, [x], x.dtype)
        y.set_shape(x.shape)
        return y

    def _count(self, x: Any) -> Any:
        self._calls += 1
        if self._calls == 4:
            raise RuntimeError("no more today")
        return tf.identity(x)


@pytest.mark.parametrize("plan", ["fused", "stepwise"])
def test_an_epoch_whose_first_step_fails_goes_on_with_metrics_that_begin_anew(plan: str) -> None:
    """That a program is to begin the metrics is not lost where it fails: the same call ends the fit as if whole."""
    x, y = regression_data()
    told = []
    for fails in (False, True):
        keras.utils.set_random_seed(5)
        model = keras.Sequential([keras.Input((6,)), FailsOnce(fails), keras.layers.Dense(1)])
        model.compile(keras.optimizers.Adam(0.1), "mse", metrics=["mae"])
        with keepfit.Run(model, plan=plan) as run:
            given = {"batch_size": 7, "epochs": 3, "shuffle": False, "verbose": 0}
            if fails:
                with pytest.raises(tf.errors.OpError, match="no more today"):
                    run.fit(x[:21], y[:21], **given)
                assert all(np.all(np.asarray(v) == 0) for v in held.values(model.metrics_variables))
            told.append(run.fit(x[:21], y[:21], **given).history)
            told.append(state_bits(model))
    assert told[0] == told[2]
    assert differing(told[1], told[3]) == []


@pytest.mark.parametrize("name", ["plain_dense", "dropout_batch_norm", "mixed_precision", "gradient_accumulation"])
@pytest.mark.parametrize("plan", ["fused", "stepwise"])
def test_cutting_changes_no_bit_under_xla(name: str, plan: str) -> None:
    """With jit_compile=True, too, however steps are cut into dispatches, state and logs are the same."""
    found = []
    for cuts in ([7], [1, 4, 2]):
        model, x, y = make(name)
        model.jit_compile = True
        engine = prepared(model, x, y, plan)
        first = 0
        for count in cuts:
            logs = engine.train(block(x, y, first, count)).logs()
            first += count
        found.append((logs, state_bits(model)))
    assert found[0][0] == found[1][0]
    assert differing(found[0][1], found[1][1]) == []


class Drawing(keras.layers.Layer):
    """Draws with an operation of TensorFlow."""

    def call(self, x: Any, training: bool = False) -> Any:
        return x + tf.random.normal(tf.shape(x)) if training else x


class Counting(keras.layers.Layer):
    """Writes to a variable that Keras does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = tf.Variable(0.0, trainable=False)

    def call(self, x: Any) -> Any:
        self.calls.assign_add(1.0)
        return x


@pytest.mark.parametrize(
    ("layer", "words"),
    [(Drawing, "RandomStandardNormal"), (Counting, "variables that are not the model's"), (None, None)],
)
def test_what_no_checkpoint_can_hold_is_said(layer: Any, words: str | None) -> None:
    """A generator inside an operation, and variables that Keras does not count, make a resume approximate."""
    middle = [keras.layers.Dropout(0.5)] if layer is None else [layer()]
    model = keras.Sequential([keras.Input((6,)), *middle, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x, y = regression_data()
    with keepfit.Run(model) as run:
        if words is None:
            run.fit(x, y, verbose=0)
            assert run.recorder.fits[1].approximate == []
            return
        with pytest.warns(KeepfitWarning, match=words):
            run.fit(x, y, verbose=0)
        assert words in run.recorder.fits[1].approximate[0]


@pytest.mark.parametrize("plan", ["fused", "stepwise"])
def test_what_was_read_of_a_variable_stays(plan: str) -> None:
    """A value that is held is neither changed by training nor by assigning, and put back it is all there again."""
    model, x, y = make("dropout_batch_norm")
    engine = prepared(model, x, y, plan)
    values = engine.variables.values()
    assert all(engine.variables.values()[name] is value for name, value in values.items())
    before = {name: np.array(value) for name, value in values.items()}
    engine.train(block(x, y, 0, 3))
    engine.variables.trainable[0].assign_add(keras.ops.ones(engine.variables.trainable[0].shape))
    assert all(np.array_equal(np.asarray(value), before[name]) for name, value in values.items())
    assert any(value is not values[name] for name, value in engine.variables.values().items())
    assert engine.variables.assign(values) == []
    assert {name: np.asarray(value).tobytes() for name, value in engine.variables.values().items()} == {
        name: value.tobytes() for name, value in before.items()
    }


def test_a_value_of_equal_bits_is_the_same() -> None:
    """Writing what is there already is no change; a value written through Keras is."""
    variable = keras.Variable(np.ones((3,), "float32"))
    first = held.value(variable)
    variable.assign(np.ones((3,), "float32"))
    assert held.value(variable) is first
    variable.assign([1.0, 2.0, 3.0])
    assert held.value(variable) is not first
    held.set_value(variable, first)
    assert keras.ops.convert_to_numpy(variable).tolist() == [1.0, 1.0, 1.0]


def text() -> tuple[Any, Any]:
    words = np.array(["one", "two", "three", "two", "one", "one", "four"] * 3, dtype=object)[:, None]
    layer = keras.layers.StringLookup(vocabulary=["one", "two", "three"], output_mode="multi_hot")
    return keras.Sequential([keras.Input((1,), dtype="string"), layer, keras.layers.Dense(1)]), tf.constant(words)


def sparse() -> tuple[Any, Any]:
    scipy_sparse = pytest.importorskip("scipy.sparse")
    x = scipy_sparse.random(21, 6, 0.3, format="csr", random_state=1).astype("float32")
    return keras.Sequential([keras.Input((6,), sparse=True), keras.layers.Dense(1)]), x


def ragged() -> tuple[Any, Any]:
    class Mean(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.out = keras.layers.Dense(1)

        def call(self, x: Any) -> Any:
            return self.out(x.to_tensor(shape=(None, 4)) if isinstance(x, tf.RaggedTensor) else x[:, :4])

        def build(self, shape: Any) -> None:
            self.out.build((None, 4))

    return Mean(), tf.ragged.constant([[1.0] * (1 + row % 4) for row in range(21)])


@pytest.mark.parametrize("kind", [text, sparse, ragged])
def test_what_only_tensorflow_has_is_trained_on(kind: Any) -> None:
    """Text, sparse and ragged arrays are fed as Keras feeds them: the same losses, whole or cut."""
    y = np.arange(21, dtype="float32")[:, None] / 21
    losses = []
    for cuts in ([3], [1, 2], None):
        keras.utils.set_random_seed(1)
        model, x = kind()
        model.compile(keras.optimizers.SGD(0.1), "mse")
        if cuts is None:
            losses.append(model.fit(x, y, batch_size=7, epochs=3, shuffle=False, verbose=0).history["loss"])
            continue
        with keepfit.Run(model) as run:
            parts = [run.fit(x, y, batch_size=7, epochs=e, shuffle=False, verbose=0).history["loss"] for e in cuts]
            assert run.predict(x, batch_size=7).shape == (21, 1)
            assert run.recorder.fits[1].plan["plan"] == "stepwise"
        losses.append([loss for part in parts for loss in part])
    assert losses[0] == losses[1]
    np.testing.assert_allclose(losses[0], losses[2], rtol=1e-5)


@pytest.mark.parametrize("kind", [sparse, ragged])
def test_generators_may_give_sparse_and_ragged_batches(kind: Any) -> None:
    """Batches that a generator made are fed as they are, and give what Keras's fit gives."""
    losses = []
    for attached in (True, False):
        keras.utils.set_random_seed(1)
        model, x = kind()
        x = _keras.native_rows(x, slice(0, 21)) if kind is ragged else tf.sparse.from_dense(x.toarray())
        y = np.arange(21, dtype="float32")[:, None] / 21
        model.compile(keras.optimizers.SGD(0.1), "mse")
        fit = keepfit.Run(model).fit if attached else model.fit
        losses.append(fit(((x, y) for _ in range(3)), steps_per_epoch=3, shuffle=False, verbose=0).history["loss"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


@pytest.mark.parametrize(
    "outputs",
    [
        lambda x: tf.RaggedTensor.from_tensor(x, padding=0.0),
        lambda x: tf.sparse.from_dense(x),
        lambda x: x[:, : tf.reduce_max(tf.cast(x[:, 0], "int32"))],
        lambda x: x[:, : tf.reduce_max(tf.cast(x[:, 0], "int32")), None],
        lambda x: {"mean": tf.reduce_mean(x), "whole": x},
    ],
)
def test_predictions_of_every_kind_are_those_of_keras(outputs: Any) -> None:
    """Ragged and sparse outputs stay so, rows of other lengths from batch to batch become ragged, scalars a vector."""
    x = np.minimum.outer(np.arange(1, 11), np.array([4, 1, 0, 2])).astype("float32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(outputs)])
    model.compile("sgd", "mse")
    model.run_eagerly = True
    expected = model.predict(x, batch_size=3, verbose=0)
    with keepfit.Run(model) as run:
        got = run.predict(x, batch_size=3)
        one = run.predict_on_batch(x)
    got, expected = [got, one], [expected, model.predict_on_batch(x)]
    for ours, theirs in zip(keras.tree.flatten(got), keras.tree.flatten(expected), strict=True):
        assert type(ours) is type(theirs) or np.ndim(theirs) == 0
        if isinstance(theirs, tf.SparseTensor):
            ours, theirs = tf.sparse.to_dense(ours), tf.sparse.to_dense(theirs)
        if isinstance(theirs, tf.RaggedTensor):
            assert ours.ragged_rank == theirs.ragged_rank
            ours, theirs = ours.to_list(), theirs.to_list()
        assert np.array_equal(ours, theirs) if not isinstance(theirs, list) else ours == theirs


class Summaries(keras.callbacks.Callback):
    """Offers a summary writer while a fit lasts, as a TensorBoard with ``update_freq=1`` does."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.writer = tf.summary.create_file_writer(str(directory))

    def get_state(self) -> Any:
        return {}

    def set_state(self, state: Any) -> None:
        pass

    def on_train_begin(self, logs: Any = None) -> None:
        self.context = self.writer.as_default(step=0)
        self.context.__enter__()

    def on_train_end(self, logs: Any = None) -> None:
        self.context.__exit__(None, None, None)
        self.writer.close()


@pytest.mark.parametrize("plan", ["fused", "stepwise"])
def test_summaries_of_a_layer_reach_the_writer_of_each_fit(plan: str, tmp_path: Path) -> None:
    """Every training step writes, wherever it was traced before, and none writes to the writer of an earlier fit."""

    class Noted(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            tf.summary.write("noted", tf.reduce_sum(x), step=0)
            return x

    model = keras.Sequential([keras.Input((3,)), Noted(), keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
    x, y = np.ones((40, 3), "float32"), np.ones((40, 1), "float32")
    with keepfit.Run(model, plan=plan) as run:
        run.fit(x, y, batch_size=10, verbose=0)
        for fit in ("second", "third"):
            callback = Summaries(tmp_path / fit)
            run.fit(x, y, batch_size=10, verbose=0, callbacks=[callback])
        run.fit(x, y, batch_size=10, verbose=0)
    for fit in ("second", "third"):
        records = tf.data.TFRecordDataset([str(path) for path in (tmp_path / fit).iterdir()])
        assert sum(b"noted" in record.numpy() for record in records) == 4


class OnlyStepped(keras.Model):
    """A model without ``call``, as generative models are written for TensorFlow."""

    def __init__(self, *, is_built: bool) -> None:
        super().__init__()
        layers = [keras.layers.Dense(8, "relu"), keras.layers.Dropout(0.3), keras.layers.Dense(3)]
        self.net = keras.Sequential([keras.Input((3,)), *layers] if is_built else layers)
        self.tracker = keras.metrics.Mean(name="loss")

    @property
    def metrics(self) -> list[Any]:
        return [self.tracker]

    def train_step(self, x: Any) -> dict[str, Any]:
        with tf.GradientTape() as tape:
            loss = keras.ops.mean(keras.ops.square(self.net(x, training=True) - x))
        weights = self.net.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        self.tracker.update_state(loss)
        return {"loss": self.tracker.result()}


@pytest.mark.parametrize("is_built", [True, False])
@pytest.mark.parametrize("loss", [None, "mse"])
def test_a_model_that_cannot_be_called_trains_as_keras_trains_it(
    tmp_path: Path, loss: str | None, *, is_built: bool
) -> None:
    """It is built by its step, has the bits that Keras gives it, and goes on from a folder."""
    x = np.random.default_rng(0).normal(size=(50, 3)).astype("float32")

    def built() -> Any:
        keras.utils.set_random_seed(5)
        model = OnlyStepped(is_built=is_built)
        model.compile(keras.optimizers.Adam(1e-2), loss)
        return model

    def fit(model: Any, epochs: int) -> list[float]:
        losses: list[float] = model.fit(x, epochs=epochs, batch_size=10, shuffle=False, verbose=0).history["loss"]
        return losses

    whole = built()
    losses = fit(whole, 4)
    first = keepfit.attach(built(), tmp_path)
    assert fit(first, 2) == losses[:2]
    first.run.close()
    second = keepfit.attach(built(), tmp_path)
    assert fit(second, 2) == losses[:2]
    assert fit(second, 2) == losses[2:]
    assert all(np.array_equal(*pair) for pair in zip(second.get_weights(), whole.get_weights(), strict=True))


def test_several_devices_are_refused() -> None:
    """A model for several replicas is refused before anything is done."""
    cpu = tf.config.list_physical_devices("CPU")
    if len(tf.config.list_logical_devices("CPU")) < 2:
        pytest.skip(f"one logical device of {len(cpu)}")
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model, *_ = make("plain_dense")
    with pytest.raises(EngineError, match="2 replicas"):
        make_engine(model)


@pytest.mark.parametrize("forgets", [True, False], ids=["", "control"])
def test_a_compiled_step_long_out_of_use_is_let_go(monkeypatch: pytest.MonkeyPatch, *, forgets: bool) -> None:
    """Where every fit has a schedule of its own, the traced functions of old ones leave memory."""
    if not forgets:
        monkeypatch.setattr("keepfit.engine.graph.forget_gradients", lambda _: None)
    model, x, y = make("plain_dense")
    with keepfit.Run(model) as run:
        held = []
        for fit in range(2 * _KEPT_KEYS + 2):
            model.optimizer.learning_rate = keras.optimizers.schedules.CosineDecay(1e-3 + fit * 1e-5, 10_000)
            run.fit(x, y, batch_size=SIZE, verbose=0)
            engine = run.engine
            held += [weakref.ref(step.function.graph) for step in engine._programs.values() if isinstance(step, _Step)]
            del engine
        gc.collect()
        alive = sum(graph() is not None for graph in held)
    assert (alive <= _KEPT_KEYS) is forgets


def test_a_fit_call_builds_no_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keras's own call builds a graph of ``tf.data`` each time, which takes longer than the steps of a small model."""
    built: list[Any] = []
    real = tf.data.Dataset.__init__
    monkeypatch.setattr(tf.data.Dataset, "__init__", lambda self, variant: (built.append(self), real(self, variant))[1])
    model, x, y = make("plain_dense")
    with keepfit.Run(model) as run:
        for _ in range(2):
            run.fit(x, y, validation_split=0.2, batch_size=SIZE, verbose=0)
        run.evaluate(x, y, verbose=0)
    assert built == []
    model.fit(x, y, batch_size=SIZE, verbose=0)
    assert built  # the control


def test_a_traced_step_is_called_past_the_search_for_its_arguments() -> None:
    """Called with its tensors it gives what TensorFlow's own call gives, in the structure of the step's result."""
    model, x, y = make("plain_dense")
    model.build((None, x.shape[1]))
    batch = (tf.constant(x[:SIZE]), tf.constant(y[:SIZE]))
    for name in ("test", "predict"):
        _keras.build(model, batch)
        given = batch if name == "test" else batch[:1]
        step = _Step(model, name, Spec(given))
        assert type(step.call) is graph._Call
        model.reset_metrics()
        expected = step.function(*given)
        model.reset_metrics()
        found = step.call(*given)
        tf.nest.assert_same_structure(found, expected)
        pairs = zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True)
        assert all(np.array_equal(one, other) for one, other in pairs)


def test_a_ragged_step_is_called_as_it_is() -> None:
    """Tensors that are more than one array each are left to TensorFlow's own call."""
    spec = tf.RaggedTensorSpec([None, None], tf.float32, 1)
    function = tf.function(lambda ragged: ragged * 2.0).get_concrete_function(spec)
    assert graph.call_of(function) is function


def test_specs_of_arrays_and_tensors_are_one() -> None:
    """A step that was traced for arrays serves the tensors made of them; other shapes and dtypes are others."""
    array = np.ones((3, 2), "float32")
    assert Spec((array, None)) == Spec((tf.constant(array), None))
    assert hash(Spec((array, None))) == hash(Spec((tf.constant(array), None)))
    assert Spec((array,)).types == [tf.TensorSpec((3, 2), tf.float32)]
    others = [(array[:2],), (array.astype("float64"),), (array, None), ((array,),), ({"a": array},)]
    assert all(Spec((array,)) != Spec(other) for other in others)
