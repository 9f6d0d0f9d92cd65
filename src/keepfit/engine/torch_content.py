"""What containers, arrays and random generators hold: told so that it can be compared, and put back."""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from collections.abc import Callable
from operator import is_
from typing import Any

import numpy as np
import torch
import xxhash

from keepfit.engine.torch_reach import CONTAINERS

SCALARS = (int, float, complex, str, bytes, bool, type(None), np.generic)
_GENERATORS = (np.random.Generator, np.random.RandomState, random.Random, torch.Generator)
# To compare them takes about 0.5 ms, before every dispatch.
_MOST_BYTES = 4 << 20
_MOST_ITEMS = 10_000
_MOST_DEPTH = 8
# Whose bytes are kept rather than hashed.
_SMALL_BYTES = 1 << 10


class UnclearError(Exception):
    """What a value holds cannot be told; says why."""


class Content:
    """What a value holds, and how to let it hold that again.

    Args:
        value: A container, an array or a random generator.

    Raises:
        UnclearError: It is too large to be compared again and again, or tells what it holds by being used up.
    """

    def __init__(self, value: Any) -> None:
        self.value = value
        self._undo: list[Callable[[], None]] = []
        self._told = _told(value, self._undo)

    def is_other(self, value: Any) -> bool:
        """Return whether a value is another than this one was."""
        try:
            return bool(_told(value, []) != self._told)
        except UnclearError:
            return True

    def put_back(self) -> None:
        """Undo what was done to it."""
        for undo in self._undo:
            undo()


class _Same:
    """Stands for an object that is equal to itself only."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._value is other._value

    __hash__ = None  # type: ignore[assignment]


def has_content(value: Any) -> bool:
    """Return whether a value is told by what it holds, rather than by what it is."""
    if isinstance(value, (*CONTAINERS, np.ndarray, *_GENERATORS)):
        return not is_plain(value)
    return _is_used_up(value)


def is_plain(value: Any) -> bool:
    """Return whether a value never changes: a number, a string, or a tuple of such."""
    return isinstance(value, SCALARS) or (type(value) is tuple and all(map(is_plain, value)))


def _is_used_up(value: Any) -> bool:
    return hasattr(type(value), "__next__") and not isinstance(value, type)


def are_equal(old: Any, new: Any) -> bool:
    """Return whether two values are plain and the same, of one type."""
    if type(old) is tuple:
        return type(new) is tuple and is_plain(old) and repr(old) == repr(new)
    return type(old) is type(new) and isinstance(old, SCALARS) and bool(old == new)


def _told(value: Any, undo: list[Callable[[], None]], depth: int = 0) -> Any:
    """Return what can be compared of a value; adds what undoes a change in it."""
    if isinstance(value, SCALARS):
        return (type(value).__name__, value)
    if isinstance(value, CONTAINERS):
        if len(value) > _MOST_ITEMS or depth > _MOST_DEPTH:
            raise UnclearError("is too large to be compared each time")
        _note_undo(value, undo)
        items = value.values() if isinstance(value, dict) else value
        names = tuple(map(_told_key, value)) if isinstance(value, dict) else ()
        return (type(value).__name__, names, tuple(_told(item, undo, depth + 1) for item in items))
    if isinstance(value, np.ndarray):
        return _told_array(value, undo)
    if isinstance(value, _GENERATORS):
        return _told_generator(value, undo)
    if _is_used_up(value):
        raise UnclearError(f"is used up as it is read ({type(value).__name__})")
    return _Same(value)


def _told_key(key: Any) -> Any:
    return key if isinstance(key, SCALARS) else _Same(key)


def _told_array(array: Any, undo: list[Callable[[], None]]) -> Any:
    if array.dtype == object or array.nbytes > _MOST_BYTES:
        raise UnclearError("is too large to be compared each time")
    data = np.ascontiguousarray(array)
    copy = array.copy()
    undo.append(lambda: None if _is_like(array, copy) else np.copyto(array, copy))
    held = data.tobytes() if data.nbytes <= _SMALL_BYTES else xxhash.xxh3_128_digest(data.data.cast("B"))
    return ("array", str(array.dtype), array.shape, held)


def _is_like(array: Any, copy: Any) -> bool:
    return bool(np.array_equal(np.ascontiguousarray(array).view(np.uint8), np.ascontiguousarray(copy).view(np.uint8)))


def _told_generator(generator: Any, undo: list[Callable[[], None]]) -> Any:
    state: Any
    if isinstance(generator, np.random.Generator):
        state = generator.bit_generator.state
        undo.append(lambda: setattr(generator.bit_generator, "state", state))
    elif isinstance(generator, random.Random):
        state = generator.getstate()
        undo.append(lambda: generator.setstate(state))
    elif isinstance(generator, torch.Generator):
        tensor = generator.get_state()
        undo.append(lambda: generator.set_state(tensor))
        state = tensor.tolist()
    else:
        state = generator.get_state()
        undo.append(lambda: generator.set_state(state))
    return ("generator", repr(state))


def _note_undo(container: Any, undo: list[Callable[[], None]]) -> None:
    if isinstance(container, list):
        copy = list(container)
        undo.append(lambda: _refill(container, copy, list.clear, list.extend))
    elif isinstance(container, deque):
        items = list(container)
        undo.append(lambda: _refill(container, items, deque.clear, deque.extend))
    elif isinstance(container, dict):
        # Past what Keras does when something is put into a dictionary of a layer's.
        kind = OrderedDict if isinstance(container, OrderedDict) else dict
        pairs = list(container.items())
        undo.append(lambda: _refill(container, pairs, kind.clear, kind.update))
    elif isinstance(container, set):
        members = list(container)
        undo.append(lambda: _refill(container, members, set.clear, set.update))


def _refill(container: Any, items: list[Any], clear: Callable[[Any], None], fill: Callable[[Any, Any], None]) -> None:
    now = list(container.items()) if isinstance(container, dict) else list(container)
    if len(now) != len(items) or not all(_is_same_item(a, b) for a, b in zip(now, items, strict=True)):
        clear(container)
        fill(container, items)


def _is_same_item(one: Any, other: Any) -> bool:
    return all(map(is_, one, other)) if type(one) is tuple and type(other) is tuple and len(one) == 2 else one is other
