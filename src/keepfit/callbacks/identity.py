"""Notes about objects that may have an equality of their own, or no hash."""

from __future__ import annotations

import weakref
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class IdentityMap(Generic[T]):
    """Map objects to notes by identity, for as long as each object lives."""

    def __init__(self) -> None:
        self._notes: dict[int, tuple[weakref.ref[Any], T]] = {}

    def __len__(self) -> int:
        """Return how many objects are noted."""
        return len(self._notes)

    def get(self, item: Any) -> T | None:
        """Return the note about an object, or None."""
        reference, note = self._notes.get(id(item), (None, None))
        return note if reference is not None and reference() is item else None

    def put(self, item: Any, note: T) -> None:
        """Note something about an object; nothing where its class allows no weak references."""
        number = id(item)

        def forget(reference: weakref.ref[Any]) -> None:
            # The id may have been used again since.
            if self._notes.get(number, (None,))[0] is reference:
                del self._notes[number]

        try:
            self._notes[number] = weakref.ref(item, forget), note
        except TypeError:
            return
