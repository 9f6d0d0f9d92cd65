"""Records to rows and back."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import xxhash

from keepfit.clock import Position
from keepfit.journal.records import CheckpointRecord, EpochRecord, EventRecord, FitRecord, SessionRecord

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

Row = dict[str, Any]


def to_text(data: Any) -> str:
    """Return plain data as JSON; numbers come back with the same bits, NaN and infinity included."""
    return json.dumps(data, default=_plain, separators=(",", ":"))


def document(data: Mapping[str, Any]) -> tuple[str, str]:
    """Return the hash and the text of a recipe or plan; equal ones have equal hashes."""
    text = json.dumps(data, default=_plain, separators=(",", ":"), sort_keys=True)
    return xxhash.xxh3_128_hexdigest(text.encode()), text


def fit_row(record: FitRecord, *, recipe: str, plan: str) -> Row:
    """Return the columns of a fit, given the hashes of its recipe and plan."""
    return record.to_json() | {
        "recipe": recipe,
        "plan": plan,
        "approximate": to_text(record.approximate),
        "detail": to_text(record.detail),
        "stop_training": int(record.stop_training),
    }


def fit_record(row: sqlite3.Row) -> FitRecord:
    """Return the fit of a row whose recipe and plan are texts."""
    values = dict(row)
    for name in ("recipe", "plan", "approximate", "detail"):
        values[name] = json.loads(values[name])
    return FitRecord(**values | {"stop_training": bool(values["stop_training"])})


def fit_to_text(record: FitRecord) -> str:
    """Return a whole fit as one text."""
    return to_text(record.to_json())


def fit_from_text(text: str) -> FitRecord:
    """Return the fit that `fit_to_text` gave."""
    return FitRecord.from_json(json.loads(text))


def epoch_row(record: EpochRecord) -> Row:
    """Return the columns of an epoch."""
    return _values(record) | {"logs": to_text(record.logs)}


def epoch_record(row: sqlite3.Row) -> EpochRecord:
    """Return the epoch of a row."""
    return EpochRecord(**dict(row) | {"logs": json.loads(row["logs"])})


def event_row(record: EventRecord) -> Row:
    """Return the columns of an event."""
    return _values(record) | {"data": to_text(record.data)}


def event_record(row: sqlite3.Row) -> EventRecord:
    """Return the event of a row."""
    values = dict(row) | {"data": json.loads(row["data"])}
    values.pop("id")
    return EventRecord(**values)


def checkpoint_record(row: sqlite3.Row) -> CheckpointRecord:
    """Return the checkpoint of a row."""
    values = dict(row)
    values.pop("fit_record")
    position = Position(
        fit=values.pop("fits"), epoch=values.pop("epoch"), step=values.pop("step"), samples=values.pop("samples")
    )
    for name in ("good", "pinned", "damaged"):
        values[name] = bool(values[name])
    for name in ("manifest", "state"):
        values[name] = json.loads(values[name])
    return CheckpointRecord(position=position, **values)


def session_record(row: sqlite3.Row) -> SessionRecord:
    """Return the session of a row."""
    return SessionRecord(**dict(row))


def bindable(values: Row) -> Row:
    """Return values that SQLite takes: NumPy's numbers, which it does not, as Python's."""
    return {name: value.item() if hasattr(value, "item") else value for name, value in values.items()}


def insertion(table: str, row: Row, *, verb: str = "INSERT") -> str:
    """Return the statement that inserts a row by the names of its columns."""
    # Names of tables and columns are ours; values are bound.
    return f"{verb} INTO {table} ({', '.join(row)}) VALUES ({', '.join(':' + name for name in row)})"


def _values(record: EpochRecord | EventRecord) -> Row:
    return {item.name: getattr(record, item.name) for item in fields(record)}


def _plain(value: Any) -> Any:
    """Return NumPy's numbers and arrays as Python's."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"Expected plain data for the journal, received {type(value).__name__}.")
