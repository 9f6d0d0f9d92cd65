"""What is remembered about a user's data object for as long as it lives."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Remembered = TypeVar("Remembered")


class ObjectMemory(Generic[Remembered]):
    """Something kept beside objects that are not ours, dropped with them.

    By identity and not in a ``WeakKeyDictionary``, since a data set may define
    ``__eq__`` and so have no hash.

    Args:
        make: Makes what is remembered about an object that is new.
    """

    def __init__(self, make: Callable[[], Remembered]) -> None:
        self._make = make
        self._kept: dict[int, tuple[Remembered, Any]] = {}

    def of(self, data: Any) -> Remembered:
        """Return what is remembered about an object; an object without weak references is new each time."""
        key = id(data)
        if key in self._kept:
            return self._kept[key][0]
        remembered = self._make()
        try:
            reference = weakref.ref(data, lambda _: self._kept.pop(key, None))
        except TypeError:
            return remembered
        self._kept[key] = (remembered, reference)
        return remembered
