"""Evaluating, predicting and single batches through a run, with the arguments of Keras."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import keras

from keepfit import _keras, evaluation
from keepfit.ahead import taken
from keepfit.callbacks import has_predict_batch_hooks, has_test_batch_hooks, make_progress
from keepfit.compiled import check_compiled, check_trains
from keepfit.data import class_weighted, evaluation_source
from keepfit.engine.base import Block
from keepfit.errors import InvalidArgument
from keepfit.evaluated import answer, note, question
from keepfit.feed import Feed, batch_samples
from keepfit.interrupts import Interrupts
from keepfit.placing import pay
from keepfit.snapshot import Snapshot
from keepfit.standing import state_not_kept

if TYPE_CHECKING:
    from keepfit.run import Run


def evaluate(
    run: Run,
    x: Any = None,
    y: Any = None,
    batch_size: int | None = None,
    verbose: Any = "auto",
    sample_weight: Any = None,
    steps: int | None = None,
    callbacks: Any = None,
    return_dict: bool = False,
) -> Any:
    """Evaluate; see ``keras.Model.evaluate``."""
    check_compiled(run.model, "evaluate")
    x, y, sample_weight = taken(x, y, sample_weight)
    source = evaluation_source(x, y, sample_weight, batch_size=batch_size, steps=steps)
    progress = make_progress(
        verbose, fit=0, name="evaluate", epochs=1, first_epoch=0, steps=steps or source.num_batches
    )
    asked = question(run, source, {"x": x, "y": y, "sample_weight": sample_weight}, steps=steps)
    if run.place.missing is not None:
        recorded = answer(run, asked)
        if recorded is None:
            raise state_not_kept(run, "evaluate")
        progress.say(f"evaluate was done before{_shown(recorded)}")
        return recorded if return_dict else _keras.flat_logs(run.model, recorded)
    pay(run, source, x)
    batch = source.peek()
    run.inventory.ready(batch, trains=False)
    run.engine.prepare(batch, plan=run.plan, verb="test")
    feed = Feed(source, steps_per_epoch=steps, most_steps=run.engine.most_steps)
    hooks = _callback_list(run, callbacks, steps=feed.steps)
    with Interrupts() as interrupts:
        logs = evaluation.evaluate(
            run.model,
            run.engine,
            feed,
            callbacks=hooks,
            batch_hooks=has_test_batch_hooks(hooks.callbacks),
            poll=interrupts.leave,
        )
    note(run, asked, logs)
    progress.say(f"evaluate{_shown(logs)}")
    return logs if return_dict else _keras.flat_logs(run.model, logs)


def predict(
    run: Run,
    x: Any,
    batch_size: int | None = None,
    verbose: Any = "auto",
    steps: int | None = None,
    callbacks: Any = None,
) -> Any:
    """Predict; see ``keras.Model.predict``."""
    del verbose  # predictions are shown by whoever asked for them
    x = taken(x, None, None)[0]
    source = evaluation_source(x, None, None, batch_size=batch_size, steps=steps)
    pay(run, source, x)
    batch = source.peek()
    run.inventory.ready_to_predict(batch)
    feed = Feed(source, steps_per_epoch=steps, most_steps=run.engine.most_steps)
    hooks = _callback_list(run, callbacks, steps=feed.steps)
    with Interrupts() as interrupts:
        return evaluation.predict(
            run.model,
            run.engine,
            feed,
            callbacks=hooks,
            batch_hooks=has_predict_batch_hooks(hooks.callbacks),
            poll=interrupts.leave,
        )


def train_on_batch(
    run: Run,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    class_weight: Any = None,
    return_dict: bool = False,
) -> Any:
    """Train on one batch; see ``keras.Model.train_on_batch``."""
    check_trains(run.model, "train_on_batch")
    if class_weight is not None:
        if sample_weight is not None:
            raise InvalidArgument(
                "train_on_batch takes sample_weight or class_weight, not both. Nothing was changed. Give one of them."
            )
        sample_weight = class_weighted(y, class_weight)
    batch, block = _one_block(x, y, sample_weight)
    run.inventory.ready(batch)
    run.inventory.seat_optimizer()
    run.engine.prepare(batch, plan=run.plan)
    run.model.reset_metrics()
    outcome = run.engine.train(block)
    run.engine.unsettled = False
    run.engine.refresh()  # an optimizer of the step's own may have been built
    _count_batch(run, batch)
    logs = outcome.logs()
    return logs if return_dict else _keras.flat_logs(run.model, logs)


def test_on_batch(run: Run, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False) -> Any:
    """Evaluate one batch; see ``keras.Model.test_on_batch``."""
    check_compiled(run.model, "test_on_batch")
    batch, block = _one_block(x, y, sample_weight)
    run.inventory.ready(batch, trains=False)
    run.engine.prepare(batch, plan=run.plan, verb="test")
    with evaluation.metrics_aside(run.engine):
        run.model.reset_metrics()
        logs = run.engine.test(block).logs()
    return logs if return_dict else _keras.flat_logs(run.model, logs)


def predict_on_batch(run: Run, x: Any) -> Any:
    """Predict one batch; see ``keras.Model.predict_on_batch``."""
    batch, block = _one_block(x, None, None)
    run.inventory.ready_to_predict(batch)
    return run.engine.predict(block)[0]


def _one_block(x: Any, y: Any, sample_weight: Any) -> tuple[Any, Block]:
    """Return a batch, and the block that holds it alone."""
    source = evaluation_source(x, y, sample_weight, batch_size=len(keras.tree.flatten(x)[0]), steps=None)
    block = Feed(source).next_block(1)
    assert isinstance(block, Block)
    return source.peek(), block


def _count_batch(run: Run, batch: Any) -> None:
    """Count a batch; in an appending run it is kept, as a further state at the end of the last fit."""
    place = run.place
    place.ends.batches += 1
    place.position = replace(
        place.position, step=place.position.step + 1, samples=place.position.samples + batch_samples(batch)
    )
    if not run.recorder.durable:
        return
    if run.mode != "append":
        run.say_once(
            "train_on_batch",
            'train_on_batch() is not recorded in a run that replays: use fit(), or a run with mode="append".',
        )
        return
    last = place.ends
    state = {**last.result.state, "position": place.position.to_json(), "batches": last.batches}
    snapshot = Snapshot({**last.result.tensors, **run.engine.variables.values()}, state)
    run.recorder.checkpoint(
        kind="end" if last.record is not None else "start",
        fit=place.fits,
        position=place.position,
        tensors=snapshot.tensors,
        state=snapshot.state,
    )


def _shown(logs: dict[str, Any]) -> str:
    return "".join(f" | {name} {value:.4g}" for name, value in logs.items() if isinstance(value, float))


def _callback_list(run: Run, callbacks: Any, *, steps: int | None) -> Any:
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return callbacks
    return keras.callbacks.CallbackList(callbacks, model=run.model, epochs=1, steps=steps, verbose=0)
