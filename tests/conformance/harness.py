"""What Keras's tests expect of the conftest.py beside them, which its wheel does not carry."""

from __future__ import annotations

import signal
import sys
import types
from collections.abc import Generator
from typing import NoReturn

import keras
import pytest

# A test of a newer Keras may find a loop without an end in an older one: it fails there, and the rest go on.
_LIMIT_S = 300


def skip_if_backend(given: str, reason: str) -> pytest.MarkDecorator:
    """Return the mark for a test that is not for a backend."""
    return pytest.mark.skipif(keras.backend.backend() == given, reason=reason)


def pytest_configure(config: pytest.Config) -> None:
    """Offer the module, and know the marks."""
    module = types.ModuleType("conftest")
    module.skip_if_backend = skip_if_backend  # type: ignore[attr-defined]
    sys.modules["conftest"] = module
    for mark in ("requires_trainable_backend", "requires_tpu", "multi_device", "large"):
        config.addinivalue_line("markers", mark)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    """Fail a test that does not end."""
    before = signal.signal(signal.SIGALRM, _fail)
    signal.alarm(_LIMIT_S)
    try:
        return (yield)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _fail(*_: object) -> NoReturn:
    raise TimeoutError(f"the test did not end within {_LIMIT_S} s")
