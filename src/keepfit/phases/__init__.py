"""Which variables train, at which rates, and what the optimizer knows of each."""

from keepfit.phases.asked import Asked
from keepfit.phases.begin import begin_as, begin_optimizer, fresh_values, made_anew
from keepfit.phases.by_hand import let_rates_be_set
from keepfit.phases.changes import VariableChanges, signature_changes
from keepfit.phases.clock import CLOCK_NAME
from keepfit.phases.prefix import Prefix, find_prefix, has_frozen_weights
from keepfit.phases.rates import check_rate, current_rate, is_zero_throughout, multipliers, own_weights
from keepfit.phases.seat import (
    begin_clocks,
    forget_gone,
    goes_by_fractions,
    is_seated,
    match,
    note_left_out,
    reseat,
    seat_as_before,
    served,
    settle,
)
from keepfit.phases.selection import layer_paths, select
from keepfit.phases.values import carry, has_trained, optimizer_values, untrained

__all__ = [
    "CLOCK_NAME",
    "Asked",
    "Prefix",
    "VariableChanges",
    "begin_as",
    "begin_clocks",
    "begin_optimizer",
    "carry",
    "check_rate",
    "current_rate",
    "find_prefix",
    "forget_gone",
    "fresh_values",
    "goes_by_fractions",
    "has_frozen_weights",
    "has_trained",
    "is_seated",
    "is_zero_throughout",
    "layer_paths",
    "let_rates_be_set",
    "made_anew",
    "match",
    "multipliers",
    "note_left_out",
    "optimizer_values",
    "own_weights",
    "reseat",
    "seat_as_before",
    "select",
    "served",
    "settle",
    "signature_changes",
    "untrained",
]
