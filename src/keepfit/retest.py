"""Measuring what a model still knows of the validation sets of earlier fits, on states that are put back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import xxhash

from keepfit import _keras, evaluation, randomness
from keepfit.compiled import check_compiled
from keepfit.data import IndexedSource, evaluation_source
from keepfit.errors import InvalidArgument
from keepfit.feed import Feed
from keepfit.forgetting import Forgetting
from keepfit.interrupts import Interrupts
from keepfit.logs import more_is_better, numbers
from keepfit.recipe import plain_config
from keepfit.rehearsal import digest, few
from keepfit.snapshot import parted

if TYPE_CHECKING:
    from keepfit.data import Source
    from keepfit.rehearsal import ValidationSet
    from keepfit.run import Run

_MODEL = "model/"

Logs = dict[str, float]


def forgetting(run: Run, *, metric: str | None) -> Forgetting:
    """Return the matrix; see `keepfit.Run.forgetting`."""
    check_compiled(run.model, "forgetting")
    _check_known(run, metric)
    columns = _columns(run)
    if not columns:
        raise InvalidArgument(
            f"No validation set of the {run.place.fits} fits so far is at hand. Nothing was changed. Give fit "
            "validation_data that the script holds on to, or let the run keep it: fit(..., rehearse=...), or "
            "reservoir=1000 for the run. Streams cannot be kept."
        )
    return _matrix(run, columns, _measured(run, columns), metric)


@dataclass(frozen=True)
class _Column:
    """A validation set of the matrix.

    Args:
        fit: The fit it came with.
        data: Hash of what identifies it.
        source: Its samples, None where it is not at hand any more.
        samples: How many of its samples are measured on, where that is not all.
        compiled: Hash of what the model is compiled with.
    """

    fit: int
    data: str
    source: Source | None
    samples: int | None
    compiled: str

    def recorded(self, run: Run, fit: int) -> Logs | None:
        """Return what was measured after a fit; None where it was not, or on other terms."""
        found = run.past.retested.of(fit).get(self.data)
        if found is None or found["compiled"] != self.compiled:
            return None
        return found["logs"] if self.source is None or found["samples"] == self.samples else None

    def told(self, logs: Logs) -> dict[str, Any]:
        """Return what to record."""
        return {"compiled": self.compiled, "samples": self.samples, "logs": logs}


def _columns(run: Run) -> list[_Column]:
    """Return the sets of the fits so far, each once, in the order in which they came."""
    config = {name: plain_config(value) for name, value in _keras.compile_arguments(run.model).items()}
    compiled = xxhash.xxh3_128_hexdigest(json.dumps(config, sort_keys=True, default=str).encode())
    there = {each.data: each for each in reversed(list(run.past.validated.sets(run.place.fits)))}
    columns, gone = [], []
    for data, fits in _came(run).items():
        source = samples = None
        if data in there:
            found = there[data]
            source, samples = _without_a_trace(found), found.samples
            if samples is not None:
                text = f"The validation set of fit {fits[0]} is measured on {samples:,} of its {found.seen:,} samples."
                run.say_once(text, text, fit=fits[0])
        column = _Column(fits[0], data, source, samples, compiled)
        if source is None:
            gone += fits
        if source is not None or any(column.recorded(run, fit) for fit in range(fits[0], run.place.fits + 1)):
            columns.append(column)
    if gone and columns:
        text = (
            f"The validation sets of fit{'s' * (len(gone) > 1)} {few(gone)} are not at hand, and forgetting() does "
            "not measure on them. Hold on to the arrays, or let the run keep them with rehearse= or reservoir=."
        )
        run.say_once(text, text)
    return columns


def _came(run: Run) -> dict[str, list[int]]:
    """Return hash of a validation set -> the fits that had it, by when it came."""
    found: dict[str, list[int]] = {}
    for number, record in run.recorder.fits.items():
        facts = record.detail.get("facts", {}).get("validation")
        if facts is not None and number <= run.place.fits:
            found.setdefault(digest(facts["data"], facts["split"]), []).append(number)
    return found


def _without_a_trace(found: ValidationSet) -> Source | None:
    """Return a set as a source, None where to go through it leaves it elsewhere than it was."""
    source = evaluation_source(*found.given, batch_size=found.batch_size)
    if isinstance(source, IndexedSource) or (source.num_batches is not None and source.exactness == "exact"):
        return source
    return None


# Measuring


def _measured(run: Run, columns: list[_Column]) -> dict[int, dict[str, Logs]]:
    """Return fit -> set -> logs, measuring what is not recorded and can be."""
    rows: dict[int, dict[str, Logs]] = {}
    todo: dict[int, list[_Column]] = {}
    for fit in range(columns[0].fit, run.place.fits + 1):
        found = {column.data: column.recorded(run, fit) for column in columns if column.fit <= fit}
        rows[fit] = {data: logs for data, logs in found.items() if logs is not None}
        missing = [c for c in columns if c.source is not None and c.fit <= fit and c.data not in rows[fit]]
        if missing:
            todo[fit] = missing
    if not todo:
        return rows
    first = next(iter(todo.values()))[0].source
    assert first is not None
    if run.place.missing is None:
        run.inventory.ready(first.peek(), trains=False)
    unknown = []
    with _put_back(run), Interrupts() as interrupts:
        for fit, missing in sorted(todo.items(), reverse=True):  # the newest first: the model may hold it
            if not _bring(run, fit):
                unknown.append(fit)
                continue
            rows[fit] |= {column.data: _evaluated(run, column, interrupts.leave) for column in missing}
    for fit, missing in todo.items():
        if fit not in unknown:
            run.past.retested.note(fit, {column.data: column.told(rows[fit][column.data]) for column in missing})
    if unknown:
        several = "s" * (len(unknown) > 1)
        run.say_once(
            "forgetting",
            f"forgetting() leaves out the state{several} after fit{several} {few(unknown)}, not kept or of other "
            "variables: NaN in the matrix. What is asked for after each fit is recorded; name= and keep= keep states.",
        )
    return rows


@contextmanager
def _put_back(run: Run) -> Iterator[None]:
    """Put back the model's variables and the global generators, whatever happens inside."""
    values, generators = run.engine.variables.values(), randomness.take()
    try:
        yield
    finally:
        run.engine.variables.assign(values, skip=_is_no_weight)
        randomness.restore(generators)


def _is_no_weight(name: str) -> bool:
    return not name.startswith(_MODEL)


def _bring(run: Run, fit: int) -> bool:
    """Let the model hold the result of a fit; return whether that is known."""
    place, variables = run.place, run.engine.variables
    if fit == place.fits and _stands_at_end(run):
        return True
    checkpoint = run.recorder.end_of(fit)
    if checkpoint is None:
        return False
    result, _ = parted(*run.recorder.load(checkpoint))
    wanted = {name: variable for name, variable in variables.items() if not _is_no_weight(name)}
    kept = {name: value for name, value in result.tensors.items() if not _is_no_weight(name)}
    if wanted.keys() != kept.keys() or any(tuple(np.shape(kept[n])) != tuple(v.shape) for n, v in wanted.items()):
        return False
    variables.assign(kept, skip=_is_no_weight)
    return True


def _stands_at_end(run: Run) -> bool:
    """Return whether the model holds what its last fit left."""
    place = run.place
    if place.missing is not None or place.unsure or place.open is not None or place.ends.batches:
        return False
    return not place.ends.changed(run.engine.variables)


def _evaluated(run: Run, column: _Column, poll: Callable[[], None]) -> Logs:
    source = column.source
    assert source is not None
    run.engine.prepare(source.peek(), plan=run.plan, verb="test")
    callbacks = keras.callbacks.CallbackList(None, model=run.model, epochs=1, steps=source.num_batches, verbose=0)
    feed = Feed(source, most_steps=run.engine.most_steps)
    logs = evaluation.evaluate(run.model, run.engine, feed, callbacks=callbacks, batch_hooks=False, poll=poll)
    return numbers(logs)


# The matrix


def _matrix(run: Run, columns: list[_Column], rows: Mapping[int, Mapping[str, Logs]], metric: str | None) -> Forgetting:
    logs = [found for each in reversed(list(rows.values())) for found in each.values()]
    names = list(dict.fromkeys(name for each in logs for name in each))
    chosen = _chosen(names, metric)
    matrix = np.full((len(rows), len(columns)), np.nan)
    for row, (fit, values) in enumerate(rows.items()):
        for place, column in enumerate(columns):
            if column.fit <= fit:
                matrix[row, place] = values.get(column.data, {}).get(chosen, np.nan)
    named = tuple((n, r.name) for n, r in run.recorder.fits.items() if n in rows and r.name)
    sets = tuple(column.fit for column in columns)
    return Forgetting(matrix, tuple(rows), sets, chosen, more_is_better(chosen), named)


def _chosen(names: list[str], metric: str | None) -> str:
    if metric is None:
        return next((name for name in names if "acc" in name), "loss")
    asked = metric.removeprefix("val_")
    if asked not in names:
        raise _refused(metric, names)
    return asked


def _check_known(run: Run, metric: Any) -> None:
    """Refuse what is no metric before anything is measured, as far as the logs tell."""
    if metric is None:
        return
    logged = [name for fit in range(1, run.place.fits + 1) for name in run.recorder.epochs.last_logs(fit)]
    names = list(dict.fromkeys(name.removeprefix("val_") for name in logged if name.startswith("val_")))
    if not isinstance(metric, str) or (names and metric.removeprefix("val_") not in names):
        raise _refused(metric, names)


def _refused(metric: Any, names: list[str]) -> InvalidArgument:
    return InvalidArgument(
        f"forgetting cannot take metric={metric!r}: expected one of {', '.join(names) or 'the metrics'}. "
        "Nothing was changed.",
        argument="metric",
        value=metric,
    )
