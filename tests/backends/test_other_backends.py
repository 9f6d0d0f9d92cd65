"""The suites that every backend must pass, on those that this process does not run: one backend, one process."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).resolve().parents[2]
SUITES = {
    "contract": ("contract",),
    "cut": ("continuity/test_cut.py", "continuity/test_parts.py"),
    # Kills of the other models are in `make torture BACKEND=`.
    "kill": (
        "continuity/test_kill.py::test_killed_training_ends_with_the_bits_of_its_control[averaged_weights]",
        "continuity/test_kill.py::test_killed_training_ends_with_the_bits_of_its_control[dropout_batch_norm@phases]",
        "continuity/test_kill.py::test_killed_training_differs_when_nothing_is_restored",
        "continuity/test_interruptions.py",
    ),
    "behaviour": (
        "behaviour/test_meaning_of_keras.py",
        "behaviour/test_optimizer_state.py",
        "behaviour/test_rewriters.py",
        "behaviour/test_data_position.py",
        "behaviour/test_evaluations.py",
        "behaviour/test_many_fits.py",
        "behaviour/test_measured_facts.py",
        "behaviour/test_bad_calls.py",
        # What else is in files that are not whole depends on no backend, or takes long: run whole before a release.
        "behaviour/test_loaders.py::test_loader_goes_on_in_the_next_fit_and_in_the_next_process",
    ),
    "partitions": ("behaviour/test_partitions.py",),
    "phases": (
        "behaviour/test_phases.py",
        "behaviour/test_optimizer_begins.py",
        "behaviour/test_frozen_prefix.py::test_training_on_features_is_the_ordinary_training",
        "behaviour/test_frozen_prefix.py::test_training_differs_when_features_are_not_those_of_the_samples",
        "behaviour/test_frozen_prefix.py::test_cut_training_on_features_is_whole_training",
        "behaviour/test_frozen_prefix.py::test_frozen_weight_set_by_hand_is_heeded",
        "behaviour/test_frozen_prefix.py::test_frozen_setting_changed_by_hand_is_heeded",
        "behaviour/test_frozen_prefix.py::test_ctrl_c_while_features_are_computed_loses_nothing",
        "behaviour/test_frozen_prefix.py::test_process_killed_while_features_are_computed_loses_nothing",
        "behaviour/test_frozen_prefix.py::test_prefix_that_is_not_safe_is_not_used",
        "behaviour/test_range_test.py::test_a_range_test_leaves_no_trace",
        "behaviour/test_range_test.py::test_a_range_test_of_a_head_that_never_trained_leaves_it_fresh",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
def test_suite_passes_on_another_backend(backend: str, suite: str, tmp_path: Path) -> None:
    """The same files, another ``KERAS_BACKEND``."""
    if backend == keras.backend.backend():
        pytest.skip("this process runs it")
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        f"--basetemp={tmp_path}/t",
    ]
    command += [f"tests/{path}" for path in SUITES[suite]]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        command, cwd=ROOT, env={**kept, "KERAS_BACKEND": backend}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
