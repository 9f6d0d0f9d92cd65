"""Messages between a process and those that read for it: pickles, with the memory of arrays beside them.

Both ends are keepfit, and one has started the other.
"""

from __future__ import annotations

import io
import pickle
import struct
from dataclasses import dataclass
from types import FunctionType
from typing import IO, Any

import numpy as np

from keepfit.aligned import mapped_empty
from keepfit.readers.arrow import is_arrow, rows_alone

_COUNT = struct.Struct("<Q")


@dataclass(frozen=True)
class Question:
    """What a process is asked to read.

    Args:
        folder: The folder that is the current one.
        part: The partition, pickled.
        buffers: The memory of arrays that is not in the pickle.
        what: ``"pieces"``, ``"first"`` (pieces) or ``"count"``.
        arguments: How many rows the first pieces have.
    """

    folder: str
    part: bytes
    buffers: list[Any]
    what: str
    arguments: tuple[Any, ...]


class MainModuleError(Exception):
    """Something lies in the script, which a process that reads does not run; never seen outside the package."""


def send(stream: IO[bytes], message: Any) -> None:
    """Write a message.

    Raises:
        Exception: It cannot be pickled; nothing was written.
    """
    buffers: list[pickle.PickleBuffer] = []
    content = pickled(message, buffers)
    parts = [memoryview(content), *(buffer.raw() for buffer in buffers)]
    stream.write(_COUNT.pack(len(parts)) + b"".join(_COUNT.pack(part.nbytes) for part in parts))
    for part in parts:
        stream.write(part)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """Return the next message.

    Raises:
        EOFError: The other end is gone.
    """
    (count,) = _COUNT.unpack(_read(stream, _COUNT.size))
    sizes = [_COUNT.unpack(_read(stream, _COUNT.size))[0] for _ in range(count)]
    content, *buffers = [_read(stream, size) for size in sizes]
    return pickle.loads(content, buffers=buffers)  # noqa: S301 - from the process that this one belongs to


def pickled(value: Any, buffers: list[pickle.PickleBuffer] | None = None) -> bytes:
    """Return a pickle that another process can read.

    Args:
        value: What to pickle.
        buffers: Gets the memory of arrays, which is not in the pickle then.

    Raises:
        MainModuleError: It needs a function or class of the script.
        Exception: It cannot be pickled.
    """
    file = io.BytesIO()
    _Pickler(file, protocol=5, buffer_callback=None if buffers is None else buffers.append).dump(value)
    return file.getvalue()


def refusal(value: Any) -> Exception | None:
    """Return why something cannot be sent to another process, or None; the memory of arrays is not copied for it."""
    try:
        _Pickler(_Nowhere(), protocol=5, buffer_callback=lambda _: None).dump(value)
    except Exception as error:  # noqa: BLE001 - whatever an object of the user's does when it is pickled
        return error
    return None


class _Nowhere(io.RawIOBase):
    """Takes what is written, and keeps none of it."""

    def write(self, content: Any) -> int:
        return memoryview(content).nbytes


class _Pickler(pickle.Pickler):
    """Refuses names in a module that the other process does not have, and sends the rows of a table alone."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, (FunctionType, type)) and value.__module__ in ("__main__", "__mp_main__"):
            raise MainModuleError(f"{value.__qualname__} is defined in the script itself")
        if is_arrow(value):
            return rows_alone(value) or NotImplemented
        return NotImplemented


def _read(stream: IO[bytes], size: int) -> memoryview:
    # Large memory goes back to the system with the arrays that lie in it.
    memory: Any = mapped_empty((size,), np.dtype(np.uint8)) if size > 1 << 16 else np.empty(size, np.uint8)
    wanted, done = memoryview(memory), 0
    while done < size:
        more = stream.readinto(wanted[done:])  # type: ignore[attr-defined]
        if not more:
            raise EOFError
        done += more
    return wanted
