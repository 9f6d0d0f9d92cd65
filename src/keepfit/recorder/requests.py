"""Checkpoints that were asked for and are not written yet."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection

    from keepfit.clock import Position
    from keepfit.journal import CheckpointKind, FitRecord
    from keepfit.recorder.snapshot import Snapshot


class Waiting:
    """Something that a caller waits for."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.error: Exception | None = None

    def settle(self, error: Exception | None = None) -> None:
        """Let the caller go on, with an error or without."""
        self.error = error
        self.done.set()


@dataclass(slots=True)
class Request:
    """One checkpoint to write; see `Recorder.checkpoint`.

    Args:
        state: Its JSON state, copied.
        fit_record: The row of its fit at the call.
        created: Wall clock at the call.
        order: Its place among the changes of rows: those before it are committed with it.
        must: Never replaced by a newer one.
        now: Written whatever the budget says.
        branch: 0, or the closed branch it has come to lie in.
        waiting: Who waits for it.
    """

    kind: CheckpointKind
    fit: int
    position: Position
    tensors: dict[str, Any]
    state: Snapshot
    good: bool
    fit_record: FitRecord | None
    created: float
    order: int
    must: bool
    now: bool
    branch: int = 0
    waiting: Waiting | None = field(default=None)

    def size_bytes(self) -> int:
        """Return the bytes of its tensors, as far as they tell."""
        return sum(int(getattr(array, "nbytes", 0)) for array in self.tensors.values())

    def settle(self, error: Exception | None = None) -> None:
        """Let go who waits for it."""
        if self.waiting is not None:
            self.waiting.settle(error)
            self.waiting = None


# Ends of earlier fits that wait beside the newest one hold no more than this.
_WAITING_BYTES = 64 << 20


class Requests:
    """Those that must be written, in order, the newest that may be replaced, and a few ends of fits before it.

    Where fits are shorter than the budget's intervals, the ends of the last few
    wait together and are written in one go, so that a script which is run again
    finds the results it reads between its fits.

    Not thread-safe: whoever holds one guards it.

    Args:
        keep: How many ends of fits may wait.
    """

    def __init__(self, keep: int = 10) -> None:
        self._keep = keep
        self.musts: deque[Request] = deque()
        self.older: deque[Request] = deque()
        self.pending: Request | None = None

    def __bool__(self) -> bool:
        return bool(self.musts) or self.pending is not None

    @property
    def urgent(self) -> bool:
        """Whether one has to be written whatever the budget says."""
        return bool(self.musts) or (self.pending is not None and self.pending.now)

    def add(self, request: Request) -> None:
        """Take one in; an older one that may be replaced is."""
        replaced, self.pending = self.pending, None
        if replaced is not None and replaced.kind == "end" and replaced.fit != request.fit:
            self._wait(replaced)
        if request.must:
            self.musts.extend([*self.older, request])
            self.older.clear()
        else:
            request.now = request.now or (replaced is not None and replaced.now)
            self.pending = request

    def _wait(self, request: Request) -> None:
        request.now = False
        self.older.append(request)
        while len(self.older) >= self._keep or sum(item.size_bytes() for item in self.older) > _WAITING_BYTES:
            self.older.popleft()
            if not self.older:
                return

    def take(self, *, due: bool) -> Request | None:
        """Take out the next to be written, None if nothing is to be written now."""
        if self.musts:
            return self.musts.popleft()
        if self.pending is not None and (due or self.pending.now):
            if self.older:
                return self.older.popleft()
            request, self.pending = self.pending, None
            return request
        return None

    def put_back(self, request: Request, error: Exception) -> None:
        """Take one back that could not be written.

        The state before fit 1 stays, and the newest of the others; who waits is
        told. So memory does not grow while the disk refuses.
        """
        everything = [request, *self.musts, *self.older, *([self.pending] if self.pending else [])]
        self.older.clear()
        for item in everything:
            item.settle(error)
        self.musts = deque(item for item in everything if item.kind == "start")
        self.pending = next((item for item in reversed(everything) if item.kind != "start"), None)
        if self.pending is not None:
            self.pending.now = self.pending.now or self.pending.must
            self.pending.must = False

    def rebranch(self, inflight: Request | None, *, after: int, number: int) -> None:
        """Move those of fits after ``after`` to a closed branch; the end of a fit there will be written."""
        self.older = deque(item for item in self.older if item.fit <= after)
        moved = [item for item in self._all(inflight) if item.branch == 0 and item.fit > after]
        for item in moved:
            item.branch = number
        if self.pending in moved and self.pending is not None:
            if self.pending.kind == "end":
                self.pending.must = True
                self.musts.append(self.pending)
            self.pending = None

    def _all(self, inflight: Request | None) -> Collection[Request]:
        return [*self.musts, *self.older, *(item for item in (self.pending, inflight) if item is not None)]
