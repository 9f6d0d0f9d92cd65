"""What ``evaluate`` gave between fits, so that a replay can give it again where the state is not kept.

See ``docs/decisions/0003-evaluations-are-recorded.md``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import xxhash

from keepfit import _keras
from keepfit.data import StreamSource, fingerprint
from keepfit.logs import numbers
from keepfit.recipe import plain_config

if TYPE_CHECKING:
    from keepfit.data import Source
    from keepfit.run import Run

_FIELD = "evaluated"


def question(run: Run, source: Source, data: Mapping[str, Any], *, steps: int | None, more: Any = None) -> str | None:
    """Return what identifies an evaluation from one process to the next, None where it is not recorded.

    Args:
        run: The run.
        source: What is evaluated on.
        data: ``x``, ``y`` and ``sample_weight`` as they were given.
        steps: As given.
        more: What else belongs to the question, as plain data.
    """
    place = run.place
    if run.mode != "replay" or not run.recorder.durable or isinstance(source, StreamSource):
        return None
    # Before fit 1 the state is always kept, and within an interrupted fit it has no number.
    if place.fits == 0 or place.open is not None:
        return None
    compiled = {name: plain_config(value) for name, value in _keras.compile_arguments(run.model).items()}
    facts = [fingerprint(dict(data)), source.batch_size, steps, compiled, *([] if more is None else [more])]
    return xxhash.xxh3_128_hexdigest(json.dumps(facts, sort_keys=True).encode())


def answer(run: Run, asked: str | None) -> dict[str, float] | None:
    """Return the logs that an evaluation at the script's place gave, None where they are not known."""
    record = run.recorder.fits.get(run.place.fits)
    if record is None or asked is None:
        return None
    found = record.detail.get(_FIELD, {}).get(asked)
    return None if found is None else dict(found)


def note(run: Run, asked: str | None, logs: Mapping[str, Any]) -> None:
    """Record what an evaluation gave; with weights set by hand the same question has no answer any more."""
    record = run.recorder.fits.get(run.place.fits)
    if record is None or asked is None:
        return
    plain = numbers(logs)
    by_hand = bool(run.place.ends.changed(run.engine.variables))
    told = None if by_hand or len(plain) < len(logs) else plain
    known = record.detail.get(_FIELD, {})
    if asked in known and (told is not None or known[asked] is None):
        return
    detail = {**record.detail, _FIELD: {**known, asked: told}}
    run.recorder.put_fit(replace(record, detail=detail))
