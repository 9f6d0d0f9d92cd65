"""What is raised of a partition that takes too long."""

from __future__ import annotations


def late(timeout_s: float | None) -> TimeoutError:
    """Return the error of a partition that was not there in so many seconds."""
    return TimeoutError(f"it was not read within {timeout_s:g} seconds")
