"""All fits of a run read as one history, without Keras or a backend."""

from __future__ import annotations

from keepfit.history.history import History
from keepfit.history.lineage import Lineage
from keepfit.history.plot import plot
from keepfit.history.rows import FitRow

__all__ = ["FitRow", "History", "Lineage", "plot"]
