"""The record of fits, epochs, events and checkpoints, in one SQLite file.

What only reads a run imports this package; it needs neither Keras nor a backend.
"""

from __future__ import annotations

from keepfit.journal.reader import FILE_NAME, Reader, check_journal
from keepfit.journal.records import (
    CheckpointKind,
    CheckpointRecord,
    EpochRecord,
    EventRecord,
    FitRecord,
    FitStatus,
    Manifest,
    SessionRecord,
)
from keepfit.journal.schema import not_a_run
from keepfit.journal.writer import Writer

__all__ = [
    "FILE_NAME",
    "CheckpointKind",
    "CheckpointRecord",
    "EpochRecord",
    "EventRecord",
    "FitRecord",
    "FitStatus",
    "Manifest",
    "Reader",
    "SessionRecord",
    "Writer",
    "check_journal",
    "not_a_run",
]
