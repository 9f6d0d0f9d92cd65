"""The attributes of a callback, wherever its class keeps them: in a ``__dict__``, in ``__slots__``, or in both."""

from __future__ import annotations

import functools
from types import MemberDescriptorType
from typing import Any


def attributes_of(callback: Any) -> dict[str, Any]:
    """Return name -> value of what a callback holds itself; properties are not read."""
    kind: Any = type(callback)
    found = dict(getattr(callback, "__dict__", {}))
    for name, slot in _slots(kind):
        try:
            found[name] = slot.__get__(callback)
        except AttributeError:  # nothing was put there yet
            continue
    return found


def put_attribute(callback: Any, name: str, value: Any) -> None:
    """Let a callback hold a value under a name, without its own ``__setattr__``; a name it has no place for is left."""
    kind: Any = type(callback)
    slot = dict(_slots(kind)).get(name)
    if slot is not None:
        slot.__set__(callback, value)
    elif hasattr(callback, "__dict__"):
        vars(callback)[name] = value


@functools.lru_cache(maxsize=256)
def _slots(kind: Any) -> tuple[tuple[str, MemberDescriptorType], ...]:
    members = [(name, member) for base in reversed(kind.__mro__) for name, member in vars(base).items()]
    return tuple((name, member) for name, member in members if isinstance(member, MemberDescriptorType))
