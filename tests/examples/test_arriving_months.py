"""examples/arriving_months.py, as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def test_rehearsal_keeps_what_is_forgotten_without_it(run: Callable[..., list[str]], tmp_path: Path) -> None:
    """Half of the first month's accuracy or more; run again, it trains nothing and says the same."""
    lines = run("arriving_months", tmp_path / "months")
    without, with_it = (float(line.rsplit(" ", 1)[1]) for line in lines if "forgetting" in line)
    assert without > 0.3
    assert with_it < 0.1
    assert (tmp_path / "months/rehearse-0.3.png").stat().st_size > 10_000
    assert run("arriving_months", tmp_path / "months") == lines
