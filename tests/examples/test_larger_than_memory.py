"""examples/larger_than_memory.py, at small size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

SMALL = ("--parts", 20, "--rows", 1500, "--epochs", 2, "--window", 10, "--memory", 30)


def test_one_fit_over_partitions_learns_what_a_loop_forgets(run: Callable[..., list[str]], tmp_path: Path) -> None:
    """Partitions of one class each: one fit knows all classes, a loop the last ones; run again, it trains nothing."""
    lines = run("larger_than_memory", tmp_path / "large", *SMALL)
    one, loop = (float(line.rsplit(" ", 1)[1]) for line in lines if "accuracy" in line)
    assert one > loop + 0.05
    assert (tmp_path / "large/memory.png").stat().st_size > 10_000
    again = run("larger_than_memory", tmp_path / "large", *SMALL)
    assert [line for line in again if "accuracy" in line] == [line for line in lines if "accuracy" in line]
