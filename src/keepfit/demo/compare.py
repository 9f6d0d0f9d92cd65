"""Compare two run folders bit for bit, without Keras."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from keepfit.journal import Reader
from keepfit.store import Store


def differing_state(one: Path, other: Path) -> tuple[list[str], int]:
    """Return what differs between the ends of two runs, and how many parts were compared.

    Everything that decides the future is compared: tensors by their bytes,
    the rest as it is stored, and every logged number of every epoch. Wall
    clocks, process ids and places of files are not.

    Args:
        one: Folder of a run.
        other: Folder of another.
    """
    mine, theirs = _parts(one), _parts(other)
    names = sorted({*mine, *theirs})
    return [name for name in names if mine.get(name) != theirs.get(name)], len(names)


def _parts(directory: Path) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    with Reader.open(directory) as reader:
        checkpoint = reader.checkpoints()[-1]
        for name, array in Store(directory / "objects").read(checkpoint.manifest).items():
            parts[f"tensor {name}"] = (str(array.dtype), array.shape, array.tobytes())
        for end in ("result", "resume"):
            for part, value in checkpoint.state[end].items():
                parts[f"{end} {part}"] = json.dumps(value, sort_keys=True)
        for epoch in reader.epochs():
            parts[f"epoch {epoch.epoch}"] = (
                epoch.fit,
                epoch.label,
                epoch.step,
                epoch.samples,
                epoch.logs,
                epoch.learning_rate,
            )
        for fit in reader.fits():
            parts[f"fit {fit.number}"] = (fit.name, fit.status, fit.phase, fit.epochs_done, fit.learning_rate)
    return parts
