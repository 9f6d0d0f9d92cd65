"""Which samples a run keeps, and where they lie."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepfit.errors import warn
from keepfit.recorder import Recorder
from keepfit.rehearsal.kept import Kept
from keepfit.rehearsal.layout import Layout
from keepfit.rehearsal.shelf import FOLDER, FolderShelf, MemoryShelf, Shelf
from keepfit.store import dtype_named

KEPT = "rehearsal"  # key of the facts in the journal


class Register:
    """The samples that a run keeps, in the order in which they came.

    Args:
        recorder: Remembers what is known of them.
        directory: Folder of the run; None keeps them in the process.
    """

    def __init__(self, recorder: Recorder, directory: Path | None) -> None:
        self._recorder = recorder
        self._directory = directory
        self._kept = [Kept.from_json(facts) for facts in recorder.meta.get(KEPT) or ()]
        self._shelf: Shelf | None = None
        self._said: set[str] = set()

    def of(self, kind: str) -> list[Kept]:
        """Return what is kept of one kind."""
        return [kept for kept in self._kept if kept.kind == kind]

    def find(self, kind: str, data: str) -> Kept | None:
        """Return what is kept of some data, by its hash."""
        return next((kept for kept in self._kept if kept.kind == kind and kept.data == data), None)

    def whole(self, kind: str, data: str, *, fit: int) -> Kept | None:
        """Return what is kept of some data and can be read; that number ``fit`` had it too is noted where it is first.

        Args:
            kind: The kind.
            data: Hash of what identifies the data.
            fit: A fit with this data.
        """
        found = self.find(kind, data)
        if found is None or self.arrays(found) is None:
            return None
        if fit < found.fit:
            self._note([replace(each, fit=fit) if each is found else each for each in self._kept])
        return found

    def next_number(self, kind: str) -> int:
        """Return the number of what comes next of one kind."""
        return max((kept.number for kept in self.of(kind)), default=-1) + 1

    def arrays(self, kept: Kept) -> list[NDArray[Any]] | None:
        """Return the arrays of samples in the order of their layout, and last their keys; None where they are damaged.

        Damage is said once in a process.
        """
        leaves = Layout.from_json(kept.layout).leaves
        if not kept.samples:
            empty = [np.empty((0, *shape), dtype_named(dtype)) for _, dtype, shape in leaves]
            return [*empty, np.empty(0, np.uint64)]
        found = self._opened().find(kept.key, len(leaves) + 1)
        if isinstance(found, list):
            return found
        if kept.key not in self._said:
            self._said.add(kept.key)
            message = (
                f"The samples that were kept of fit {kept.fit} cannot be read: "
                f"{found or f'{FOLDER}/{kept.key} is not there'}. They are kept anew when a fit on that data is "
                "called again; until then fits go on without them."
            )
            self._recorder.event("damage", message, fit=kept.fit)
            warn(message)
        return None

    def add(self, kept: Kept, batches: Iterator[list[NDArray[Any]]]) -> None:
        """Keep samples, durably; those of the same kind and data are replaced.

        Args:
            kept: What is known of them.
            batches: Their arrays and keys, in pieces.

        Raises:
            StoreFull, StoreFailed, RunReadOnly: They could not be written.
        """
        if kept.samples:
            shelf = self._opened()
            shelf.keep_only({*(each.key for each in self._kept), kept.key})  # what a kill left half written
            shelf.put(kept.key, batches, kept.samples)
            self._said.discard(kept.key)
        others = [each for each in self._kept if (each.kind, each.data) != (kept.kind, kept.data)]
        self._note([*others, kept])

    def forget(self, fit: int) -> None:
        """Let go of what fits from number ``fit`` on brought: these are trained anew."""
        left = [each for each in self._kept if each.fit < fit]
        if len(left) < len(self._kept):
            self._note(left)
            self._opened().keep_only(each.key for each in left)

    def copy_to(self, other: Register, *, before: int) -> None:
        """Give another run what fits before number ``before`` brought, as far as it can be read."""
        for kept in self._kept:
            arrays = self.arrays(kept) if kept.fit < before else None
            if arrays is not None:
                other.add(kept, iter([arrays]))

    def _note(self, kept: list[Kept]) -> None:
        self._kept = sorted(kept, key=lambda each: each.number)
        if self._directory is not None:
            self._recorder.set_meta(KEPT, [each.to_json() for each in self._kept])
            self._recorder.flush()

    def _opened(self) -> Shelf:
        if self._shelf is None:
            found = MemoryShelf() if self._directory is None else FolderShelf(self._recorder, self._directory)
            self._shelf = found
        return self._shelf
