"""Notes about objects that may have an equality of their own, no hash, or no weak references."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from typing import Any, Generic, TypeVar

T = TypeVar("T")


# An object without weak references is kept alive by its note: so many of them.
_MOST_HELD = 64


class IdentityMap(Generic[T]):
    """Map objects to notes by identity, for as long as each object lives.

    Of objects whose class allows no weak references the last ones are held, and noted as long as they are.
    """

    def __init__(self) -> None:
        self._notes: dict[int, tuple[weakref.ref[Any], T]] = {}
        self._held: OrderedDict[int, tuple[Any, T]] = OrderedDict()

    def __len__(self) -> int:
        """Return how many objects are noted."""
        return len(self._notes) + len(self._held)

    def get(self, item: Any) -> T | None:
        """Return the note about an object, or None."""
        reference, note = self._notes.get(id(item), (None, None))
        if reference is not None and reference() is item:
            return note
        return self._held[id(item)][1] if id(item) in self._held else None

    def put(self, item: Any, note: T) -> None:
        """Note something about an object."""
        number = id(item)

        def forget(reference: weakref.ref[Any]) -> None:
            # The id may have been used again since.
            if self._notes.get(number, (None,))[0] is reference:
                del self._notes[number]

        try:
            self._notes[number] = weakref.ref(item, forget), note
        except TypeError:
            self._held[number] = item, note
            while len(self._held) > _MOST_HELD:
                self._held.popitem(last=False)
