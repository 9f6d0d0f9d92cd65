"""Rehearsal: samples of earlier fits, kept in a bounded reservoir and mixed into later ones."""

from __future__ import annotations

from keepfit.rehearsal.identity import SAMPLED
from keepfit.rehearsal.kept import Kept, digest
from keepfit.rehearsal.past import Mix, Past, Rehearsal, few
from keepfit.rehearsal.register import KEPT
from keepfit.rehearsal.shelf import FILES, FOLDER
from keepfit.rehearsal.validated import VALIDATION, ValidationSet

__all__ = [
    "FILES",
    "FOLDER",
    "KEPT",
    "SAMPLED",
    "VALIDATION",
    "Kept",
    "Mix",
    "Past",
    "Rehearsal",
    "ValidationSet",
    "digest",
    "few",
]
