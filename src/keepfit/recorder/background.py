"""The thread that writes, and how callers hand it what there is to write."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

from keepfit.errors import KeepfitError, RunClosed, RunGone
from keepfit.recorder.failures import failure
from keepfit.recorder.requests import Request, Requests, Waiting

if TYPE_CHECKING:
    from pathlib import Path

    from keepfit.recorder.budget import Budget
    from keepfit.recorder.work import Change, Work

TICK_S = 0.5  # rows wait no longer than this; they wake nobody, since a wake-up costs the caller more than the row
RETRY_S = 5.0
_MOST_MUSTS = 4


class Background:
    """Queues in front of `Work`, and the daemon thread that empties them.

    Args:
        work: What writes.
        budget: When a checkpoint that can wait is written.
        gate: Guards all that callers and the thread share; the thread sleeps on it.
        directory: The folder of the run, for messages.
    """

    def __init__(self, *, work: Work, budget: Budget, gate: threading.Condition, directory: Path) -> None:
        self._work = work
        self._budget = budget
        self._gate = gate
        self._directory = directory
        self._changes: deque[tuple[int, Change]] = deque()
        self._order = 0
        self._requests = Requests(work.keep)
        self._round_cost_s = 0.0
        self._inflight: Request | None = None
        self._flushes: list[Waiting] = []
        self._retry_at = 0.0
        self._error: Exception | None = None
        self._closed = False
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"keepfit writer of {directory.name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def change(self, change: Change) -> None:
        """Queue a change of rows; they are committed in this order.

        Raises:
            RunClosed: The recorder was closed.
        """
        with self._gate:
            self._refuse_if_closed()
            self._order += 1
            self._changes.append((self._order, change))

    def order(self) -> int:
        """Return the place behind all changes queued so far."""
        return self._order + 1

    def request(self, request: Request) -> None:
        """Queue a checkpoint, and wake the thread if it is to be written at once.

        With several that must be written before it, this waits for the disk: memory
        must not fill up with states.
        """
        with self._gate:
            self._refuse_if_closed()
            while request.must and len(self._requests.musts) >= _MOST_MUSTS and self._thread.is_alive():
                self._gate.wait(TICK_S)
            self._requests.add(request)
            if self._requests.urgent:
                self._retry_at = 0.0
                self._gate.notify_all()

    def rebranch(self, *, after: int, number: int) -> None:
        """Move checkpoints that are not written yet to a closed branch."""
        with self._gate:
            self._requests.rebranch(self._inflight, after=after, number=number)

    def busy(self) -> bool:
        """Return whether a checkpoint waits or is being written."""
        return bool(self._requests) or self._inflight is not None

    def due(self, size_bytes: int) -> bool:
        """Return whether one more checkpoint fits the budget now."""
        return self._inflight is None and not self._requests.musts and self._budget.due(size_bytes)

    def flush(self) -> None:
        """Return when all that is queued is written.

        Raises:
            RunFolderError: It could not be.
        """
        waiting = Waiting()
        with self._gate:
            if self._stopping:
                return
            self._flushes.append(waiting)
            self._gate.notify_all()
        self.wait(waiting)

    def wait(self, waiting: Waiting) -> None:
        """Return when a request or flush is settled, or raise what hindered it."""
        # A thread is not alive in a child that was forked, either.
        while not waiting.done.wait(TICK_S):
            if not self._thread.is_alive():
                raise self._error or RunClosed(f"The run in {self._directory} is not written from this process.")
        if waiting.error is not None:
            raise waiting.error

    def check(self) -> None:
        """Raise what went wrong behind the callers' backs since the last call, once."""
        if self._error is not None:
            with self._gate:
                error, self._error = self._error, None
            if error is not None:
                raise error

    def note(self, error: Exception) -> None:
        """Keep an error for `check`; the first one, if several come."""
        with self._gate:
            self._error = self._error or error

    def stop(self) -> None:
        """Write what is left and end the thread.

        Raises:
            RunFolderError: Something could not be written; the thread has ended.
        """
        self._closed = True
        try:
            self.flush()
        finally:
            with self._gate:
                self._stopping = True
                self._gate.notify_all()
            self._thread.join()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise RunClosed(
                f"The run in {self._directory} was closed. Nothing was changed. Open it again to record more."
            )

    def _run(self) -> None:
        try:
            while True:
                with self._gate:
                    self._gate.wait_for(self._awake, timeout=TICK_S)
                    if self._stopping:
                        return
                    flushes, self._flushes = self._flushes, []
                self._round(flushes)
        except BaseException as error:
            self._abandon(error)
            raise

    def _awake(self) -> bool:
        urgent = self._requests.urgent and time.monotonic() >= self._retry_at
        return bool(self._flushes) or self._stopping or urgent

    def _round(self, flushes: list[Waiting]) -> None:
        """Write what is to be written now, everything if somebody flushes."""
        self._work.lock.beat()
        error: Exception | None = None
        if flushes or time.monotonic() >= self._retry_at:
            try:
                while request := self._take(everything=bool(flushes)):
                    self._write(request)
                if self._round_cost_s:
                    self._budget.spent(self._round_cost_s)
                    self._round_cost_s = 0.0
                self._write_rows(durable=bool(flushes))
            except (OSError, sqlite3.Error, KeepfitError) as problem:
                error = self._told(problem)
                self._retry_at = time.monotonic() + RETRY_S
                told = self._give_back(error)
                if not (flushes or told):
                    self.note(error)
        self._note_refused()
        for waiting in flushes:
            waiting.settle(error)

    def _told(self, problem: Exception) -> Exception:
        """Return the error to raise for one that came up; in a folder that is gone everything fails, in its own way."""
        try:
            self._work.lock.stand()
        except RunGone as gone:
            gone.__cause__ = problem
            return gone
        return failure(problem, self._directory)

    def _note_refused(self) -> None:
        while self._work.refused:
            self.note(self._work.refused.pop(0))

    def _take(self, *, everything: bool) -> Request | None:
        with self._gate:
            pending = self._requests.pending
            # What waits together is written together, and paid for as one.
            due = (
                everything or self._round_cost_s > 0 or (pending is not None and self._budget.due(pending.size_bytes()))
            )
            self._inflight = self._requests.take(due=due)
            self._gate.notify_all()
            return self._inflight

    def _write(self, request: Request) -> None:
        started = time.perf_counter()
        changes = self._queued(before=request.order)
        try:
            self._work.write_checkpoint(request, changes)
        except (OSError, sqlite3.Error, KeepfitError):
            self._budget.spent(time.perf_counter() - started)
            self._round_cost_s = 0.0
            raise
        except Exception as error:  # noqa: BLE001 (such as a device array that was deleted: it will never succeed)
            self._forget(request, error)
            return
        with self._gate:
            self._drop(len(changes))
            self._inflight = None
            request.settle()
        try:
            self._work.tidy()
        except OSError as error:
            self.note(failure(error, self._directory))
        if request.kind != "start":  # the first one pays for the folder, too, and says nothing about the next
            self._round_cost_s += time.perf_counter() - started

    def _write_rows(self, *, durable: bool) -> None:
        changes = self._queued()
        if changes:
            self._work.write_rows(changes, durable=durable)
            with self._gate:
                self._drop(len(changes))

    def _queued(self, before: int | None = None) -> list[Change]:
        with self._gate:
            count = len(self._changes)
            if before is not None:
                count = next((index for index, (order, _) in enumerate(self._changes) if order >= before), count)
            return [change for _order, change in islice(self._changes, count)]

    def _drop(self, count: int) -> None:
        for _ in range(count):
            self._changes.popleft()

    def _give_back(self, error: Exception) -> bool:
        """Queue again what could not be written; return whether a caller was told."""
        with self._gate:
            request, self._inflight = self._inflight, None
            if request is None:
                return False
            told = request.waiting is not None
            self._requests.put_back(request, error)
            return told

    def _forget(self, request: Request, error: Exception) -> None:
        with self._gate:
            self._inflight = None
            told = request.waiting is not None
            request.settle(error)
        if not told:
            self.note(error)

    def _abandon(self, error: BaseException) -> None:
        """Let everybody go who waits: this thread ends for a reason nobody foresaw."""
        problem = error if isinstance(error, Exception) else RuntimeError(f"the writer ended: {error!r}")
        with self._gate:
            self._error = self._error or problem
            waiting = [*self._flushes, *(item.waiting for item in self._requests.musts if item.waiting)]
            if self._inflight is not None and self._inflight.waiting is not None:
                waiting.append(self._inflight.waiting)
        for item in waiting:
            item.settle(problem)
