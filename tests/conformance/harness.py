"""What Keras's tests expect of the conftest.py beside them, which its wheel does not carry."""

from __future__ import annotations

import sys
import types

import keras
import pytest


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
