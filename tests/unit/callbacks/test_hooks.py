"""Which hooks callbacks look at."""

from __future__ import annotations

import keras
import pytest

from keepfit.callbacks import (
    BatchHooks,
    depends_on_epoch_numbers,
    has_predict_batch_hooks,
    has_test_batch_hooks,
    has_train_batch_hooks,
    may_rewrite_weights,
)

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


def calls_of(every: int, dispatches: list[int], *, done: int = 0) -> list[tuple[str, int, object]]:
    """Return the calls of batch hooks for an epoch that is dispatched like this."""
    calls: list[tuple[str, int, object]] = []
    hooks = BatchHooks(
        lambda batch: calls.append(("begin", batch, None)),
        lambda batch, logs: calls.append(("end", batch, logs)),
        every=every,
    )
    for count in dispatches:
        assert count <= hooks.most(done)
        hooks.before(done)
        done += count
        hooks.after(done, lambda done=done: done)
    hooks.close(done)
    assert not hooks.is_open
    return calls


def test_batch_hooks_come_in_pairs_of_steps_per_execution():
    """A pair of calls stands for so many batches, with the logs after the last; the last pair counts as a whole."""
    assert calls_of(1, [1, 1]) == [("begin", 0, None), ("end", 0, 1), ("begin", 1, None), ("end", 1, 2)]
    whole = [("begin", 0, None), ("end", 2, 3), ("begin", 3, None), ("end", 5, 5)]
    assert calls_of(3, [3, 1, 1]) == calls_of(3, [1, 2, 2]) == whole
    assert calls_of(3, [3, 3])[-1] == ("end", 5, 6)
    assert calls_of(3, []) == []


def test_batch_hooks_go_on_inside_a_pair():
    """A pair that was begun before an interruption is ended, and not begun again."""
    assert calls_of(3, [1, 1], done=4) == [("end", 5, 6)]


@pytest.mark.parametrize(
    ("make", "depends", "rewrites"),
    [
        (lambda: callbacks.LearningRateScheduler(lambda epoch: 0.1), True, False),
        (lambda: callbacks.EarlyStopping(), False, True),
        (lambda: callbacks.EarlyStopping(start_from_epoch=2), True, True),
        (lambda: callbacks.ReduceLROnPlateau(), False, False),
        (lambda: callbacks.CSVLogger("log.csv"), False, False),
        (lambda: callbacks.LambdaCallback(on_train_end=lambda logs: None), False, True),
        (lambda: overriding("on_train_end")(), False, True),
        (lambda: overriding("on_epoch_end")(), False, False),
    ],
)
def test_what_callbacks_depend_on_and_may_do(make, depends, rewrites):
    """It is known which callbacks act by the epoch's number, and which may change weights when a fit ends."""
    assert (depends_on_epoch_numbers(make()), may_rewrite_weights(make())) == (depends, rewrites)
