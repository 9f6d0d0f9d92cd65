"""The memory of one callback."""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
from tests.unit.callbacks.conftest import bound, drive, small_model

from keepfit.callbacks import restore, take
from keepfit.callbacks.memory import Memory
from keepfit.callbacks.origin import callback_keys, class_name, settings_of
from keepfit.callbacks.stock import knowledge_of
from keepfit.errors import InvalidArgument

callbacks = keras.callbacks


def through_file(memory: Memory) -> Memory:
    """Return a memory after the way through JSON and a file of tensors."""
    facts = {name: value for name, value in vars(memory).items() if name != "tensors"}
    tensors = {name: np.array(array) for name, array in memory.tensors.items()}
    return Memory(**json.loads(json.dumps(facts, allow_nan=False)), tensors=tensors)


def attributes(callback: Any) -> dict[str, Any]:
    """Return what can be compared of a callback, the model apart."""
    told = {
        name: value for name, value in vars(callback).items() if name not in ("_model", "params", "writer", "csv_file")
    }
    return {name: value for name, value in told.items() if not callable(value)}


def same(one: Any, other: Any) -> bool:
    """Return whether two attributes are equal, arrays by their bits."""
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.tobytes() == other.tobytes()
    return type(one) is type(other) and one == other


def equal(one: Any, other: Any) -> bool:
    """Return whether two callbacks hold the same."""
    mine, others = attributes(one), attributes(other)
    return mine.keys() == others.keys() and all(same(mine[name], others[name]) for name in mine)


# Worse from the second epoch on, so that something is counted, kept and about to be decided.
BEFORE = [1.0, 0.5, 0.75]
AFTER = [0.8, 0.7, 0.9]

STOCK = {
    "early_stopping": lambda path: callbacks.EarlyStopping("loss", patience=3, restore_best_weights=True),
    "early_stopping_from_epoch": lambda path: callbacks.EarlyStopping("loss", patience=2, start_from_epoch=1),
    "reduce_lr_on_plateau": lambda path: callbacks.ReduceLROnPlateau("loss", patience=2, cooldown=2, min_delta=0.01),
    "model_checkpoint_best": lambda path: callbacks.ModelCheckpoint(path / "m.keras", "loss", save_best_only=True),
    "model_checkpoint_steps": lambda path: callbacks.ModelCheckpoint(path / "m{epoch}.keras", save_freq=5),
    "swap_ema_weights": lambda path: callbacks.SwapEMAWeights(swap_on_epoch=True),
    "learning_rate_scheduler": lambda path: callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5),
    "terminate_on_nan": lambda path: callbacks.TerminateOnNaN(),
    "lambda": lambda path: callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: None),
}
REMEMBERS = set(STOCK) - {"learning_rate_scheduler", "terminate_on_nan", "lambda"}


def begun(name: str, path: Any) -> Any:
    """Return a new callback in a fit that begins."""
    callback = bound(STOCK[name](path), small_model(use_ema=True))
    callback.on_train_begin()
    return callback


def after(callback: Any) -> list[Any]:
    """Return what a callback decided, saw and left after the epochs that follow."""
    model = callback.model
    drive(callback, AFTER, first=len(BEFORE))
    callback.on_train_end()
    return [
        float(np.asarray(model.optimizer.learning_rate.value)),
        model.stop_training,
        *[weight.tolist() for weight in model.get_weights()],
    ]


@pytest.mark.parametrize("name", STOCK)
def test_restore_makes_a_new_stock_callback_go_on_as_the_old_one(name, tmp_path):
    """A new object with the memory decides, stops and restores weights as the object that was never replaced."""
    old = begun(name, tmp_path)
    drive(old, BEFORE)
    memory = through_file(take(old))
    new = begun(name, tmp_path)
    model = new.model
    model.set_weights(old.model.get_weights())
    model.optimizer.learning_rate = old.model.optimizer.learning_rate.value
    for mine, other in zip(model.optimizer.variables, old.model.optimizer.variables, strict=True):
        mine.assign(other.value)
    assert restore(new, memory) == []
    if name in REMEMBERS:
        assert equal(*_without_derived(new, old))
    assert after(new) == after(old)
    assert equal(*_without_derived(new, old))


@pytest.mark.parametrize("name", sorted(REMEMBERS))
def test_a_new_stock_callback_without_its_memory_is_another(name, tmp_path):
    """The control: without the memory the new object differs, so that the test above tells something."""
    old = begun(name, tmp_path)
    drive(old, BEFORE)
    assert not equal(*_without_derived(begun(name, tmp_path), old))


def _without_derived(one: Any, other: Any) -> tuple[Any, Any]:
    """Turn the sign of min_delta back, which Keras turns when it first looks at a metric."""
    for callback in (one, other):
        if hasattr(callback, "min_delta"):
            callback.min_delta = abs(callback.min_delta)
            callback.monitor_op = None
    return one, other


@pytest.mark.parametrize("name", sorted(REMEMBERS))
def test_restore_gives_the_same_object_back_what_a_fit_resets(name, tmp_path):
    """The same object in a second fit goes on where the first left it."""
    callback = begun(name, tmp_path)
    drive(callback, BEFORE)
    before = {**attributes(callback)}
    memory = take(callback)
    callback.on_train_begin()
    restore(callback, memory)
    assert all(same(before[name], value) for name, value in attributes(callback).items())


def test_restore_keeps_tensorboards_steps(tmp_path):
    """TensorBoard's steps go on, and its folder is the one that the script gives now."""
    old = callbacks.TensorBoard(tmp_path / "old", write_graph=False)
    old.set_model(small_model())
    old._global_train_batch, old._global_test_batch = 120, 40
    old._previous_epoch_iterations = keras.ops.convert_to_tensor(120, "float32")
    memory = through_file(take(old))
    new = callbacks.TensorBoard(tmp_path / "new", write_graph=False)
    new.set_model(small_model())
    restore(new, memory, mode="none")
    assert (new._global_train_batch, new._global_test_batch) == (120, 40)
    assert float(new._previous_epoch_iterations) == 120.0
    assert new._train_dir == str(tmp_path / "new" / "train")


@pytest.mark.parametrize(
    "make",
    [
        *STOCK.values(),
        lambda path: callbacks.CSVLogger(path / "log.csv"),
        lambda path: callbacks.TensorBoard(path / "logs", write_graph=False),
        lambda path: callbacks.RemoteMonitor(),
    ],
)
def test_every_attribute_of_stock_callbacks_is_known(make, tmp_path):
    """A Keras that gives a callback a new attribute makes this test fail: is it memory, and of what?"""
    callback = bound(make(tmp_path), small_model(use_ema=True))
    if not isinstance(callback, callbacks.TensorBoard):  # it needs TensorFlow to begin
        callback.on_train_begin()
    names = {name for name, value in vars(callback).items() if not callable(value)}
    if isinstance(callback, callbacks.CSVLogger):
        callback.csv_file.close()
    known = knowledge_of(callback)
    memory = {"best", "best_weights", "best_epoch", "wait", "stopped_epoch", "cooldown_counter"}
    told = settings_of(callback) | known.not_memory | known.of_run | memory
    assert names <= told


def test_restore_keeps_only_the_best_in_a_new_phase(tmp_path):
    """Where a task goes on in a new phase, patience begins anew and the best stays."""
    old = begun("early_stopping", tmp_path)
    drive(old, BEFORE)
    new = begun("early_stopping", tmp_path)
    restore(new, take(old), mode="best")
    assert (new.best, new.best_epoch, new.wait) == (0.5, 1, 0)
    assert same(new.best_weights, old.best_weights)


def test_restore_keeps_nothing_of_a_task_in_another(tmp_path):
    """Best weights of another task are never restored."""
    old = begun("early_stopping", tmp_path)
    drive(old, BEFORE)
    new = begun("early_stopping", tmp_path)
    restore(new, take(old), mode="none")
    assert (new.best, new.best_weights, new.wait) == (None, None, 0)


def test_restore_keeps_counters_of_the_run_in_another_task(tmp_path):
    """A checkpoint every so many steps keeps its rhythm whatever the task is."""
    old = begun("model_checkpoint_steps", tmp_path)
    drive(old, BEFORE)
    new = begun("model_checkpoint_steps", tmp_path)
    restore(new, take(old), mode="none")
    assert new._batches_seen_since_last_saving == 2
    assert new._batches_seen_since_last_saving == old._batches_seen_since_last_saving


def test_restore_leaves_best_weights_of_other_data_out(tmp_path):
    """With other training data counters and best values go on, weights do not."""
    old = begun("early_stopping", tmp_path)
    drive(old, BEFORE)
    new = begun("early_stopping", tmp_path)
    restore(new, take(old), drop_best_weights=True)
    assert (new.best, new.wait, new.best_weights) == (0.5, 1, None)


def test_restore_says_when_best_weights_do_not_fit(tmp_path):
    """Weights of another shape are left out and that is said; the rest goes on."""
    old = begun("early_stopping", tmp_path)
    drive(old, BEFORE)
    new = bound(STOCK["early_stopping"](tmp_path), small_model(units=5))
    new.on_train_begin()
    (said,) = restore(new, take(old))
    assert "best weights do not fit" in said
    assert (new.best, new.best_weights) == (0.5, None)


def test_restore_leaves_the_settings_of_stock_callbacks(tmp_path):
    """A patience that the script sets is not put back to what it was."""
    old = begun("early_stopping", tmp_path)
    drive(old, BEFORE)
    memory = take(old)
    old.patience = 7
    restore(old, memory)
    assert old.patience == 7


def test_take_shares_the_best_weights_of_stock_callbacks(tmp_path):
    """Weights that Keras replaces and never writes into are not copied at every checkpoint."""
    old = begun("early_stopping", tmp_path)
    drive(old, BEFORE)
    assert take(old).tensors["best_weights/0"] is old.best_weights[0]


class Mine(callbacks.Callback):
    """A callback as users write them."""

    def __init__(self, rate=0.5, filepath="out.txt", x_val=None):
        super().__init__()
        self.rate = rate
        self.filepath = filepath
        self.x_val = x_val
        self.phase = "warm"
        self.losses = []
        self.average = np.zeros(3)
        self.counts = {}
        self.random = np.random.default_rng(0)

    def on_epoch_end(self, epoch, logs=None):
        self.rate *= 0.5
        self.phase = "main"
        self.losses.append(logs["loss"])
        self.average += self.random.random(3)
        self.counts[epoch] = (epoch, logs["loss"])


def mine_after(losses: Any, **arguments: Any) -> Mine:
    """Return a user's callback that has seen epochs."""
    callback = bound(Mine(**arguments))
    take(callback)  # seen as it was made
    drive(callback, losses)
    return callback


def test_restore_makes_a_users_callback_go_on():
    """A user's callback keeps its attributes without having said anything, annealed settings included."""
    old = mine_after(BEFORE)
    new = bound(Mine())
    assert restore(new, through_file(take(old))) == []
    for callback in (old, new):
        drive(callback, AFTER, first=3)
    assert new.losses == BEFORE + AFTER
    assert (new.rate, new.phase, new.counts) == (old.rate, old.phase, old.counts)
    assert same(new.average, old.average)


def test_a_users_callback_without_its_memory_is_another():
    """The control: a new object has forgotten."""
    old, new = mine_after(BEFORE), bound(Mine())
    for callback in (old, new):
        drive(callback, AFTER, first=3)
    assert new.losses != old.losses
    assert not same(new.average, old.average)


def test_what_was_taken_stays_when_the_callback_goes_on():
    """A checkpoint that is written later holds what was, not what is."""
    old = mine_after(BEFORE)
    memory = take(old)
    average = old.average.copy()
    drive(old, AFTER, first=3)
    new = bound(Mine())
    restore(new, memory)
    assert same(new.average, average)
    assert new.losses == BEFORE
    new.average += 1
    assert same(memory.tensors["average"], average)


def test_take_uses_arrays_again_that_have_not_changed():
    """Checkpoints in a row hold an array that stays the same once."""
    old = mine_after(BEFORE)
    first = take(old)
    again = take(old, known=first.tensors)
    assert again.tensors["average"] is first.tensors["average"]
    old.average[0] += 1
    assert take(old, known=first.tensors).tensors["average"] is not first.tensors["average"]


def test_restore_leaves_texts_as_the_script_gives_them_now():
    """An output folder that moved is not put back."""
    new = bound(Mine(filepath="there"))
    new.name = "second process"
    restore(new, take(mine_after(BEFORE)))
    assert new.filepath == "there"
    assert new.phase == "main"


def test_restore_puts_back_a_text_that_had_not_changed_yet():
    """Going back in one process undoes what later epochs wrote."""
    callback = bound(Mine())
    early = take(callback)
    drive(callback, BEFORE)
    restore(callback, early)
    assert (callback.phase, callback.rate, callback.losses) == ("warm", 0.5, [])


def test_take_does_not_save_validation_data_that_a_script_gives():
    """Large arrays that a script gives its callback are data; other ones than before are told of."""
    data = np.ones((1 << 18, 2), np.float32)
    memory = through_file(take(mine_after(BEFORE, x_val=(data, 3))))
    assert set(memory.tensors) == {"average"}
    assert restore(bound(Mine(x_val=(data.copy(), 3))), memory) == []
    (said,) = restore(bound(Mine(x_val=(data + 1, 3))), memory)
    assert "Mine.x_val holds other data" in said


def test_take_saves_a_large_array_once_it_changes():
    """A large array that training writes into is memory after all."""
    old = bound(Mine(x_val=np.zeros(1 << 18)))
    take(old)
    old.x_val[77] = 5
    new = bound(Mine(x_val=np.zeros(1 << 18)))
    restore(new, through_file(take(old)))
    assert new.x_val[77] == 5


def test_take_names_what_cannot_be_saved():
    """Nothing is left out in silence; code and parts of the model lose nothing."""
    callback = bound(Mine())
    callback.lock = threading.Lock()
    callback.auc = {"a": [np.ones(3), keras.metrics.Mean()]}
    callback.function = len
    callback.log = logging.getLogger("x")
    callback.layer = callback.model.layers[0]
    callback.net = callback.model
    memory = take(callback)
    assert memory.unsaved == ["lock (a lock)", "auc (a Mean)"]
    assert not any(name.startswith("auc") for name in memory.tensors)


class Stating(callbacks.Callback):
    """A callback that says itself what it remembers."""

    def __init__(self, state=None):
        super().__init__()
        self.state = state
        self.lock = threading.Lock()

    def get_state(self):
        return self.state

    def set_state(self, state):
        self.state = state


@pytest.mark.parametrize("mode", ["all", "best", "none"])
def test_restore_uses_exactly_what_get_state_gave(mode):
    """A callback that offers get_state decides itself, in every phase."""
    state = {"seen": (1, 2), 3: np.arange(4), "none": None}
    memory = through_file(take(Stating(state)))
    assert (memory.how, list(memory.unsaved)) == ("state", [])
    new = Stating()
    restore(new, memory, mode=mode)
    assert new.state["seen"] == (1, 2)
    assert new.state[3].tolist() == [0, 1, 2, 3]
    new.state[3][0] = 9
    assert memory.tensors["state/1"][0] == 0


def test_take_refuses_a_state_that_cannot_be_saved():
    """A get_state that gives an object is an error that says what to return."""
    with pytest.raises(InvalidArgument, match=r"Stating\.get_state.*a Dense.*Return None, numbers"):
        take(Stating({"layer": keras.layers.Dense(1)}))


def test_restore_says_when_a_callback_offers_get_state_only_now():
    """Memory of the other kind is not forced into a callback."""
    memory = replace(take(bound(Mine())), how="attributes")
    new = Stating("kept")
    (said,) = restore(new, memory)
    assert "starts without memory" in said
    assert new.state == "kept"


class MyStopping(callbacks.EarlyStopping):
    """A stock callback with more."""

    def __init__(self, tolerance=1, **kwargs):
        super().__init__(**kwargs)
        self.tolerance = tolerance

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        self.tolerance += 1


def test_restore_makes_a_callback_derived_from_a_stock_one_go_on():
    """What Keras derives at the first epoch is derived anew in a new object, so that better stays better."""
    old = bound(MyStopping(monitor="loss", patience=3, min_delta=0.01, restore_best_weights=True))
    old.on_train_begin()
    drive(old, BEFORE)
    new = bound(MyStopping(monitor="loss", patience=3, min_delta=0.01, restore_best_weights=True))
    new.on_train_begin()
    assert restore(new, through_file(take(old))) == []
    assert after(new) == after(old)
    assert equal(new, old)


def test_take_keeps_best_weights_in_bfloat16(tmp_path):
    """Best weights of a model in bfloat16 are saved like any other."""
    keras.config.set_dtype_policy("bfloat16")
    try:
        old = bound(STOCK["early_stopping"](tmp_path))
        old.on_train_begin()
        drive(old, BEFORE)
        new = bound(STOCK["early_stopping"](tmp_path))
        restore(new, through_file(take(old)))
    finally:
        keras.config.set_dtype_policy("float32")
    assert new.best_weights[0].dtype.name == "bfloat16"
    assert same(new.best_weights, old.best_weights)


_NO_HOOKS = {name: lambda self, *given: None for name in dir(callbacks.Callback) if name.startswith("on_")}


class Slotted(callbacks.Callback):
    """A counter in a slot beside the attributes of Keras's base class."""

    __slots__ = ("limit", "seen", "sums")

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit, self.seen, self.sums = limit, 0, np.zeros(2)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seen += 1
        self.sums[epoch % 2] += logs["loss"]


def bare(limit: int) -> Any:
    """Return a callback that has slots only: no ``__dict__``, no weak references."""

    def begin(self: Any, limit: int) -> None:
        self.limit, self.seen, self.sums = limit, 0, np.zeros(2)

    settable = {
        "set_model": lambda self, model: setattr(self, "model", model),
        "set_params": lambda self, params: setattr(self, "params", params),
    }
    slots = {"__slots__": ("limit", "model", "params", "seen", "sums", "unset"), "__init__": begin}
    members = {**_NO_HOOKS, **settable, **slots, "on_epoch_end": Slotted.on_epoch_end}
    return type("Bare", (), members)(limit)


@pytest.mark.parametrize("make", [Slotted, bare])
def test_restore_gives_slots_back(make: Any):
    """What lies in ``__slots__`` is memory as attributes are, where there is a ``__dict__`` and where there is none."""
    first, later = make(3), make(3)
    for epoch, loss in enumerate(BEFORE):
        first.on_epoch_end(epoch, {"loss": loss})
    restore(later, through_file(take(first)))
    assert (later.limit, later.seen) == (3, 3)
    assert later.sums.tolist() == [1.75, 0.5]
    first.sums[0] = -1.0
    assert later.sums.tolist() == [1.75, 0.5]


def test_setting_in_a_slot_is_part_of_the_key():
    """Two callbacks with other settings have no memory in common; an annealed setting is still the callback's own."""
    three, four = bare(3), bare(4)
    keys = callback_keys([three, four])
    assert keys[0].removeprefix(f"{class_name(three)}(").startswith('{"limit": 3}')
    three.limit = 9
    assert callback_keys([three, four]) == keys
    assert keys[0] != keys[1]


class Seeded(callbacks.Callback):
    """Hold a seed generator."""

    def __init__(self, seeds: Any) -> None:
        super().__init__()
        self.seeds = seeds

    def draw(self) -> bytes:
        return np.asarray(keras.ops.convert_to_numpy(keras.random.uniform((3,), seed=self.seeds))).tobytes()


def test_restore_lets_a_seed_generator_go_on():
    """A seed generator of Keras's gives the numbers that it would have given, to all who hold it."""
    first, seeds = Seeded(keras.random.SeedGenerator(1)), keras.random.SeedGenerator(2)
    first.draw()
    memory = through_file(take(first))
    assert not memory.unsaved
    later, late = Seeded(seeds), Seeded(None)
    restore(later, memory)
    restore(late, memory)
    assert later.seeds is seeds
    assert first.draw() == later.draw() == late.draw()


def test_seed_generator_of_a_layer_is_no_memory():
    """What belongs to the model is kept with the model alone."""
    dropout = keras.layers.Dropout(0.5)
    model = keras.Sequential([keras.Input((2,)), dropout])
    callback = Seeded(dropout.seed_generator)
    callback.set_model(model)
    memory = take(callback)
    assert "seeds" not in memory.plain
    assert not memory.unsaved
