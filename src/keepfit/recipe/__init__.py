"""What one fit was asked to do, as plain data: identities of code, configs, differences.

Everything here is JSON-able and independent of the process: no ``repr``, no
pickles, no automatic names, no order of a set.
"""

from keepfit.recipe.compare import Comparison, Recipe, compare, difference_line, recipe_changed, told_differences
from keepfit.recipe.config import learning_rate_config, optimizer_config, plain_config, settings
from keepfit.recipe.identity import callable_identity, class_identity
from keepfit.recipe.program import code_identities, code_identity

__all__ = [
    "Comparison",
    "Recipe",
    "callable_identity",
    "class_identity",
    "code_identities",
    "code_identity",
    "compare",
    "difference_line",
    "learning_rate_config",
    "optimizer_config",
    "plain_config",
    "recipe_changed",
    "settings",
    "told_differences",
]
