"""examples/notebook_journey.py: a kernel that is restarted."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

from keepfit.demo.compare import differing_state
from tests.examples.conftest import EXAMPLES


def test_notebook_goes_on_when_its_kernel_is_restarted(run: Callable[..., list[str]], tmp_path: Path) -> None:
    """The build cell run twice and a restart change no bit: the end is that of four fits in one process."""
    run("notebook_journey", tmp_path / "notebook", "--kernel", 1)
    restarted = run("notebook_journey", tmp_path / "notebook", "--kernel", 2)
    assert [line.split(":")[0] for line in restarted[:3]] == [f"fit {n} was done before" for n in (1, 2, 3)]
    assert restarted[3].startswith("fit 4 | epoch 7/8")

    spec = importlib.util.spec_from_file_location("notebook_journey", EXAMPLES / "notebook_journey.py")
    assert spec is not None
    assert spec.loader is not None
    journey = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(journey)
    model = journey.build_cell(str(tmp_path / "control"))
    x, y = journey.data_cell()
    for _ in range(4):
        journey.fit_cell(model, x, y)
    model.run.close()
    assert differing_state(tmp_path / "control", tmp_path / "notebook")[0] == []
