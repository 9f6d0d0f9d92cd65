"""Shared pieces of the journal's tests."""

from __future__ import annotations

import pytest

from keepfit.journal import Writer


@pytest.fixture
def writer(tmp_path):
    """Return the writer of a new journal in ``tmp_path``."""
    writer = Writer.open(tmp_path)
    yield writer
    writer.close()
