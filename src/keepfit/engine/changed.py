"""What a program changes of a state: the rest is neither copied into a loop nor out of a program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax


@jax.tree_util.register_pytree_node_class
class Changed:
    """The leaves of a state that a step changes; a step of a test hands the weights through.

    A compiled program copies what it hands through, so such leaves are left
    out of what it returns. Which ones they are is part of the tree's structure.

    Args:
        leaves: Those that change, in order.
        changes: For each leaf of the state, whether it changes.
    """

    __slots__ = ("_changes", "_leaves")

    def __init__(self, leaves: Sequence[Any], changes: tuple[bool, ...]) -> None:
        self._leaves = leaves
        self._changes = changes

    @classmethod
    def of(cls, state: Any, changes: Sequence[bool]) -> Changed:
        """Return the leaves of a state that change."""
        leaves = jax.tree.leaves(state)
        return cls([leaf for leaf, does in zip(leaves, changes, strict=True) if does], tuple(changes))

    @classmethod
    def between(cls, before: Any, after: Any, *, everything: bool = False) -> Changed:
        """Return the leaves of ``after`` that are not the very ones of ``before``, or with ``everything`` all."""
        pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
        return cls.of(after, [everything or old is not new for old, new in pairs])

    def over(self, state: Any) -> Any:
        """Return the state with the changed leaves in the place of its own."""
        leaves, structure = jax.tree.flatten(state)
        values = iter(self._leaves)
        merged = [next(values) if does else leaf for leaf, does in zip(leaves, self._changes, strict=True)]
        return jax.tree.unflatten(structure, merged)

    def tree_flatten(self) -> tuple[Sequence[Any], tuple[bool, ...]]:
        """Return what JAX takes apart."""
        return self._leaves, self._changes

    @classmethod
    def tree_unflatten(cls, changes: tuple[bool, ...], leaves: Sequence[Any]) -> Changed:
        """Put together what JAX took apart."""
        return cls(leaves, changes)
