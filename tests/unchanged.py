"""What a refused call must leave as it was, and runs to refuse calls on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import keras
import pytest

import keepfit
from keepfit import randomness
from keepfit.errors import KeepfitError
from keepfit.journal import FILE_NAME, Reader
from tests.bits import differing, state_bits
from tests.models import make


def files_of(directory: Path) -> dict[str, bytes]:
    """Return the name and bytes of every file of a folder; of a run's journal and lock the names only."""
    opaque = (FILE_NAME, "lock")
    found = [path for path in directory.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(directory)): b"" if path.name.startswith(opaque) else path.read_bytes() for path in found
    }


def rows_of(directory: Path) -> dict[str, str]:
    """Return every row of a journal on disk, by table."""
    with Reader.open(directory) as reader:
        tables = (reader.meta, reader.fits, reader.epochs, reader.events, reader.checkpoints, reader.sessions)
        return {table.__name__: repr(table()) for table in tables}


def facts_of(run: Any) -> dict[str, Any]:
    """Return what a call may change: model state, global generators, place, rows and files."""
    recorder = run.recorder
    if run.directory is not None and run.closed is None:
        recorder.flush()
    facts: dict[str, Any] = {f"state: {name}": bits for name, bits in state_bits(run.model).items()}
    facts |= {
        "generators": repr(randomness.take()),
        "position": run.position,
        "closed": run.closed,
        "fits": repr(dict(recorder.fits)),
        "epochs": repr(list(recorder.epochs)),
        "events": [(event.kind, event.message) for event in recorder.events],
        "checkpoints": [checkpoint.id for checkpoint in recorder.checkpoints],
        "meta": dict(recorder.meta),
    }
    if run.directory is not None:
        facts |= {"rows": rows_of(run.directory), "files": files_of(run.directory)}
    return facts


@contextmanager
def unchanged(run: Any) -> Iterator[None]:
    """Check that the block changes neither model nor run nor folder."""
    before = facts_of(run)
    yield
    changed = differing(before, facts_of(run))
    assert changed == [], f"changed: {changed}"


def refuse(run: Any, call: Callable[[], Any], error: type[Exception], words: str) -> None:
    """Check that a call raises an error in the house form, and changes nothing."""
    with unchanged(run), pytest.raises(error, match=words) as caught:
        call()
    assert isinstance(caught.value, KeepfitError)
    assert "Nothing was changed." in str(caught.value)


class Batches(keras.utils.PyDataset):
    """A PyDataset of batches of ten."""

    def __init__(self, x: Any, y: Any) -> None:
        super().__init__()
        self.x, self.y = x, y

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> Any:
        rows = slice(index * 10, index * 10 + 10)
        return self.x[rows], self.y[rows]


def batches(x: Any, y: Any) -> Iterator[Any]:
    """Yield batches of ten without end."""
    while True:
        yield from (Batches(x, y)[index] for index in range(7))


def train(run: Any, x: Any, y: Any) -> None:
    """Fit once, correctly."""
    run.fit(x, y, batch_size=10, verbose=0)


def begun(directory: Path | None, **settings: Any) -> tuple[Any, Any, Any]:
    """Return a run with one fit behind it, and its data."""
    model, x, y = make("dropout_batch_norm")
    run = keepfit.Run(model, directory, checkpoint_share="each", **settings)
    train(run, x, y)
    return run, x, y


@cache
def two_fits() -> Any:
    """Return the state after two fits with nothing wrong between them."""
    run, x, y = begun(None)
    with run:
        train(run, x, y)
        return state_bits(run.model)
