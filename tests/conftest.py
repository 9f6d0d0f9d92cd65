"""Every test runs on JAX, in a folder of its own, and leaves no run open."""

from __future__ import annotations

import os
import signal

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from collections.abc import Iterator

import hypothesis
import pytest

from keepfit import _backend  # noqa: F401 - keepfit comes before keras

# Explaining traces every line of JAX, and shrinking trains anew for every try: both take minutes.
hypothesis.settings.register_profile(
    "keepfit",
    deadline=None,
    derandomize=True,
    database=None,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.load_profile("keepfit")


@pytest.fixture(autouse=True)
def _no_run_left_open() -> Iterator[None]:
    """Close what a test left open, so that the next one may use the same variables."""
    yield
    import sys

    live = sys.modules.get("keepfit.live")
    if live is not None:
        for run in list(live._RUNS):
            run.close()


@pytest.fixture
def _heard_ctrl_c() -> Iterator[None]:
    """Let Ctrl-C raise, also where whoever started the tests in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
