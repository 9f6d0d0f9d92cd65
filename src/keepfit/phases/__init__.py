"""Which variables train, at which rates, and what the optimizer knows of each."""

from keepfit.phases.asked import Asked
from keepfit.phases.rates import check_rate, is_zero_throughout, multipliers
from keepfit.phases.seat import is_seated, match, reseat, settle
from keepfit.phases.values import carry, has_trained, optimizer_values

__all__ = [
    "Asked",
    "carry",
    "check_rate",
    "has_trained",
    "is_seated",
    "is_zero_throughout",
    "match",
    "multipliers",
    "optimizer_values",
    "reseat",
    "settle",
]
