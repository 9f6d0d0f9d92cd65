"""The only place that touches files of the store."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

Bytes: TypeAlias = bytes | bytearray | memoryview


if sys.platform == "darwin":
    import fcntl

# Some network file systems do not sync directories; their server makes names durable.
_CANNOT_SYNC = {errno.EINVAL, errno.ENOTSUP}


class Disk:
    """Operations on files, each as durable as its docstring says.

    Every change of the store goes through one of these methods, so that a test
    can record them, refuse them, or replay a part of them as a power cut would.
    """

    def write(self, path: Path, chunks: Iterable[Bytes]) -> None:
        """Write a file and make its content durable; its name is not, until `sync_directory`."""
        with path.open("wb", buffering=0) as file:
            self.append(file.write, chunks)
            self.sync(file.fileno(), path)

    def append(self, write: Callable[[Bytes], int | None], chunks: Iterable[Bytes]) -> None:
        """Write chunks whole: the system may take less at a time, 2 GiB at most."""
        for chunk in chunks:
            rest = memoryview(chunk)
            while rest:
                rest = rest[write(rest) or 0 :]

    def sync(self, descriptor: int, path: Path) -> None:  # noqa: ARG002 (the path is for those who record)
        """Make the content of an open file durable."""
        if sys.platform == "darwin":  # there fsync leaves it in the drive's own memory
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        else:
            os.fsync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file its name, in place of any that had it; durable after `sync_directory`."""
        source.replace(target)

    def sync_directory(self, path: Path) -> None:
        """Make the names in a directory durable."""
        if os.name == "nt":  # directories cannot be opened there, and names are journalled
            return
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in _CANNOT_SYNC:
                raise
        finally:
            os.close(descriptor)

    def unlink(self, path: Path) -> None:
        """Remove a file if it is there."""
        with suppress(FileNotFoundError):
            path.unlink()

    def mkdir(self, path: Path) -> None:
        """Make a directory and its parents, durably; nothing happens if it is there."""
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            self.sync_directory(folder.parent)

    def read(self, path: Path) -> bytearray:
        """Return the bytes of a file, writable."""
        with path.open("rb", buffering=0) as file:
            data = bytearray(os.fstat(file.fileno()).st_size)
            rest = memoryview(data)
            while rest and (count := file.readinto(rest)):
                rest = rest[count:]
            return data[: len(data) - len(rest)] if rest else data

    def size(self, path: Path) -> int | None:
        """Return the size of a file in bytes, None if it is not there."""
        try:
            return path.stat().st_size
        except FileNotFoundError:
            return None

    def committed(self, durable: bool) -> None:
        """Be told of a commit of the journal; here, one who records sees it between the files."""
