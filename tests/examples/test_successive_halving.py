"""examples/successive_halving.py, killed in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from keepfit.demo.compare import differing_state

SMALL = ("--candidates", 4, "--epochs", 2, "--samples", 256)


def test_successive_halving_ends_the_same_when_killed_in_the_middle(
    start: Callable[..., subprocess.Popen[str]], run: Callable[..., list[str]], tmp_path: Path
) -> None:
    """Killed with SIGKILL within its forks and started again, the search ends with the winner and bits of a control."""
    control, killed = tmp_path / "control", tmp_path / "killed"
    beside = start("successive_halving", control, *SMALL)

    process = start("successive_halving", killed, *SMALL)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("rung 1"):
            break
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the example ended before it could be killed"

    resumed = run("successive_halving", killed, *SMALL)
    undisturbed = beside.communicate()[0].splitlines()
    assert (beside.returncode, resumed) == (0, undisturbed)
    assert undisturbed[-1].startswith("winner: learning rate")
    folders = sorted(path.name for path in control.iterdir())
    assert folders == ["common", "rate-0", "rate-1", "rate-2", "rate-3"]
    for name in folders:
        differing, compared = differing_state(control / name, killed / name)
        assert (differing, compared > 20) == ([], True), name
