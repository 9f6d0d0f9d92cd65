"""examples/transfer_learning.py, killed in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from keepfit.demo.compare import differing_state

SMALL = ("--epochs", 2, "--samples", 200)


def test_transfer_learning_ends_the_same_when_killed_in_the_middle(
    start: Callable[..., subprocess.Popen[str]], run: Callable[..., list[str]], tmp_path: Path
) -> None:
    """Killed with SIGKILL after its new head was found a rate, and run again: the lines and bits of a control."""
    control, killed = tmp_path / "control", tmp_path / "killed"
    lines = run("transfer_learning", control, *SMALL, "--picture", tmp_path / "picture.png")
    assert [line.split(":")[0] for line in lines] == ["0 to 4", "range test", "head", "everything"]
    assert (tmp_path / "picture.png").stat().st_size > 20_000
    # The head alone has 128 * 5 + 5 weights.
    assert "645 weights trained" in lines[2]

    process = start("transfer_learning", killed, *SMALL)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("range test"):
            break
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the example ended before it could be killed"
    assert run("transfer_learning", killed, *SMALL) == lines
    differing, compared = differing_state(control, killed)
    assert (differing, compared > 20) == ([], True)
