"""A run begun on one backend goes on under another, with all of its state, equal to rounding; and that is said."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
BACKENDS = ("jax", "tensorflow", "torch")
SCRIPT = """
import json, sys, warnings
import keepfit, keras, numpy as np
from tests.models import make
model, x, y = make("plain_dense")
with warnings.catch_warnings(record=True) as told, keepfit.Run(model, sys.argv[1], seed=3) as run:
    warnings.simplefilter("always")
    losses = [run.fit(x, y, batch_size=10, epochs=2, verbose=0).history["loss"] for _ in range(int(sys.argv[2]))]
    said = [str(w.message) for w in told if "other conditions" in str(w.message)]
    events = [event.kind for event in run.recorder.events if "other conditions" in event.message]
    weights = [float(np.sum(w)) for w in model.get_weights()]
print(json.dumps([losses, said, events, weights]))
"""


# Every part of the state at the end of the first fit of each model of the list, as numbers that any backend has.
STATES = """
import json, sys, warnings
from pathlib import Path
import keepfit, keras, numpy as np
from tests.models import MODELS, make
place = Path(sys.argv[1])
warnings.simplefilter("ignore")  # that the backend is another one
differing = []
for name in MODELS:
    model, x, y = make(name)
    with keepfit.Run(model, place / name, seed=3) as run:
        run.fit(x, y, batch_size=10, verbose=0)
        values = run.engine.variables.values().items()
        held = {key.replace("/", "|"): np.asarray(value, "float64") for key, value in values}
    kept = place / f"{name}.npz"
    if not kept.exists():
        np.savez(kept, **held)
    before = np.load(kept)
    differing += [name + " " + key for key in {*held} ^ {*before.files}]
    differing += [name + " " + key for key in {*held} & {*before.files} if not np.array_equal(held[key], before[key])]
print(json.dumps([len(MODELS), differing]))
"""


def train(backend: str, directory: Path, fits: int, script: str = SCRIPT) -> Any:
    """Call ``fit`` so many times in a process of a backend."""
    done = subprocess.run(
        [sys.executable, "-c", script, str(directory), str(fits)],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_run_goes_on_under_another_backend(tmp_path: Path) -> None:
    """One fit on each backend, in one folder, against three fits on JAX; Adam's moments go over too."""
    there = [name for name in BACKENDS if importlib.util.find_spec(name)]
    if len(there) < 2:
        pytest.skip("only one backend is installed")
    for number, backend in enumerate(there, start=1):
        losses, said, events, weights = train(backend, tmp_path / "mixed", number)
        assert len(said) == len(set(events)) == (number > 1)
        assert all(name in text for text in said for name in (backend, there[number - 2]))
    whole, _, _, expected = train(there[0], tmp_path / "whole", len(there))
    # Rounding of single precision, after 14 steps under another backend; fresh moments would differ by more than 1e-2.
    assert np.allclose(losses, whole, rtol=1e-4, atol=0)
    assert np.allclose(weights, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_every_part_of_a_state_is_the_same_under_another_backend(tmp_path: Path) -> None:
    """What a fit left on one backend is there on the others, bit for bit, seeds of dropout and all slots included."""
    there = [name for name in BACKENDS if importlib.util.find_spec(name)]
    if len(there) < 2:
        pytest.skip("only one backend is installed")
    for backend in there:
        models, differing = train(backend, tmp_path, 1, STATES)
        assert models > 10
        assert differing == []
