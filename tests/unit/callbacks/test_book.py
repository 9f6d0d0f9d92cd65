"""The memories of all callbacks of a fit."""

from __future__ import annotations

import threading
from typing import Any

import keras
import numpy as np
import pytest
from tests.unit.callbacks.conftest import begin, bound, drive, small_model, stored

from keepfit.callbacks import CallbackMemory, SavedMemories
from keepfit.callbacks.book import _MOST_ABSENT

EarlyStopping = keras.callbacks.EarlyStopping


class Counting(keras.callbacks.Callback):
    def __init__(self, rate=1.0):
        super().__init__()
        self.rate = rate
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(epoch)
        self.rate /= 2


def test_every_callback_gets_its_own_memory_back():
    """Equal callbacks are told apart by their order, others by what they are."""
    model = small_model()
    old = [bound(EarlyStopping("loss"), model), bound(Counting(), model), bound(EarlyStopping("loss"), model)]
    for index, callback in enumerate((old[0], old[2])):
        callback.on_train_begin()
        callback.best = 0.25 + index
    old[1].seen = [1, 2]
    book = CallbackMemory(old)
    saved = stored(book)
    new = [bound(Counting(), model), bound(EarlyStopping("loss"), model), bound(EarlyStopping("loss"), model)]
    again = CallbackMemory(new)
    again.before_begin(saved)
    assert again.after_begin(saved) == []
    assert (new[0].seen, new[1].best, new[2].best) == ([1, 2], 0.25, 1.25)


def test_arrays_are_named_by_entry_and_attribute():
    """A person finds the best weights of a callback in the file of tensors."""
    stopping = bound(EarlyStopping("loss", restore_best_weights=True))
    stopping.on_train_begin()
    drive(stopping, [1.0])
    entries, tensors = CallbackMemory([keras.callbacks.History(), stopping]).take()
    assert sorted(tensors) == ["callbacks/0/best_weights/0", "callbacks/0/best_weights/1"]
    assert entries[0]["class_name"] == "keras.EarlyStopping"
    assert entries[0]["plain"]["best"] == 1.0


def test_callbacks_without_memory_take_no_room():
    """A checkpoint of callbacks that remember nothing is empty, and the next fit starts as usual."""
    members = [keras.callbacks.History(), keras.callbacks.ProgbarLogger(), keras.callbacks.TerminateOnNaN()]
    assert CallbackMemory(members).take() == ([], {})
    _, said = begin(bound(EarlyStopping("loss")), SavedMemories())
    assert said == []


@pytest.mark.parametrize("fresh", ["object", "class", "base"])
def test_fresh_callbacks_start_without_memory(fresh):
    """A callback or a class of them that is named starts anew; others do not."""
    old = bound(EarlyStopping("loss"))
    old.on_train_begin()
    drive(old, [1.0, 2.0])
    saved = stored(CallbackMemory([old]))
    new = bound(EarlyStopping("loss"))
    begin(
        new,
        saved,
        fresh=["optimizer", {"object": new, "class": EarlyStopping, "base": keras.callbacks.Callback}[fresh]],
    )
    assert (new.best, new.wait) == (None, 0)
    other = bound(EarlyStopping("loss"))
    begin(other, saved, fresh=["optimizer", new, Counting])
    assert (other.best, other.wait) == (1.0, 1)


def test_put_back_makes_attributes_right_without_hooks():
    """After a replayed fit a script reads of its callback what it would have read then."""
    old = bound(EarlyStopping("loss"))
    old.on_train_begin()
    drive(old, [1.0, 2.0])
    new = bound(EarlyStopping("loss"))
    CallbackMemory([new]).put_back(stored(CallbackMemory([old])))
    assert (new.best, new.best_epoch, new.wait) == (1.0, 0, 1)


def test_a_setting_that_a_script_changes_between_fits_wins():
    """A setting set by hand is not put back to what it was; the rest of the memory is."""
    callback = bound(Counting(rate=1.0))
    book, _ = begin(callback, SavedMemories())
    drive(callback, [1.0, 1.0])
    saved = stored(book)
    callback.rate, callback.seen = 8.0, []
    begin(callback, saved)
    assert (callback.rate, callback.seen) == (8.0, [0, 1])


def test_a_setting_that_a_script_changes_wins_after_a_replay_too():
    """In a later process the same line of the script has the same effect."""
    old = bound(Counting(rate=1.0))
    book, _ = begin(old, SavedMemories())
    drive(old, [1.0, 1.0])
    saved = stored(book)
    new = bound(Counting(rate=1.0))
    CallbackMemory([new]).put_back(saved)
    assert new.rate == 0.25
    new.rate = 8.0
    begin(new, saved)
    assert (new.rate, new.seen) == (8.0, [0, 1])


def test_a_setting_that_training_changed_is_memory():
    """The control: what no script changed goes on from the memory, in the same and in a new object."""
    callback = bound(Counting(rate=1.0))
    book, _ = begin(callback, SavedMemories())
    early = stored(book)
    drive(callback, [1.0, 1.0])
    saved = stored(book)
    new = bound(Counting(rate=1.0))
    begin(new, saved)
    assert new.rate == 0.25
    begin(callback, early)
    assert (callback.rate, callback.seen) == (1.0, [])


def test_a_resumed_fit_goes_by_its_memory_alone():
    """What a hook changed before it was interrupted was not set by hand, and fresh= is not for a second time."""
    callback = bound(Counting(rate=1.0))
    book, _ = begin(callback, SavedMemories(), fresh=[callback])
    drive(callback, [1.0])
    saved = stored(book)
    callback.rate, callback.seen = 0.25, [0, 1]  # the interrupted epoch, which will be done again
    begin(callback, saved, fresh=[callback], resumed=True)
    assert (callback.rate, callback.seen) == (0.5, [0])


def test_what_is_about_the_run_outlives_a_fit_without_the_callback(tmp_path):
    """A file that skips a fit goes on after it; the best of a task does not."""
    path = tmp_path / "log.csv"
    model = small_model()
    members = [bound(keras.callbacks.CSVLogger(path), model), bound(EarlyStopping("loss"), model)]
    book = CallbackMemory(members)
    for member in members:
        member.on_train_begin()
        drive(member, [1.0])
        member.on_train_end()
    saved = stored(book)
    without, _ = begin(bound(Counting()), saved)
    saved = stored(without)
    again = [bound(keras.callbacks.CSVLogger(path), model), bound(EarlyStopping("loss"), model)]
    book = CallbackMemory(again)
    book.before_begin(saved)
    for member in again:
        member.on_train_begin()
    book.after_begin(saved)
    drive(again[0], [2.0], first=1)
    again[0].on_train_end()
    assert path.read_text().split() == ["epoch,loss,val_loss", "0,1.0,1.0", "1,2.0,2.0"]
    assert again[1].best is None


def test_memories_of_absent_callbacks_stay_bounded(tmp_path):
    """A run with another callback in every fit does not grow for ever."""
    saved = SavedMemories()
    for frequency in range(1, _MOST_ABSENT + 10):
        callback = bound(keras.callbacks.ModelCheckpoint(tmp_path / "m.keras", save_freq=frequency))
        saved = stored(begin(callback, saved)[0])
    assert len(saved.entries) == _MOST_ABSENT + 1


class Locked(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


def test_what_cannot_be_saved_is_said_before_anything_is_trained():
    """A user learns which attributes a restart loses, and what to do."""
    _, (said,) = begin(bound(Locked()), SavedMemories())
    assert said.startswith("Locked holds what cannot be saved: lock (a lock).")
    assert "get_state() and set_state(state)" in said


def test_taking_again_holds_what_did_not_change_once():
    """The two ends of a fit share what is equal in both."""
    callback = bound(Counting())
    callback.table = np.arange(10.0)
    book = CallbackMemory([callback])
    name = "callbacks/0/table"
    first, second = book.take()[1][name], book.take()[1][name]
    assert first is second
    assert first is not callback.table
    callback.table[0] = 5
    assert book.take()[1][name] is not first
    assert first[0] == 0


def test_last_history_logs_hold_what_callbacks_added():
    """The recorded logs of an epoch are those that the History callback saw last, and not older ones."""
    callbacks: Any = keras.callbacks.CallbackList([], add_history=True, model=small_model())
    book = CallbackMemory(callbacks.callbacks)
    assert book.last_history_logs(callbacks, since={}) == {}
    callbacks.on_train_begin()
    callbacks.on_epoch_end(0, {"loss": 1.0, "learning_rate": 0.5, "val_loss": 2.0})
    first = book.history_lengths(callbacks)
    assert book.last_history_logs(callbacks, since={}) == {"loss": 1.0, "learning_rate": 0.5, "val_loss": 2.0}
    callbacks.on_epoch_end(1, {"loss": 1.0, "learning_rate": 0.5})
    assert book.last_history_logs(callbacks, since=first) == {"loss": 1.0, "learning_rate": 0.5}
