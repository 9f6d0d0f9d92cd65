"""Where kept samples lie: in files of the run folder, or in memory where the run has none."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepfit.recorder import Recorder, failure
from keepfit.store import FeatureFiles

FOLDER = "rehearsal"
FILES = "rehearsal_files"  # key of the register of files in the journal

Arrays = list[NDArray[Any]]


class Shelf(ABC):
    """Sets of arrays with a row per sample, each under a key."""

    @abstractmethod
    def find(self, key: str, count: int) -> Arrays | str | None:
        """Return the ``count`` arrays under a key; None where there are none, what is wrong where they are damaged."""

    @abstractmethod
    def put(self, key: str, batches: Iterator[Arrays], rows: int) -> None:
        """Keep arrays of so many rows, given in pieces, in place of what is there.

        Raises:
            StoreFull, StoreFailed, RunReadOnly: They could not be written.
        """

    @abstractmethod
    def keep_only(self, keys: Iterable[str]) -> None:
        """Let everything else go."""


class MemoryShelf(Shelf):
    """Arrays in the process."""

    def __init__(self) -> None:
        self._held: dict[str, Arrays] = {}

    def find(self, key: str, count: int) -> Arrays | str | None:
        """Return the arrays."""
        del count
        return self._held.get(key)

    def put(self, key: str, batches: Iterator[Arrays], rows: int) -> None:
        """Keep arrays."""
        del rows
        self._held[key] = [np.concatenate(pieces) for pieces in zip(*batches, strict=True)]

    def keep_only(self, keys: Iterable[str]) -> None:
        """Let everything else go."""
        wanted = set(keys)
        self._held = {key: arrays for key, arrays in self._held.items() if key in wanted}


class FolderShelf(Shelf):
    """Arrays in files of a run folder, which the journal knows before they are begun.

    Args:
        recorder: Remembers which files are the run's own.
        directory: Folder of the run.
    """

    def __init__(self, recorder: Recorder, directory: Path) -> None:
        self._recorder = recorder
        self._directory = directory
        self._files = FeatureFiles(directory / FOLDER, register=recorder.meta.get(FILES) or {}, note=self._note)

    def find(self, key: str, count: int) -> Arrays | str | None:
        """Return the arrays, mapped; their bytes are checked once in a process."""
        return self._files.find(key, count)

    def put(self, key: str, batches: Iterator[Arrays], rows: int) -> None:
        """Write arrays aside, durably, and name them."""
        try:
            self._files.write(key, batches, rows)
        except OSError as error:
            raise failure(error, self._directory) from error

    def keep_only(self, keys: Iterable[str]) -> None:
        """Remove the run's other files, and those whose writing was cut short."""
        try:
            self._files.keep_only(keys)
        except OSError as error:
            raise failure(error, self._directory) from error

    def _note(self, register: dict[str, Any]) -> None:
        self._recorder.set_meta(FILES, register)
        self._recorder.flush()
