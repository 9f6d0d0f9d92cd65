"""Evaluating and predicting with an engine; the training metrics stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from keepfit import _keras
from keepfit.callbacks import BatchHooks
from keepfit.engine.base import Block, Engine
from keepfit.feed import Cursor, Feed
from keepfit.logs import flat
from keepfit.pace import Pace


@contextmanager
def metrics_aside(engine: Engine) -> Iterator[None]:
    """Put the metrics back as they were, whatever happens inside."""
    metrics, known = engine.variables.metrics, engine.variables.known
    values = known.values(metrics)
    try:
        yield
    finally:
        for variable, value in zip(metrics, values, strict=True):
            known.set_value(variable, value)


def evaluate(
    model: Any,
    engine: Engine,
    feed: Feed,
    *,
    callbacks: Any,
    batch_hooks: bool,
    poll: Callable[[], None] = lambda: None,
    watch: Callable[[Feed, Block], None] | None = None,
) -> dict[str, Any]:
    """Run the test step over one pass and return its logs.

    Args:
        model: The model, which the engine runs.
        engine: Prepared for the feed's batches.
        feed: What to evaluate on.
        callbacks: A ``keras.callbacks.CallbackList``; its test hooks are called.
        batch_hooks: Whether any of them looks at batches.
        poll: Called between dispatches; may raise.
        watch: Called with each block, and the feed as it stands behind it.
    """
    model.stop_evaluating = False
    callbacks.on_test_begin()
    logs: dict[str, Any] = {}
    hooks = _batch_hooks(callbacks, "test", model) if batch_hooks else None
    with metrics_aside(engine):
        engine.reset_metrics()
        outcome = None
        done = 0
        for step, block in blocks(feed, hooks=hooks):
            if hooks is not None:
                hooks.before(step)
            outcome = engine.test(block)
            done = step + block.count
            if watch is not None:
                watch(feed, block)
            if hooks is not None:
                hooks.after(done, outcome.logs)
            poll()
            if model.stop_evaluating and not (hooks is not None and hooks.is_open):
                break
        if hooks is not None:
            hooks.close(done)
        if outcome is not None:
            # By name, as Keras gives them.
            logs = epoch_logs(model, outcome.logs())
    callbacks.on_test_end(logs)
    return logs


def predict(
    model: Any, engine: Engine, feed: Feed, *, callbacks: Any, batch_hooks: bool, poll: Callable[[], None]
) -> Any:
    """Return the model's outputs for one pass with all samples on the first axis, as NumPy arrays where those do."""
    model.stop_predicting = False
    callbacks.on_predict_begin()
    outputs: list[Any] = []
    told = done = 0

    def new_outputs() -> dict[str, Any]:
        return {"outputs": engine.joined(outputs[told:])}

    hooks = _batch_hooks(callbacks, "predict", model) if batch_hooks else None
    for step, block in blocks(feed, hooks=hooks):
        if hooks is not None and not hooks.is_open:
            told = len(outputs)
        if hooks is not None:
            hooks.before(step)
        outputs += engine.predict(block)
        done = step + block.count
        if hooks is not None:
            hooks.after(done, new_outputs)
        poll()
        if model.stop_predicting and not (hooks is not None and hooks.is_open):
            break
    if hooks is not None:
        hooks.close(done)
    callbacks.on_predict_end()
    return engine.joined(outputs)


def blocks(feed: Feed, *, hooks: BatchHooks | None = None) -> Iterator[tuple[int, Block]]:
    """Yield one epoch's blocks, each with the number of batches before it.

    Args:
        feed: Where they come from.
        hooks: What looks at batches, and says how many may come at once; None lets their speed decide.
    """
    pace = Pace()
    done = 0
    # Every evaluation begins with the first batch, also where `steps` left the last one inside a pass.
    feed.cursor = Cursor()
    feed.begin_epoch()
    try:
        while (block := feed.next_block(pace.steps if hooks is None else hooks.most(done))) is not None:
            yield done, block
            done += block.count
    finally:
        feed.end_epoch()


def epoch_logs(model: Any, logs: dict[str, Any]) -> dict[str, Any]:
    """Return what Keras would log for a pass whose last step gave ``logs``, numbers as Python floats.

    Those are the results of the metrics, where their names are those of ``logs``.
    """
    if _keras.has_standard_logs(model):
        return dict(logs)
    results = flat(model.get_metrics_result())
    return {name: _plain(value) for name, value in (results if results.keys() == logs.keys() else logs).items()}


def _batch_hooks(callbacks: Any, kind: str, model: Any) -> BatchHooks:
    begin, end = (getattr(callbacks, f"on_{kind}_batch_{end}") for end in ("begin", "end"))
    return BatchHooks(begin, end, every=model.steps_per_execution)


def _plain(value: Any) -> Any:
    array = np.asarray(value)
    return float(array) if array.size == 1 and array.dtype.kind in "fiub" else value
