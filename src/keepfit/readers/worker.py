"""A process that reads partitions for another one: started by `workers`, never imported by it."""

from __future__ import annotations

import io
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from typing import IO, Any

from keepfit.readers.wire import Question, receive, send

_LOOKS_S = 0.5
# What may be asked of a partition; each gives answers one by one.
_READS: dict[str, Callable[..., Iterable[Any]]] = {
    "pieces": lambda part: part.pieces(),
    "first": lambda part, rows: part.first_pieces(rows),
    "count": lambda part: [part.count()],
}


def main(parent: int) -> None:
    """Read partitions as they are asked for, until nobody asks any more.

    Args:
        parent: The process that asks.
    """
    # Ctrl-C goes to all processes of a terminal, and what it means is the parent's business.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    asked, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # What the user's code prints must not come between the answers, and it has nothing to ask.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # nothing is flushed when this process is killed
    send(answers, ("ready", None))
    while True:
        try:
            question = receive(asked)
        except EOFError:
            os._exit(0)
        _answer(answers, question)


def _answer(answers: IO[bytes], question: Question) -> None:
    try:
        os.chdir(question.folder)
        part = pickle.loads(question.part, buffers=question.buffers)  # noqa: S301 - from the process that asks
        for answer in _READS[question.what](part, *question.arguments):
            send(answers, ("answer", answer))
    except BrokenPipeError:
        os._exit(0)
    except BaseException as error:  # noqa: BLE001 - raised in the process that asked
        send(answers, ("error", _sendable(error)))
        return
    send(answers, ("end", None))


def _sendable(error: BaseException) -> BaseException:
    """Return an exception, or one that says the same, that the other process can take."""
    text = "".join(traceback.format_exception(error))
    try:
        found = pickle.loads(pickle.dumps(error))  # noqa: S301 - just written
        same = isinstance(found, Exception) and str(found) == str(error)
    except Exception:  # noqa: BLE001 - whatever an exception of the user's does
        same = False
    told: Any = error if same else RuntimeError(f"{type(error).__name__}: {error}")
    told.add_note(f"In the process that read it ({os.getpid()}):\n{text.rstrip()}")
    return told  # type: ignore[no-any-return]


def _watch(parent: int) -> None:
    """End this process with the one it reads for, also when that was killed in the middle of a partition."""
    while os.name != "posix" or os.getppid() == parent:
        threading.Event().wait(_LOOKS_S)
    os._exit(1)
