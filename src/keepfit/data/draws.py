"""Random generators that a data object holds: their states are part of where a run stands in it."""

from __future__ import annotations

import functools
import random
import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from keepfit import randomness

_KINDS = (np.random.Generator, np.random.RandomState, random.Random)
# What is looked through: data that is larger than this holds samples, not what draws.
_MOST_PARTS = 500
_MOST_ITEMS = 64
_MOST_DEPTH = 8
_FUNCTIONS = (functools.partial, types.MethodType, types.BuiltinMethodType, types.FunctionType)
# What is a model's or ours is kept elsewhere.
_CLOSED = ("keras", "keepfit", "tensorflow", "jax", "jaxlib", "numpy")
_LIBRARIES = (*_CLOSED, "builtins", "typing", "abc", "torch", "torchdata", "torchvision")
_ATOMS = (str, bytes, int, float, complex, type(None), np.ndarray, np.generic, type, types.ModuleType)


def generators_of(data: Any) -> dict[str, Any]:
    """Return the generators that an object holds, by path: NumPy's, Python's, and PyTorch's where it is imported."""
    return {path: part for path, part in parts_of(data) if is_generator(part)}


def is_generator(value: Any) -> bool:
    """Return whether a value is a random generator whose state `take` can take."""
    torch = sys.modules.get("torch")
    return isinstance(value, _KINDS) or (torch is not None and isinstance(value, torch.Generator))


def parts_of(data: Any, *, functions: bool = True) -> Iterator[tuple[str, Any]]:
    """Yield path and object of what a value holds: in attributes, small containers, partials, closures and methods.

    Of what functions find in their module, generators alone.

    Each object once, by its first path; the same in every process that makes the value alike.

    Args:
        data: The value.
        functions: Whether functions are looked into: what they use is theirs, but may be anybody else's too.
    """
    seen = {id(data)}
    found = [("", data)]
    for path, part in found:
        if path:
            yield path, part
        if path.count(".") > _MOST_DEPTH:
            continue
        for name, value in _held(part, functions=functions):
            if isinstance(value, _ATOMS) or id(value) in seen:
                continue
            if len(found) >= _MOST_PARTS:
                return
            seen.add(id(value))
            found.append((f"{path}.{name}" if path else name, value))


@contextmanager
def undrawn(generators: Mapping[str, Any]) -> Iterator[Drawn]:
    """Put these generators and the global ones back as they are, whatever happens inside.

    Yields:
        What tells, afterwards, which of them were drawn from.
    """
    drawn = Drawn()
    before = take(generators), randomness.take()
    try:
        yield drawn
    finally:
        after = take(generators), randomness.take()
        drawn.own, drawn.others = before[0] != after[0], before[1] != after[1]
        restore(generators, before[0])
        randomness.restore(before[1])


class Drawn:
    """Which generators were drawn from.

    Attributes:
        own: Whether those of a data object were.
        others: Whether the global ones were.
    """

    own: bool = False
    others: bool = False

    def __bool__(self) -> bool:
        return self.own or self.others


def take(generators: Mapping[str, Any]) -> dict[str, Any]:
    """Return the states of generators as JSON."""
    return {name: _told(_state(generator)) for name, generator in generators.items()}


def restore(generators: Mapping[str, Any], states: Mapping[str, Any]) -> None:
    """Give generators the states that `take` gave; those it does not tell of stay as they are."""
    for name, told in states.items():
        generator, state = generators.get(name), _read(told)
        if isinstance(generator, np.random.Generator):
            generator.bit_generator.state = state
        elif isinstance(generator, np.random.RandomState):
            generator.set_state(state)
        elif isinstance(generator, random.Random):
            generator.setstate((state["version"], tuple(state["words"].tolist()), state["following"]))
        elif generator is not None:
            generator.set_state(sys.modules["torch"].from_numpy(state))


def _held(part: Any, *, functions: bool) -> Iterator[tuple[str, Any]]:
    """Yield what a value holds, by name."""
    if isinstance(part, (*_KINDS, keras.Layer)) or type(part).__module__.partition(".")[0] in _CLOSED:
        return
    if isinstance(part, _FUNCTIONS) and not functions:
        return
    if isinstance(part, functools.partial):
        yield from [("func", part.func), ("args", part.args), ("keywords", part.keywords)]
    elif isinstance(part, (types.MethodType, types.BuiltinMethodType)):
        yield "self", part.__self__
    elif isinstance(part, types.FunctionType):
        yield from _used(part)
    elif isinstance(part, (list, tuple)):
        if len(part) <= _MOST_ITEMS:
            yield from ((str(place), item) for place, item in enumerate(part))
    elif isinstance(part, dict):
        if len(part) <= _MOST_ITEMS:
            yield from ((str(key), item) for key, item in list(part.items()))
    elif not hasattr(part, "dtype"):  # arrays and tensors hold nothing that draws
        yield from list(getattr(part, "__dict__", {}).items())
        for kind in type(part).__mro__ if functions else ():
            if kind.__module__.partition(".")[0] not in _LIBRARIES:
                for method in list(vars(kind).values()):
                    if isinstance(method, types.FunctionType):
                        yield from _used(method)


def _used(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield what a function uses from around it, by name."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    for name in function.__code__.co_names:
        if is_generator(found := function.__globals__.get(name)):
            yield name, found


def _state(generator: Any) -> Any:
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, np.random.RandomState):
        return generator.get_state(legacy=False)
    if not isinstance(generator, random.Random):
        return generator.get_state().numpy()
    version, words, following = generator.getstate()
    return {"version": version, "words": np.array(words, np.uint64), "following": following}


def _told(state: Any) -> Any:
    if isinstance(state, Mapping):
        return {key: _told(value) for key, value in state.items()}
    return {"array": state.tobytes().hex(), "dtype": state.dtype.str} if isinstance(state, np.ndarray) else state


def _read(told: Any) -> Any:
    if not isinstance(told, Mapping):
        return told
    if "array" in told:
        return np.frombuffer(bytes.fromhex(told["array"]), told["dtype"]).copy()
    return {key: _read(value) for key, value in told.items()}
