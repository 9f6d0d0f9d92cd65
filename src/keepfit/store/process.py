"""Who a process is, so that another can tell whether it still lives."""

from __future__ import annotations

import os
import socket
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """One process of one boot of one machine.

    Args:
        host: Name of the machine.
        boot: Identity of its current boot, empty where the system has none.
        space: Identity of the space of process numbers (containers have their own).
        pid: Process number; reused sooner or later.
        started: Start time as the system tells it, empty where it does not;
            tells a process from a later one with its number.
    """

    host: str
    boot: str
    space: str
    pid: int
    started: str

    @classmethod
    def current(cls) -> Process:
        """Return this process."""
        pid = os.getpid()
        return cls(socket.gethostname(), _boot(), _space(), pid, _started(pid) or "")

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Process:
        """Return the process that `to_json` gave.

        Raises:
            KeyError, ValueError, TypeError: The data does not describe one.
        """
        return cls(str(data["host"]), str(data["boot"]), str(data["space"]), int(data["pid"]), str(data["started"]))

    def to_json(self) -> dict[str, Any]:
        """Return the process as plain data."""
        return asdict(self)

    def lives(self) -> bool | None:
        """Return whether it lives, None where that cannot be seen from here."""
        here = Process.current()
        if self.host != here.host:
            return None
        if self.boot != here.boot:
            return False
        if self.space != here.space:
            return None
        started = _started(self.pid)
        return started is not None and started == self.started


def _boot() -> str:
    path = _PROC / "sys/kernel/random/boot_id"
    return path.read_text().strip() if path.exists() else ""


def _space() -> str:
    try:
        return (_PROC / "self/ns/pid").readlink().name
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """Return the start time of a living process, "" where unknown, None if there is no such process."""
    if not _PROC.joinpath("self/stat").exists():
        return _started_elsewhere(pid)
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The name in parentheses may hold anything, so count from the last one. Field 3 is the state, 22 the start.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def _started_elsewhere(pid: int) -> str | None:
    """Ask ``ps``, for systems without /proc."""
    try:
        answer = subprocess.run(  # noqa: S603 (a number is the only input)
            ["ps", "-o", "state=,lstart=", "-p", str(pid)],  # noqa: S607 (it lies elsewhere on each system)
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        ).stdout.split()
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return " ".join(answer[1:]) if answer and not answer[0].startswith("Z") else None
