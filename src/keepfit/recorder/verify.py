"""Every object of a run against its hash, every row against its objects."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keepfit.journal import FILE_NAME, CheckpointRecord, Reader
from keepfit.recorder.opening import OBJECTS
from keepfit.store import Store


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in a run's folder that is not as it was written.

    Args:
        file: The file, relative to the folder.
        reason: What is wrong, in words.
        checkpoints: Numbers of the checkpoints that need it.
        tensors: Names of the tensors that cannot be read.
    """

    file: str
    reason: str
    checkpoints: tuple[int, ...] = ()
    tensors: tuple[str, ...] = ()


def findings(directory: Path | str) -> list[Finding]:
    """Read a whole run and return what is damaged, nothing if all is well.

    Changes nothing, imports no Keras, and may run while the run is written.

    Raises:
        NotARun, FormatTooNew, RunFolderError: It cannot be read as a run.
    """
    directory = Path(directory)
    with Reader.open(directory) as reader:
        try:
            found = [Finding(FILE_NAME, reason) for reason in reader.damages()]
            checkpoints = reader.checkpoints(branch=None)
        except sqlite3.DatabaseError as error:
            return [Finding(FILE_NAME, str(error))]
    found += _object_findings(directory, checkpoints)
    if not found:
        return []
    # A live writer may have removed files meanwhile, with the checkpoints that needed them.
    with Reader.open(directory) as reader:
        alive = {item.id for item in reader.checkpoints(branch=None)}
    return [item for item in found if not item.checkpoints or alive & set(item.checkpoints)]


def _object_findings(directory: Path, checkpoints: list[CheckpointRecord]) -> list[Finding]:
    entries: dict[str, list[Any]] = {}  # one of each stored tensor, so that shared files are read once
    users: dict[str, list[tuple[int, str]]] = {}
    for record in checkpoints:
        for name, entry in record.manifest.items():
            key = "/".join(map(str, entry[:3]))
            entries[key] = entry
            users.setdefault(key, []).append((record.id, name))
    found = []
    for damage in Store(directory / OBJECTS).verify(entries):
        who = [user for key in damage.tensors for user in users[key]]
        found.append(
            Finding(
                f"{OBJECTS}/{damage.file}",
                damage.reason,
                tuple(sorted({number for number, _ in who})),
                tuple(sorted({name for _, name in who})),
            )
        )
    return found
