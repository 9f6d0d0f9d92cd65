"""examples/notebook_journey.py: a kernel that is restarted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from keepfit.demo.compare import differing_state


def test_notebook_goes_on_when_its_kernel_is_restarted(run: Callable[..., list[str]], tmp_path: Path) -> None:
    """The build cell run twice and a restart change no bit: the end is that of four fits in one process."""
    run("notebook_journey", tmp_path / "notebook", "--kernel", 1)
    restarted = run("notebook_journey", tmp_path / "notebook", "--kernel", 2)
    assert [line.split(":")[0] for line in restarted[:3]] == [f"fit {n} was done before" for n in (1, 2, 3)]
    assert restarted[3].startswith("fit 4 | epoch 7/8")
    # In a folder of its own the second kernel trains all four fits; a process of its own, for other tests leave
    # global generators behind, which are part of a run's state.
    whole = run("notebook_journey", tmp_path / "control", "--kernel", 2)
    assert whole[0].startswith("fit 1 | epoch 1/2")
    differing, compared = differing_state(tmp_path / "control", tmp_path / "notebook")
    assert (differing, compared > 20) == ([], True)
