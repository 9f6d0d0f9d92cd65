"""The user's own code is found wherever a model, loss, metric or callback holds it."""

from __future__ import annotations

import json

import keras

from keepfit.recipe import code_identities

MODEL = """
class Scale(keras.layers.Layer):
    def __init__(self, factor=2.0):
        super().__init__()
        self.factor = factor
        self.calls = 0
    def call(self, x):
        self.calls += 1
        return x * self.factor

def sequential(factor=2.0, rate=0.5):
    inner = keras.Sequential([keras.layers.Dense(2), Scale(factor)])
    layers = [keras.Input((3,)), inner, keras.layers.Dropout(rate), keras.layers.Lambda(lambda x: x + 1)]
    return keras.Sequential(layers)

class Mine(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.loss_function = lambda y, p: y - p
    def call(self, x):
        return self.dense(x)
    def train_step(self, data):
        return super().train_step(data)
"""


def test_code_identities_find_a_custom_layer_in_a_nested_model(cell):
    """A change in a layer deep in the model is a change."""
    one, other = (
        code_identities(cell(text, keras=keras)["sequential"]())
        for text in (MODEL, MODEL.replace("x * self", "x + self"))
    )
    assert one["classes"]["Scale"]["code"]["call"] != other["classes"]["Scale"]["code"]["call"]
    assert one["classes"]["Scale"]["code"]["__init__"] == other["classes"]["Scale"]["code"]["__init__"]


def test_code_identities_find_the_function_of_a_lambda_layer(cell):
    """A Lambda layer's function is own code, told by layer and attribute."""
    one, other = (
        code_identities(cell(text, keras=keras)["sequential"]()) for text in (MODEL, MODEL.replace("x + 1", "x + 2"))
    )
    assert one["functions"]["keras.Lambda.function"]["code"] != other["functions"]["keras.Lambda.function"]["code"]


def test_code_identities_tell_settings_of_layers_and_not_what_changes_as_they_work(cell):
    """Another dropout rate or factor shows; a counter that a layer keeps does not."""
    sequential = cell(MODEL, keras=keras)["sequential"]
    model = sequential(3.0)
    told = code_identities(model)
    assert told["layers"]["Scale"] == {"factor": 3.0}
    assert told["layers"]["keras.Dropout"] == {"rate": 0.5}
    model(keras.ops.ones((1, 3)))
    assert code_identities(model) == told == code_identities(sequential(3.0))
    assert code_identities(sequential(rate=0.25))["layers"]["keras.Dropout"] == {"rate": 0.25}


def test_code_identities_are_the_same_after_compile_and_fit(cell):
    """What Keras leaves in a model when it trains is no change of the program."""
    model = cell(MODEL, keras=keras)["sequential"]()
    before = code_identities(model)
    model.compile("sgd", loss=lambda y, p: keras.ops.mean((y - p) ** 2), metrics=[lambda y, p: y - p])
    model.fit(keras.ops.ones((4, 3)), keras.ops.ones((4, 2)), verbose=0)
    assert code_identities(model) == before


def test_code_identities_hold_a_custom_model_with_its_train_step(cell):
    """A subclassed model is told by its methods and by the functions it holds."""
    one, other = (
        code_identities(cell(text, keras=keras)["Mine"]())
        for text in (MODEL, MODEL.replace("return super()", "x = super()"))
    )
    assert one["classes"]["Mine"]["code"]["train_step"] != other["classes"]["Mine"]["code"]["train_step"]
    assert "Mine.loss_function" in one["functions"]


def test_code_identities_find_own_functions_in_losses_and_metrics(cell):
    """In any structure of losses and metrics, own functions are told by their path."""
    module = cell(
        "def mine(y, p):\n    return y\nclass L(keras.Loss):\n    def call(self, y, p):\n        return p\n",
        keras=keras,
    )
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    told = code_identities(
        model,
        loss={"a": module["mine"], "b": "mse", "c": module["L"]()},
        metrics=["accuracy", keras.metrics.MeanMetricWrapper(module["mine"]), keras.metrics.AUC()],
        optimizer=keras.optimizers.Adam(),
    )
    assert set(told["loss"]) == {"a", "c"}
    assert told["loss"]["c"]["class"]["name"] == "L"
    assert set(told["metrics"]) == {"1"}
    assert "optimizer" not in told


def test_code_identities_hold_functions_and_settings_of_callbacks(cell):
    """A schedule's code, a lambda callback's hook and a callback's patience are all told, by class and occurrence."""
    module = cell("def half(epoch, rate):\n    return rate / 2\n")
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    told = code_identities(
        model,
        callbacks=[
            keras.callbacks.LearningRateScheduler(module["half"]),
            keras.callbacks.EarlyStopping(patience=2),
            keras.callbacks.EarlyStopping(patience=3),
            keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: None),
        ],
    )["callbacks"]
    assert told["keras.LearningRateScheduler"]["functions"]["schedule"]["name"] == "half"
    assert told["keras.EarlyStopping"]["settings"]["patience"] == 2
    assert told["keras.EarlyStopping_1"]["settings"]["patience"] == 3
    assert "on_epoch_end" in told["keras.LambdaCallback"]["functions"]


def test_code_identities_are_json(cell):
    """All of it can be written to the journal as it is."""
    told = code_identities(cell(MODEL, keras=keras)["sequential"](), loss="mse", callbacks=[keras.callbacks.History()])
    assert json.loads(json.dumps(told, allow_nan=False)) == told


def test_code_identities_of_a_deep_model_stay_small():
    """A model of many layers is told by short hashes."""
    layers = [keras.layers.Dropout(0.5) for _ in range(120)]
    told = code_identities(keras.Sequential([keras.Input((1,)), *layers]))
    assert len(told["layers"]["keras.Dropout_7"]) == 16
