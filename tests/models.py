"""Models on which the promises are tested; each hides a state that is easily lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np


def regression_data(samples: int = 70, features: int = 6) -> tuple[Any, Any]:
    """Return inputs ``(samples, features)`` and targets ``(samples, 1)`` that depend on them."""
    generator = np.random.default_rng(11)
    x = generator.normal(size=(samples, features)).astype("float32")
    y = (x @ generator.normal(size=(features, 1)) + generator.normal(size=(samples, 1))).astype("float32")
    return x, y


def plain_dense() -> tuple[Any, Any, Any]:
    """Adam, no randomness in the step."""
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(1e-2), "mse", metrics=["mae"])
    return model, *regression_data()


def dropout_batch_norm() -> tuple[Any, Any, Any]:
    """Dropout (seed state), batch normalisation (moving statistics)."""
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(8), layers.BatchNormalization(), layers.Dropout(0.3), layers.Dense(1)]
    )
    model.compile(keras.optimizers.AdamW(1e-2), "mse", metrics=["mae"])
    return model, *regression_data()


def noise_layers() -> tuple[Any, Any, Any]:
    """Several seed generators, RMSprop with momentum."""
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((6,)), layers.GaussianNoise(0.2), layers.Dense(8), layers.AlphaDropout(0.2), layers.Dense(1)]
    )
    model.compile(keras.optimizers.RMSprop(1e-2, momentum=0.5, centered=True), "mae")
    return model, *regression_data()


def stateful_lstm() -> tuple[Any, Any, Any]:
    """A layer that keeps state from batch to batch."""
    inputs = keras.Input(batch_shape=(10, 4, 3))
    hidden = keras.layers.LSTM(5, stateful=True)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1)(hidden))
    model.compile(keras.optimizers.SGD(1e-2, momentum=0.9, nesterov=True), "mse")
    generator = np.random.default_rng(5)
    return model, generator.normal(size=(70, 4, 3)).astype("float32"), generator.normal(size=(70, 1)).astype("float32")


def two_in_two_out() -> tuple[Any, Any, Any]:
    """Dictionaries of inputs and outputs, loss weights, a metric each."""
    first, second = keras.Input((6,), name="first"), keras.Input((2,), name="second")
    joined = keras.layers.Concatenate()([keras.layers.Dense(4)(first), keras.layers.Dense(4)(second)])
    outputs = {
        "value": keras.layers.Dense(1, name="value")(joined),
        "kind": keras.layers.Dense(3, activation="softmax", name="kind")(joined),
    }
    model = keras.Model({"first": first, "second": second}, outputs)
    model.compile(
        keras.optimizers.Nadam(1e-2),
        loss={"value": "mse", "kind": "sparse_categorical_crossentropy"},
        loss_weights={"value": 0.3, "kind": 1.0},
        metrics={"kind": "accuracy"},
    )
    x, y = regression_data()
    kinds = np.random.default_rng(2).integers(0, 3, size=(len(x),))
    return model, {"first": x, "second": x[:, :2]}, {"value": y, "kind": kinds}


class CustomStep(keras.Model):
    """A train step of its own, with a tracker that Keras does not know as a compiled metric."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = keras.layers.Dense(8, activation="relu")
        self.drop = keras.layers.Dropout(0.2)
        self.out = keras.layers.Dense(1)
        self.tracker = keras.metrics.Mean(name="loss")

    def call(self, x: Any, training: bool = False) -> Any:
        return self.out(self.drop(self.hidden(x), training=training))

    @property
    def metrics(self) -> list[Any]:
        return [self.tracker]

    def objective(self, trainable: Any, non_trainable: Any, x: Any, y: Any) -> Any:
        """Return half the squared error and the new non-trainable variables."""
        prediction, non_trainable = self.stateless_call(trainable, non_trainable, x, training=True)
        return keras.ops.mean((prediction - y) ** 2) / 2, non_trainable

    def train_step(self, *arguments: Any) -> Any:
        return getattr(self, f"train_step_{keras.backend.backend()}")(*arguments)

    def train_step_torch(self, data: Any) -> Any:
        import torch

        x, y = data
        self.zero_grad()
        loss = keras.ops.mean((self(x, training=True) - y) ** 2) / 2
        loss.backward()
        with torch.no_grad():
            self.optimizer.apply([v.value.grad for v in self.trainable_weights], self.trainable_weights)
        self.tracker.update_state(loss)
        return {"loss": self.tracker.result(), "last": loss}

    def train_step_jax(self, state: Any, data: Any) -> Any:
        import jax

        trainable, non_trainable, optimizer, metrics = state
        x, y = data
        gradient = jax.value_and_grad(self.objective, has_aux=True)
        (loss, non_trainable), gradients = gradient(trainable, non_trainable, x, y)
        trainable, optimizer = self.optimizer.stateless_apply(optimizer, gradients, trainable)
        total = metrics[0] + loss
        count = metrics[1] + 1.0
        return {"loss": total / count, "last": loss}, (trainable, non_trainable, optimizer, [total, count])

    def train_step_tensorflow(self, data: Any) -> Any:
        import tensorflow as tf

        x, y = data
        with tf.GradientTape() as tape:
            loss = keras.ops.mean((self(x, training=True) - y) ** 2) / 2
        self.optimizer.apply(tape.gradient(loss, self.trainable_weights), self.trainable_weights)
        self.tracker.update_state(loss)
        return {"loss": self.tracker.result(), "last": loss}

    def test_step(self, *arguments: Any) -> Any:
        if keras.backend.backend() == "jax":
            return super().test_step(*arguments)
        # The other backends want a loss in compile().
        x, y = arguments[0]
        self.tracker.update_state(keras.ops.mean((self(x) - y) ** 2) / 2)
        return {"loss": self.tracker.result()}


def custom_train_step() -> tuple[Any, Any, Any]:
    """A subclassed model with its own ``train_step``."""
    model = CustomStep()
    model.compile(keras.optimizers.Adam(1e-2))
    return model, *regression_data()


class Halves(CustomStep):
    """A step that trains a part of the variables with the optimizer, and the others by hand, as a GAN's may."""

    def parts(self, values: Any) -> tuple[Any, Any]:
        """Return what is the optimizer's, and the rest."""
        return values[2:], values[:2]

    def train_step_jax(self, state: Any, data: Any) -> Any:
        import jax

        trainable, non_trainable, optimizer, metrics = state
        gradient = jax.value_and_grad(self.objective, has_aux=True)
        (loss, non_trainable), gradients = gradient(trainable, non_trainable, *data)
        (mine, others), (steps, slopes) = self.parts(trainable), self.parts(gradients)
        mine, optimizer = self.optimizer.stateless_apply(optimizer, steps, mine)
        others = [value - 1e-2 * slope for value, slope in zip(others, slopes, strict=True)]
        total, count = metrics[0] + loss, metrics[1] + 1.0
        return {"loss": total / count}, ([*others, *mine], non_trainable, optimizer, [total, count])

    def train_step_tensorflow(self, data: Any) -> Any:
        import tensorflow as tf

        x, y = data
        with tf.GradientTape() as tape:
            loss = keras.ops.mean((self(x, training=True) - y) ** 2) / 2
        self.update(tape.gradient(loss, self.trainable_weights), loss)
        return {"loss": self.tracker.result()}

    def train_step_torch(self, data: Any) -> Any:
        import torch

        x, y = data
        self.zero_grad()
        loss = keras.ops.mean((self(x, training=True) - y) ** 2) / 2
        loss.backward()
        with torch.no_grad():
            self.update([variable.value.grad for variable in self.trainable_weights], loss)
        return {"loss": self.tracker.result()}

    def update(self, gradients: Any, loss: Any) -> None:
        """Move all weights."""
        (mine, others), (steps, slopes) = self.parts(self.trainable_weights), self.parts(gradients)
        self.optimizer.apply(steps, mine)
        for variable, slope in zip(others, slopes, strict=True):
            variable.assign(variable - 1e-2 * slope)
        self.tracker.update_state(loss)


def part_optimizer() -> tuple[Any, Any, Any]:
    """An optimizer that its script built for a part of what trains."""
    model = Halves()
    x, y = regression_data()
    model(x[:1])
    model.compile(keras.optimizers.Adam(1e-2))
    model.optimizer.build(model.parts(model.trainable_variables)[0])
    return model, x, y


class Adversaries(keras.Model):
    """A generator and a discriminator, each with an optimizer of its own and none that is compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = keras.Sequential([keras.Input((3,)), keras.layers.Dense(6, activation="tanh")])
        self.discriminator = keras.Sequential([keras.Input((6,)), keras.layers.Dropout(0.2), keras.layers.Dense(1)])
        self.seeds = keras.random.SeedGenerator(4)
        self.trackers = [keras.metrics.Mean(name="loss"), keras.metrics.Mean(name="g_loss")]

    def compile(self, g_optimizer: Any, d_optimizer: Any) -> None:
        super().compile(optimizer=None)
        self.optimizers = {"g": g_optimizer, "d": d_optimizer}

    @property
    def metrics(self) -> list[Any]:
        return self.trackers

    def call(self, x: Any) -> Any:
        return self.discriminator(x)

    def losses_of(self, real: Any) -> tuple[Any, Any]:
        """Return the losses of discriminator and generator."""
        noise = keras.random.normal((real.shape[0] or keras.ops.shape(real)[0], 3), seed=self.seeds)
        fake = self.generator(noise)
        right, wrong = (self.discriminator(each, training=True) for each in (real, fake))
        softplus = keras.ops.softplus
        return keras.ops.mean(softplus(-right) + softplus(wrong)), keras.ops.mean(softplus(-wrong))

    def sides(self) -> list[tuple[str, Any]]:
        return [("d", self.discriminator.trainable_weights), ("g", self.generator.trainable_weights)]

    def train_step(self, data: Any) -> Any:
        real = data[0]
        for which, (side, weights) in enumerate(self.sides()):
            loss, gradients = getattr(self, f"slopes_{keras.backend.backend()}")(real, which, weights)
            self.optimizers[side].apply(gradients, weights)
            self.trackers[which].update_state(loss)
        return {tracker.name: tracker.result() for tracker in self.trackers}

    def slopes_tensorflow(self, real: Any, which: int, weights: Any) -> Any:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = self.losses_of(real)[which]
        return loss, tape.gradient(loss, weights)

    def slopes_torch(self, real: Any, which: int, weights: Any) -> Any:
        self.zero_grad()
        loss = self.losses_of(real)[which]
        loss.backward()
        return loss.detach(), [variable.value.grad for variable in weights]

    def test_step(self, data: Any) -> Any:
        for tracker, loss in zip(self.trackers, self.losses_of(data[0]), strict=True):
            tracker.update_state(loss)
        return {tracker.name: tracker.result() for tracker in self.trackers}


def adversaries() -> tuple[Any, Any, Any]:
    """Two optimizers, none of which is the compiled one."""
    model = Adversaries()
    model.compile(keras.optimizers.Adam(1e-2), keras.optimizers.RMSprop(1e-2))
    return model, *regression_data()


class PenalisedDense(keras.layers.Dense):
    """A layer that adds a loss of its own."""

    def call(self, x: Any) -> Any:
        out = super().call(x)
        self.add_loss(1e-2 * keras.ops.mean(out**2))
        return out


def added_loss() -> tuple[Any, Any, Any]:
    """``add_loss`` in a layer, and a regulariser."""
    model = keras.Sequential([keras.Input((6,)), PenalisedDense(8, kernel_regularizer="l2"), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adagrad(1e-1), "mse")
    return model, *regression_data()


def mixed_precision() -> tuple[Any, Any, Any]:
    """float16 with a loss scale that grows and shrinks."""
    policy = keras.DTypePolicy("mixed_float16")
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(8, activation="relu", dtype=policy)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1, dtype="float32")(hidden))
    inner = keras.optimizers.Adam(1e-2)
    model.compile(keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**12, dynamic_growth_steps=5), "mse")
    return model, *regression_data()


def averaged_weights() -> tuple[Any, Any, Any]:
    """EMA in the optimizer, written into the weights now and then and at the end of a fit."""
    model, x, y = plain_dense()
    model.compile(keras.optimizers.Adam(1e-2, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=7), "mse")
    return model, x, y


def gradient_accumulation() -> tuple[Any, Any, Any]:
    """Gradients that add up over three steps, which no epoch is a multiple of."""
    model, x, y = dropout_batch_norm()
    model.compile(keras.optimizers.Adam(1e-2, gradient_accumulation_steps=3), "mse", metrics=["mae"])
    return model, x, y


def schedule() -> tuple[Any, Any, Any]:
    """A rate that follows the optimizer's iterations."""
    model, x, y = plain_dense()
    rate = keras.optimizers.schedules.CosineDecay(5e-2, decay_steps=60, warmup_target=6e-2, warmup_steps=7)
    model.compile(keras.optimizers.SGD(rate, momentum=0.8), "mse")
    return model, x, y


def convolution() -> tuple[Any, Any, Any]:
    """A convolution, which runs stepwise on a CPU."""
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((6, 6, 2)), layers.Conv2D(4, 3), layers.Dropout(0.2), layers.Flatten(), layers.Dense(1)]
    )
    model.compile(keras.optimizers.Adamax(1e-2), "mse")
    generator = np.random.default_rng(4)
    return (
        model,
        generator.normal(size=(70, 6, 6, 2)).astype("float32"),
        generator.normal(size=(70, 1)).astype("float32"),
    )


def frozen_backbone() -> tuple[Any, Any, Any]:
    """Frozen layers in a nested model, with dropout amid them: what lies before it is computed once for each sample."""
    layers = keras.layers
    inputs = keras.Input((6,))
    hidden = layers.BatchNormalization()(layers.Dense(7, activation="tanh")(inputs))
    backbone = keras.Model(inputs, layers.Dense(5)(layers.Dropout(0.2)(hidden)), name="backbone")
    backbone.trainable = False
    outer = keras.Input((6,))
    model = keras.Model(outer, layers.Dense(1)(layers.Dropout(0.1)(backbone(outer))))
    model.compile(keras.optimizers.Adam(1e-2), "mse", metrics=["mae"])
    return model, *regression_data()


# Keras cannot train a stateful LSTM on PyTorch: it writes into a tensor that the backward pass needs.
_IMPOSSIBLE = {"torch": ("stateful_lstm",)}.get(keras.backend.backend(), ())
MODELS: dict[str, Callable[[], tuple[Any, Any, Any]]] = {
    maker.__name__: maker
    for maker in (
        plain_dense,
        dropout_batch_norm,
        noise_layers,
        stateful_lstm,
        two_in_two_out,
        custom_train_step,
        part_optimizer,
        added_loss,
        mixed_precision,
        averaged_weights,
        gradient_accumulation,
        schedule,
        convolution,
        frozen_backbone,
    )
    if maker.__name__ not in _IMPOSSIBLE
}
# On PyTorch layers draw from the same generator as the loaders of Keras's own trainer, which we have not.
_DRAWING = (
    "dropout_batch_norm",
    "custom_train_step",
    "part_optimizer",
    "gradient_accumulation",
    "convolution",
    "frozen_backbone",
)
DRAWS_AS_KERAS = [name for name in MODELS if keras.backend.backend() != "torch" or name not in _DRAWING]


def make(name: str, *, seed: int = 3) -> tuple[Any, Any, Any]:
    """Return a fresh model of the list with its data, the same in every process."""
    keras.utils.set_random_seed(seed)
    return {**MODELS, "adversaries": adversaries}[name]()
