"""Which callback is which."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keepfit.callbacks import origin
from keepfit.callbacks.identity import IdentityMap
from keepfit.callbacks.origin import callback_keys, large_hash, settings_of

EarlyStopping = keras.callbacks.EarlyStopping


class Mine(keras.callbacks.Callback):
    def __init__(self, rate=0.1, milestones=(1, 2), log_dir="here", function=None):
        super().__init__()
        self.rate = rate
        self.milestones = list(milestones)
        self.log_dir = log_dir
        self.function = function


class Passing(EarlyStopping):
    def __init__(self, extra=1, **kwargs):
        super().__init__(**kwargs)
        self.extra = extra


def schedule(epoch, rate):
    return rate


def other_schedule(epoch, rate):
    return rate


def test_keys_are_equal_for_equal_new_objects():
    """A script that makes its callbacks anew finds their memory."""
    make = lambda: [EarlyStopping(patience=3), Mine(0.2), keras.callbacks.LearningRateScheduler(schedule)]  # noqa: E731
    assert callback_keys(make()) == callback_keys(make())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (EarlyStopping(patience=3), EarlyStopping(patience=4)),
        (EarlyStopping("loss"), EarlyStopping("val_loss")),
        (Mine(0.1), Mine(0.2)),
        (Mine(milestones=[1]), Mine(milestones=[1, 2])),
        (Mine(np.float32(0.5)), Mine(np.float32(0.25))),
        (Passing(patience=1), Passing(patience=2)),
        (EarlyStopping(), keras.callbacks.ReduceLROnPlateau()),
        (
            keras.callbacks.LearningRateScheduler(schedule),
            keras.callbacks.LearningRateScheduler(other_schedule),
        ),
    ],
    ids=lambda callback: type(callback).__name__,
)
def test_keys_differ_where_class_or_config_does(one, other):
    """Callbacks that decide differently do not share a memory."""
    assert callback_keys([one]) != callback_keys([other])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (EarlyStopping(verbose=0), EarlyStopping(verbose=1)),
        (keras.callbacks.CSVLogger("a.csv"), keras.callbacks.CSVLogger("b.csv")),
        (keras.callbacks.ModelCheckpoint("a.keras"), keras.callbacks.ModelCheckpoint("b.keras")),
        (keras.callbacks.TensorBoard("a", write_graph=False), keras.callbacks.TensorBoard("b", write_graph=False)),
        (Mine(log_dir="here"), Mine(log_dir="there")),
    ],
    ids=lambda callback: type(callback).__name__,
)
def test_keys_ignore_where_and_how_much_is_written(one, other):
    """A run whose output moves keeps its memory."""
    assert callback_keys([one]) == callback_keys([other])


def test_keys_count_equal_callbacks_in_their_order():
    """Two equal callbacks in one fit have a memory each."""
    first, second = callback_keys([EarlyStopping(), EarlyStopping()])
    assert (first[-2:], second[-2:]) == ("#0", "#1")
    assert first[:-2] == second[:-2]


def test_keys_stay_when_a_setting_is_annealed():
    """What training does to a setting does not change whose memory it is."""
    mine, stopping = Mine(0.5), EarlyStopping(min_delta=0.1)
    before = callback_keys([mine, stopping])
    mine.rate, stopping.min_delta = 0.25, -0.1
    assert callback_keys([mine, stopping]) == before
    assert callback_keys([EarlyStopping(min_delta=0.1)]) == before[1:]


def test_keys_are_json_a_person_can_read():
    """A key names class and settings."""
    (key,) = callback_keys([EarlyStopping(patience=3)])
    name, _, config = key.partition("(")
    assert name == "keras.EarlyStopping"
    assert json.loads(config.rpartition(")")[0])["patience"] == 3


def test_keys_are_the_same_in_another_process():
    """No id, hash or order of this process is in a key."""
    code = (
        "from keepfit import _backend\n"
        "import keras\n"
        "from keepfit.callbacks import callback_keys\n"
        "class Mine(keras.callbacks.Callback):\n"
        "    def __init__(self, names):\n"
        "        super().__init__()\n"
        "        self.names = names\n"
        "print(callback_keys([Mine({'a', 'b', 'c', 'd'}), keras.callbacks.EarlyStopping(),"
        " keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: None)]))\n"
    )
    seen = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(seen) == 1


def test_keys_work_for_callbacks_without_hash():
    """A callback that defines equality has a key that stays, too."""

    class Equal(Mine):
        __hash__ = None

        def __eq__(self, other):
            return True

    one, other = Equal(0.1), Equal(0.2)
    before = callback_keys([one, other])
    one.rate = 9
    assert callback_keys([one, other]) == before
    assert before[0] != before[1]


def test_keys_do_not_read_properties():
    """Looking at a callback does not run its code."""

    class Property(keras.callbacks.Callback):
        def __init__(self, model=None, value=1):
            super().__init__()

        @property
        def value(self):
            raise AssertionError("was read")

    assert callback_keys([Property()])[0].endswith("Property({})#0")


def test_settings_follow_what_is_passed_on():
    """Arguments that go on to a base's constructor through **kwargs are settings, too."""
    assert {"extra", "patience", "monitor"} <= settings_of(Passing())


def test_origins_are_forgotten_with_their_objects():
    """A thousand callbacks leave nothing behind."""
    before = len(origin._SEEN)
    for _ in range(100):
        callback_keys([Mine()])
    gc.collect()
    assert len(origin._SEEN) <= before + 1


def test_identity_map_tells_objects_apart_that_are_equal():
    """A note is about one object, however many equal it."""

    class Equal:
        def __eq__(self, other):
            return True

        __hash__ = None

    notes: IdentityMap[int] = IdentityMap()
    one, other = Equal(), Equal()
    notes.put(one, 1)
    notes.put(one, 2)
    assert (notes.get(one), notes.get(other), len(notes)) == (2, None, 1)
    del one
    gc.collect()
    assert len(notes) == 0


def test_large_hash_is_for_large_arrays_only_and_sees_every_byte():
    """What stands for data is its content; small arrays are memory."""
    data = np.zeros((1 << 18, 2), np.float32)
    first = large_hash({"x": data})
    data[123_456, 1] = 1
    assert first is not None
    assert large_hash({"x": data}) != first
    assert large_hash(np.zeros(10)) is None
    assert large_hash(Path("x")) is None


def test_identity_map_holds_the_last_objects_without_weak_references():
    """Where nobody can tell when an object is gone it is held, and of such ones a bounded number."""

    class Slotted:
        __slots__ = ()

    notes: IdentityMap[int] = IdentityMap()
    made = [Slotted() for _ in range(200)]
    for number, item in enumerate(made):
        notes.put(item, number)
    assert (notes.get(made[-1]), notes.get(made[0]), notes.get(Slotted())) == (199, None, None)
    assert len(notes) < 100
