"""Variables that an optimizer updates apart: those of another age, and those with a rate of their own.

Adam and its relatives divide by ``1 - beta ** step``, which undoes that moments
begin at zero. The step is the optimizer's. With a variable that begins at step
1,000 nothing would be undone, and its first updates be several times the rate.
So what is of another age than the optimizer is updated apart, with the
optimizer's step set back to its own; and what has a multiplier, with its rate.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from keepfit import _keras, held
from keepfit.state import slots

# Names of slots: the step at which a variable's count begins, its count where it does not train,
# Nadam's product of momenta, and what its rate is multiplied with.
BORN, AGE, PRODUCT, MULTIPLIER = "born", "age", "u_product", "multiplier"
OWN = (BORN, AGE, PRODUCT, MULTIPLIER)


def has_product(optimizer: Any) -> bool:
    """Return whether an optimizer corrects by a running product, as Nadam does."""
    return "_u_product" in vars(optimizer)


class Groups:
    """Variables of an optimizer that are updated together: of one age, with one multiplier.

    Args:
        optimizer: Its slots tell; see `of`.
    """

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer
        self._slots: dict[int, dict[str, Any]] = {}
        groups: dict[tuple[Any, ...], list[int]] = {}
        kept = slots(optimizer)
        for index, owner in enumerate(_keras.optimizer_variables(optimizer)):
            mine = {name: kept[id(owner), name].variable for name in OWN if (id(owner), name) in kept}
            self._slots[index] = mine
            number = tuple(_value(mine[name]) if name in mine else None for name in (BORN, MULTIPLIER))
            groups.setdefault(number, []).append(index)
        # Part of what a compiled step depends on.
        self.members = tuple(tuple(group) for group in groups.values())

    def needed(self) -> bool:
        """Return whether any variable is of another age or has a multiplier."""
        return any(name in found for found in self._slots.values() for name in (BORN, MULTIPLIER))

    def split(self, variables: list[Any], *others: list[Any]) -> Iterator[tuple[list[int], list[list[Any]]]]:
        """Yield the indices of each group, and what was given for them: its variables, then of every other list."""
        given = {self._optimizer._get_variable_index(row[0]): row for row in zip(variables, *others, strict=True)}
        for group in self.members:
            indices = [index for index in group if index in given]
            if indices:
                yield indices, [list(column) for column in zip(*(given[index] for index in indices), strict=True)]

    def rate(self, indices: list[int], rate: Any) -> Any:
        """Return the rate of a group."""
        multiplier = self._slots[indices[0]].get(MULTIPLIER)
        return rate if multiplier is None else rate * multiplier

    @contextmanager
    def of_age(self, indices: list[int]) -> Iterator[bool]:
        """Let the optimizer count as the variables of a group do; gives whether they began late."""
        first = self._slots[indices[0]]
        if BORN not in first:
            yield False
            return
        with _replaced(self._optimizer, "_iterations", self._optimizer._iterations - first[BORN]):
            if PRODUCT not in first:
                yield True
                return
            with _replaced(self._optimizer, "_u_product", first[PRODUCT]):
                yield True
        for index in indices[1:]:  # of one age, of one product
            self._slots[index][PRODUCT].assign(first[PRODUCT])


class _Grouped:
    """Stands before a method of an optimizer.

    Args:
        optimizer: It.
        groups: Of its variables.
    """

    def __init__(self, optimizer: Any, groups: Groups) -> None:
        self._optimizer = optimizer
        self._groups = groups
        self.groups = groups.members


class GroupedUpdate(_Grouped):
    """Stands before an optimizer's own collective update step."""

    def __call__(self, grads: list[Any], variables: list[Any], learning_rate: Any) -> None:
        """Update each group apart."""
        step = type(self._optimizer)._backend_update_step
        for indices, (members, gradients) in self._groups.split(variables, grads):
            rate = self._groups.rate(indices, learning_rate)
            with self._groups.of_age(indices) as is_late:
                if is_late and has_product(self._optimizer):
                    rate = rate * _without_look_ahead(self._optimizer)
                step(self._optimizer, gradients, members, rate)


class GroupedDecay(_Grouped):
    """Stands before an optimizer's own weight decay, which goes with the rate."""

    def __call__(self, variables: list[Any]) -> None:
        """Let each group decay at its own rate."""
        optimizer = self._optimizer
        if optimizer.weight_decay is None:
            return
        for indices, (members,) in self._groups.split(variables):
            rate = optimizer.learning_rate
            with _replaced(optimizer, "_learning_rate", self._groups.rate(indices, rate)):
                type(optimizer)._apply_weight_decay(optimizer, members)


@contextmanager
def _replaced(optimizer: Any, attribute: str, value: Any) -> Iterator[None]:
    """Let an attribute be something else for a while, past Keras's tracking."""
    attributes = vars(optimizer)
    before = attributes[attribute]
    attributes[attribute] = value
    try:
        yield
    finally:
        attributes[attribute] = before


def _without_look_ahead(optimizer: Any) -> Any:
    """Return what Nadam's rate is multiplied with, in an update of variables that began late.

    Nadam's first update from moments of zero is ``1 + c`` times the rate: ``c``
    is its look at the next momentum. Divided by that, the first update of a
    late variable is that of the gradient alone; later ones are Keras's own.
    """
    beta = float(optimizer.beta_1)
    first, second = (beta * (1.0 - 0.5 * 0.96**step) for step in (1, 2))
    look_ahead = second * (1.0 - beta) / (1.0 - first * second)
    is_first = keras.ops.equal(optimizer.iterations, 0)
    return keras.ops.where(is_first, 1.0 / (1.0 + look_ahead), 1.0)


def _value(variable: Any) -> float:
    return float(np.asarray(held.value(variable)))


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
