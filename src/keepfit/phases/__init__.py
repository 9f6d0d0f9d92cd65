"""Which variables train, at which rates, and what the optimizer knows of each."""

from keepfit.phases.seat import is_seated, match, reseat, settle
from keepfit.phases.values import carry, has_trained, optimizer_values

__all__ = ["carry", "has_trained", "is_seated", "match", "optimizer_values", "reseat", "settle"]
