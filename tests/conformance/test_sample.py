"""A sample of Keras's own tests passes with keepfit's loop; `make conformance` runs them all."""

from __future__ import annotations

import keras
import pytest

from tests.conformance.__main__ import SAMPLE, compare, exceptions


@pytest.mark.slow
def test_what_passes_with_keras_passes_with_keepfit() -> None:
    """Nothing is lost that is not among the exceptions."""
    _, wrong = compare(keras.backend.backend(), SAMPLE)
    assert wrong == []


def test_exceptions_give_their_reasons() -> None:
    """Every exception says why, and they are few."""
    for backend in ("jax", "tensorflow", "torch"):
        listed = exceptions(backend)
        assert all(len(reason) > 30 for reason in listed.values())
        assert len(listed) < 12
