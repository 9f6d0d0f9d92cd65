"""Which hooks callbacks look at."""

from __future__ import annotations

import keras
import pytest

from keepfit.callbacks import has_predict_batch_hooks, has_test_batch_hooks, has_train_batch_hooks

callbacks = keras.callbacks


def overriding(name: str) -> type:
    """Return a callback's class that overrides one hook."""
    return type("Mine", (callbacks.Callback,), {name: lambda self, batch, logs=None: None})


ASK = {"train": has_train_batch_hooks, "test": has_test_batch_hooks, "predict": has_predict_batch_hooks}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("on_batch_begin", "train"),
        ("on_batch_end", "train"),
        ("on_train_batch_begin", "train"),
        ("on_train_batch_end", "train"),
        ("on_test_batch_begin", "test"),
        ("on_test_batch_end", "test"),
        ("on_predict_batch_begin", "predict"),
        ("on_predict_batch_end", "predict"),
        ("on_epoch_end", None),
    ],
)
def test_hooks_are_seen_where_they_are_overridden(name, kind):
    """One overridden hook tells of one kind of batches, in a class, one derived from it, or a lambda."""
    mine = overriding(name)
    derived = type("Derived", (mine,), {})
    functions = callbacks.LambdaCallback(**{name: lambda *args, **kwargs: None})
    for callback in (mine(), derived(), functions, callbacks.CallbackList([mine()])):
        assert {key for key, ask in ASK.items() if ask([callbacks.Callback(), callback])} == ({kind} - {None})


@pytest.mark.parametrize(
    ("make", "looks"),
    [
        (lambda path: callbacks.EarlyStopping(), False),
        (lambda path: callbacks.ReduceLROnPlateau(), False),
        (lambda path: callbacks.CSVLogger(path / "log.csv"), False),
        (lambda path: callbacks.LearningRateScheduler(lambda epoch: 0.1), False),
        (lambda path: callbacks.SwapEMAWeights(), False),
        (lambda path: callbacks.History(), False),
        (lambda path: callbacks.LambdaCallback(on_epoch_end=print), False),
        (lambda path: callbacks.ModelCheckpoint(path / "m.keras"), False),
        (lambda path: callbacks.ModelCheckpoint(path / "m.keras", save_freq=3), True),
        (lambda path: type("Mine", (callbacks.ModelCheckpoint,), {})(path / "m.keras"), True),
        (lambda path: callbacks.TerminateOnNaN(), True),
        (lambda path: callbacks.TensorBoard(path, write_graph=False), True),
    ],
)
def test_stock_callbacks_look_at_training_batches_only_where_they_must(make, looks, tmp_path):
    """Callbacks that work by the epoch do not slow the steps down."""
    assert has_train_batch_hooks([make(tmp_path)]) is looks


def test_no_callbacks_look_at_nothing():
    """Without callbacks there are no hooks."""
    assert not any(ask([]) for ask in ASK.values())
