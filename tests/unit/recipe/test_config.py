"""Configs are plain data, the same in every process for what was made in the same way."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from keepfit.recipe import learning_rate_config, optimizer_config, plain_config, settings


def mine(y, p):
    return keras.ops.mean(y - p)


class Scaled(keras.losses.Loss):
    def __init__(self, factor=2.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, y, p):
        return self.factor * keras.ops.mean(y - p)

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


def test_plain_config_of_losses_tells_string_function_and_object():
    """A loss may be a string, a function, or an object, each in its own form."""
    assert plain_config("mse") == "mse"
    assert plain_config(keras.losses.mean_squared_error) == {"function": "keras.mean_squared_error"}
    assert plain_config(mine) == {"function": "mine"}
    assert plain_config(lambda y, p: y) == {"function": "<lambda>"}
    told = plain_config(keras.losses.MeanSquaredError())
    assert told["class"] == "keras.MeanSquaredError"
    assert told["reduction"] == "sum_over_batch_size"


def test_plain_config_holds_what_keras_leaves_out_of_its_own():
    """The delta of a Huber loss is not in Keras's config; a change of it must show."""
    assert plain_config(keras.losses.Huber(0.5)) != plain_config(keras.losses.Huber(0.25))


def test_plain_config_of_own_loss_holds_its_config_but_not_its_code():
    """A custom loss tells what its get_config tells."""
    told = plain_config({"head": Scaled(3.0), "tail": [Scaled(), "mse"], "none": None})
    assert told["head"] == {"class": "Scaled", "factor": 3.0, "reduction": "sum_over_batch_size"}
    assert told["tail"] == [{"class": "Scaled", "factor": 2.0, "reduction": "sum_over_batch_size"}, "mse"]
    assert told["none"] is None


def test_plain_config_drops_automatic_names_and_keeps_given_ones():
    """The second AUC of a process is called auc_1 by Keras, which says nothing about it."""
    first, second = keras.metrics.AUC(), keras.metrics.AUC()
    assert first.name != second.name
    assert plain_config([first]) == plain_config([second])
    assert plain_config(keras.metrics.AUC(name="area"))["name"] == "area"


def test_plain_config_of_nested_metrics():
    """Metrics nest as in compile: by output, in lists, wrapped functions among them."""
    told = plain_config({"a": ["accuracy", keras.metrics.MeanMetricWrapper(lambda y, p: y)], "b": mine, 0: []})
    assert told["a"][0] == "accuracy"
    assert told["a"][1]["fn"] == {"function": "<lambda>"}
    assert told["b"] == {"function": "mine"}
    assert told["0"] == []


def test_plain_config_reduces_numpy_values():
    """NumPy's numbers are numbers, its arrays hashes, NaN is told in JSON's limits."""
    assert plain_config({np.int64(3): np.float32(0.5), "b": np.bool_(True)}) == {"3": 0.5, "b": True}
    assert plain_config(np.arange(3.0))["shape"] == [3]
    assert plain_config(np.arange(3.0)) != plain_config(np.arange(1.0, 4.0))
    assert plain_config(keras.ops.convert_to_tensor(2.0)) == 2.0
    assert json.dumps(plain_config([float("nan"), float("inf")]), allow_nan=False)


def test_plain_config_of_unknown_objects_has_no_address():
    """An object without a config is told by its class."""
    assert plain_config([object()]) == [{"class": "object"}]


def test_optimizer_config_leaves_out_rate_and_name():
    """What decides the updates is told, without the rate, which is told apart."""
    told = optimizer_config(keras.optimizers.Adam(0.1, beta_1=0.8, clipnorm=1.0))
    assert told["class"] == "keras.Adam"
    assert told["beta_1"] == 0.8
    assert told["clipnorm"] == 1.0
    assert not {"name", "learning_rate"} & set(told)
    assert told == optimizer_config(keras.optimizers.Adam(0.2, beta_1=0.8, clipnorm=1.0))


def test_optimizer_config_nests_inner_optimizers():
    """Loss scaling wraps an optimizer; the inner one's config and rate are told as if it stood alone."""
    inner = keras.optimizers.SGD(0.25, momentum=0.9)
    told = optimizer_config(keras.optimizers.LossScaleOptimizer(inner, initial_scale=8.0))
    assert told["class"] == "keras.LossScaleOptimizer"
    assert told["initial_scale"] == 8.0
    assert told["inner_optimizer"] == optimizer_config(keras.optimizers.SGD(0.5, momentum=0.9))
    assert learning_rate_config(keras.optimizers.LossScaleOptimizer(inner)) == 0.25


def test_optimizer_config_of_several_optimizers_in_one():
    """Where variables have optimizers of their own, each is told, rates apart from configs."""
    several, others = (
        keras.optimizers.MultiOptimizer(
            keras.optimizers.OptimizerMap(
                default_optimizer=keras.optimizers.SGD(rate), optimizer_map={"head/.*": keras.optimizers.Adam(0.125)}
            )
        )
        for rate in (0.5, 0.25)
    )
    assert optimizer_config(several) == optimizer_config(others)
    assert learning_rate_config(several) == {"0": 0.125, "1": 0.5}


def test_learning_rate_config_gives_a_number_schedule_or_function():
    """The rate is told as it is held: float32, or the config of what gives it."""
    assert learning_rate_config(keras.optimizers.Adam(1e-3)) == float(np.float32(1e-3))
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 100, 0.9)
    told = learning_rate_config(keras.optimizers.Adam(schedule))
    assert told["class"] == "keras.ExponentialDecay"
    assert told["decay_steps"] == 100
    assert learning_rate_config(keras.optimizers.Adam(lambda: 0.5)) == {"function": "<lambda>"}


def test_learning_rate_config_follows_the_variable():
    """A rate set by hand between fits is what counts."""
    optimizer = keras.optimizers.Adam(1e-3)
    optimizer.learning_rate = 0.25
    assert learning_rate_config(optimizer) == 0.25


def test_settings_of_callbacks_stay_while_they_work():
    """What a callback was made with is told; its memory and its output places are not."""
    callback = keras.callbacks.EarlyStopping(monitor="loss", min_delta=0.5, patience=3, verbose=1)
    before = settings(callback)
    assert before == {"monitor": "loss", "min_delta": 0.5, "patience": 3}
    callback.wait, callback.best, callback.min_delta = 7, 0.1, -0.5
    assert settings(callback) == before
    assert settings(keras.callbacks.ModelCheckpoint("/somewhere/m.keras", monitor="loss")) == {"monitor": "loss"}
    assert settings(keras.callbacks.CSVLogger("/somewhere/log.csv")) == {}


def test_settings_of_layers_tell_what_differs_from_the_default():
    """Layers are told without names, seeds and initial values."""
    layer = keras.layers.Dense(3, activation="relu", kernel_regularizer="l2", name="mine")
    told = settings(layer)
    assert told["units"] == 3
    assert told["activation"] == {"function": "keras.relu"}
    assert told["kernel_regularizer"]["class"] == "keras.L2"
    assert set(told) == {"units", "activation", "kernel_regularizer"}
    assert settings(keras.layers.Dropout(0.5)) == {"rate": 0.5}


@pytest.mark.parametrize(
    "name", [name for name in dir(keras.optimizers) if isinstance(getattr(keras.optimizers, name), type)]
)
def test_optimizer_config_of_every_optimizer_is_json_and_equal_for_equals(name):
    """Two optimizers made in the same way have the same config, as JSON."""
    cls = getattr(keras.optimizers, name)
    if name in ("Optimizer", "LossScaleOptimizer", "MultiOptimizer", "OptimizerMap"):
        pytest.skip("wants arguments")
    one, other = optimizer_config(cls()), optimizer_config(cls())
    assert json.dumps(one, allow_nan=False) == json.dumps(other, allow_nan=False)


def _names(module, base, without):
    found = {name: getattr(module, name) for name in dir(module)}
    kinds = {name: cls for name, cls in found.items() if isinstance(cls, type) and issubclass(cls, base)}
    return sorted(name for name in kinds if name not in without)


@pytest.mark.parametrize("name", _names(keras.losses, keras.Loss, {"Loss"}))
def test_plain_config_of_every_loss_is_json_and_equal_for_equals(name):
    """Two losses made in the same way have the same config, as JSON."""
    cls = getattr(keras.losses, name)
    one, other = plain_config(cls()), plain_config(cls())
    assert json.dumps(one, allow_nan=False) == json.dumps(other, allow_nan=False)


def test_configs_are_the_same_in_another_process_with_another_hash_seed():
    """A process that made other objects before, under another hash seed, tells the same configs."""
    script = (
        "import sys, json, keras\n"
        "from keepfit.recipe import plain_config, optimizer_config\n"
        "for _ in range(int(sys.argv[1])): keras.optimizers.Adam(); keras.metrics.AUC(); keras.metrics.Mean()\n"
        "print(json.dumps([plain_config({'a': [keras.metrics.AUC(), 'mae', keras.losses.Huber(), {'x', 'y', 'z'}]}),"
        " optimizer_config(keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()))]))\n"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", script, made],
            env={**os.environ, "PYTHONHASHSEED": made},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for made in ("1", "3")
    ]
    assert outputs[0] == outputs[1]
