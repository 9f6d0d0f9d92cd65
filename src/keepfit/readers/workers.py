"""Processes that read partitions, for as long as they are needed.

They are started without the user's script: neither copied from this process,
whose backend has threads, nor by importing the script again, which would train
again where nothing guards it.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

from keepfit.readers.late import late
from keepfit.readers.part import Part, Piece
from keepfit.readers.wire import Question, pickled, receive, send

# A process starts in some tenths of a second, on a machine that is far too busy in some seconds.
_START_S = 120.0
_PROGRAM = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); sys.path[:] = {path!r}; "
    "from keepfit.readers.worker import main; main({parent})"
)


class Workers:
    """Processes that read, each one partition at a time; started when all others are busy.

    Args:
        timeout_s: Longest time that one may take for a partition, in seconds; None sets no limit.
    """

    def __init__(self, timeout_s: float | None = None) -> None:
        self._timeout_s = timeout_s
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()

    @property
    def pids(self) -> list[int]:
        """The processes that there are."""
        with self._lock:
            return [worker.process.pid for worker in (*self._idle, *self._busy)]

    def pieces(self, part: Part) -> Generator[Piece, None, None]:
        """Yield what a partition's ``pieces`` yields in another process.

        Raises:
            TimeoutError: It took longer than the limit; the process was ended.
            ChildProcessError: The process ended before the partition was read.
            Exception: What reading it raised.
        """
        return self._answers(part, "pieces")

    def first_pieces(self, part: Part, rows: int) -> Generator[Piece, None, None]:
        """Yield what a partition's ``first_pieces`` yields in another process; raises as `pieces`."""
        return self._answers(part, "first", rows)

    def count(self, part: Part) -> int:
        """Return what a partition's ``count`` returns in another process; raises as `pieces`."""
        (count,) = self._answers(part, "count")
        return int(count)

    def _answers(self, part: Part, what: str, *arguments: Any) -> Generator[Any, None, None]:
        worker = self._free()
        with self._lock:
            self._busy.add(worker)
        is_whole = False
        try:
            is_whole = yield from worker.answers(part, what, arguments, self._timeout_s)
        except _ReadingFailedError as failed:
            is_whole = True
            raise failed.error from None
        finally:
            with self._lock:
                # No longer busy where `close` has ended it meanwhile.
                kept = is_whole and worker in self._busy
                self._busy.discard(worker)
                if kept:
                    self._idle.append(worker)
            if not kept:
                worker.end()

    def _free(self) -> _Worker:
        """Return a process that nobody uses, a new one where there is none."""
        while True:
            with self._lock:
                worker = self._idle.pop() if self._idle else None
            if worker is None:
                return _Worker()
            if worker.process.poll() is None:
                return worker
            worker.end()  # it died while nobody needed it

    def close(self) -> None:
        """End the processes; others are started when they are needed."""
        if os.getpid() != self._owner:  # a copy of this process owns none of them
            return
        with self._lock:
            idle, busy = self._idle, self._busy
            self._idle, self._busy = [], set()
        for worker in busy:  # the thread that waits for it does the rest
            worker.process.kill()
        for worker in idle:
            worker.end()


class _ReadingFailedError(Exception):
    """Reading raised, in a process that can read on."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Worker:
    """One process that reads."""

    def __init__(self) -> None:
        program = _PROGRAM.format(path=[path or str(Path.cwd()) for path in sys.path], parent=os.getpid())
        self.process = subprocess.Popen(  # noqa: S603 - Python itself
            [sys.executable, "-P", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        # The time to start it is none of the partition's.
        limit = _Limit(self.process, _START_S)
        try:
            self._next()
        except BaseException:
            self.end()
            if limit.is_over:
                raise TimeoutError(
                    f"a process to read it did not start within {_START_S:g} seconds: what Python runs when it "
                    "starts (sitecustomize, .pth files), or the folders of its modules, may hang"
                ) from None
            raise
        finally:
            limit.lift()

    def answers(
        self, part: Part, what: str, arguments: tuple[Any, ...], timeout_s: float | None
    ) -> Generator[Any, None, bool]:
        """Yield what the process answers; return whether it can be asked more."""
        limit = _Limit(self.process, timeout_s)
        try:
            assert self.process.stdin is not None
            buffers: list[pickle.PickleBuffer] = []
            content = pickled(part, buffers)
            with contextlib.suppress(BrokenPipeError):  # how it ended is told when its answer is awaited
                send(self.process.stdin, Question(str(Path.cwd()), content, buffers, what, arguments))
            del content, buffers  # a table is not to be held twice while it is read
            while (answer := self._next()) is not None:
                yield answer
        except ChildProcessError:
            if limit.is_over:
                raise late(timeout_s) from None
            raise
        finally:
            limit.lift()
        return not limit.is_over

    def end(self) -> None:
        """Kill the process, and wait for its end."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):  # what was still to be written
                stream.close()  # type: ignore[union-attr]

    def _next(self) -> Any:
        """Return the next answer, or None behind the last one."""
        assert self.process.stdout is not None
        try:
            kind, content = receive(self.process.stdout)
        except EOFError:
            raise ChildProcessError(f"the process {self.process.pid} that read it {_end_of(self.process)}") from None
        if kind == "error":
            raise _ReadingFailedError(content)
        return content


class _Limit:
    """Kills a process after some time, unless it is lifted before."""

    def __init__(self, process: subprocess.Popen[bytes], timeout_s: float | None) -> None:
        self._process = process
        self._lock = threading.Lock()
        self._is_lifted = False
        self.is_over = False
        self._timer = None if timeout_s is None else threading.Timer(timeout_s, self._end)
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()

    def lift(self) -> None:
        """Let the process live; whether it still does, `is_over` tells from now on."""
        with self._lock:
            self._is_lifted = True
        if self._timer is not None:
            self._timer.cancel()

    def _end(self) -> None:
        with self._lock:
            if not self._is_lifted:
                self.is_over = True
                self._process.kill()


def _end_of(process: subprocess.Popen[bytes]) -> str:
    """Return in words how a process ended."""
    code = process.wait()
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
