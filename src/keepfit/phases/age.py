"""Bias correction by a variable's own age.

Adam and its relatives divide by ``1 - beta ** step``, which undoes that moments
begin at zero. The step is the optimizer's. With a variable that begins at step
1,000 nothing would be undone, and its first updates be several times the rate.
So what is of another age than the optimizer is updated apart, with the
optimizer's step set back to its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from keepfit import _keras, held
from keepfit.state import slots

# Names of slots: the step at which a variable's count begins, its count where it does not train,
# and Nadam's product of momenta.
BORN, AGE, PRODUCT = "born", "age", "u_product"


def has_product(optimizer: Any) -> bool:
    """Return whether an optimizer corrects by a running product, as Nadam does."""
    return "_u_product" in vars(optimizer)


class AgedUpdate:
    """Stands before an optimizer's own collective update step.

    Args:
        optimizer: It; its slots tell which variables are of another age.
    """

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer
        self._born: dict[int, Any] = {}
        self._products: dict[int, Any] = {}
        groups: dict[int, list[int]] = {}
        kept = slots(optimizer)
        for index, owner in enumerate(_keras.optimizer_variables(optimizer)):
            born = kept.get((id(owner), BORN))
            number = 0 if born is None else int(np.asarray(held.value(born.variable)))
            groups.setdefault(number, []).append(index)
            if born is not None:
                self._born[index] = born.variable
                if (product := kept.get((id(owner), PRODUCT))) is not None:
                    self._products[index] = product.variable
        # Part of what a compiled step depends on: which variables are updated together.
        self.groups = tuple(tuple(group) for group in groups.values())

    def __call__(self, grads: list[Any], variables: list[Any], learning_rate: Any) -> None:
        """Update each age apart."""
        optimizer = self._optimizer
        step = type(optimizer)._backend_update_step
        given = {optimizer._get_variable_index(v): (g, v) for g, v in zip(grads, variables, strict=True)}
        for group in self.groups:
            members = [index for index in group if index in given]
            if not members:
                continue
            chosen = [given[index] for index in members]
            with self._of_age(members):
                step(optimizer, [g for g, _ in chosen], [v for _, v in chosen], learning_rate)

    @contextmanager
    def _of_age(self, members: list[int]) -> Iterator[None]:
        """Let the optimizer count as these variables do."""
        first = members[0]
        if first not in self._born:
            yield
            return
        attributes = vars(self._optimizer)
        iterations, product = attributes["_iterations"], attributes.get("_u_product")
        attributes["_iterations"] = iterations - self._born[first]
        if first in self._products:
            attributes["_u_product"] = self._products[first]
        try:
            yield
        finally:
            attributes["_iterations"] = iterations
            if product is not None:
                attributes["_u_product"] = product
        # The others of this age have the same product.
        for index in members[1:]:
            if index in self._products:
                self._products[index].assign(self._products[first])


class PlainSaving:
    """Saves an optimizer as Keras expects one that knows of no ages.

    Args:
        optimizer: It.
        ages: Its variables that Keras would not have made.
    """

    def __init__(self, optimizer: Any, ages: list[Any]) -> None:
        self._optimizer = optimizer
        self._ages = ages

    def __call__(self, store: Any) -> None:
        """Write every other variable under its number."""
        ages = set(map(id, self._ages))
        plain = [variable for variable in self._optimizer.variables if id(variable) not in ages]
        for number, variable in enumerate(plain):
            store[str(number)] = variable.numpy()
