"""What a step may read of Python: the places where a model, and the code that it is made of, keep their values.

The walk begins at the model and goes on through the attributes of its parts,
through objects, containers and classes of the user's, and through what the
code of the user's functions names: globals, modules, closures, defaults.
Libraries' code is trusted to decide by the public attributes of their objects.
"""

from __future__ import annotations

import argparse
import dis
import functools
import os
import sys
import sysconfig
import types
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import torch

from keepfit import _keras

_PARTS = (
    keras.layers.Layer,
    keras.metrics.Metric,
    keras.losses.Loss,
    keras.optimizers.Optimizer,
    keras.optimizers.schedules.LearningRateSchedule,
    keras.regularizers.Regularizer,
    keras.constraints.Constraint,
    keras.DTypePolicy,
    torch.nn.Module,
)
# Bare holders of attributes, which say nothing of whose they are.
_HOLDERS = (types.SimpleNamespace, argparse.Namespace)
_LISTS = (torch.nn.ParameterDict, torch.nn.ParameterList, keras.Variable)
CONTAINERS = (dict, list, tuple, set, frozenset, deque)
_STANDARD_LIBRARY = sysconfig.get_paths()["stdlib"]
_MOST_DEPTH = 8
_MOST_PARTS = 20_000
# What Python itself keeps in classes and modules.
_OF_PYTHON = frozenset({"__dict__", "__weakref__", "__doc__", "__builtins__", "__warningregistry__", "_abc_impl"})


class Place:
    """A namespace of which a step may read names.

    Args:
        label: What it is called.
        names: The names that count.
        get: Gives what a name stands for; None where there is nothing.
        put: Lets a name stand for something.
        of_a_library: Whether nobody but a library keeps anything there.
        attributes: The mapping itself, where names that come or go count too.
    """

    def __init__(
        self,
        label: str,
        names: tuple[str, ...],
        get: Callable[[str], Any],
        put: Callable[[str, Any], None],
        *,
        of_a_library: bool = False,
        attributes: dict[str, Any] | None = None,
    ) -> None:
        self.label = label
        self.names = names
        self.get = get
        self.put = put
        self.of_a_library = of_a_library
        self.attributes = attributes

    @classmethod
    def of_attributes(cls, owner: Any, *, passing: frozenset[str]) -> Place:
        """Return the place of an object's attributes."""
        attributes = vars(owner)
        names = tuple(name for name in attributes if name not in passing)
        return cls(
            type(owner).__name__,
            names,
            attributes.get,
            attributes.__setitem__,
            of_a_library=is_of_a_library(type(owner)),
            attributes=attributes,
        )

    @classmethod
    def of_names(cls, label: str, namespace: dict[str, Any], names: set[str]) -> Place:
        """Return the place of some names of a module, which need not be there yet."""
        missing = names - namespace.keys()

        def put(name: str, value: Any) -> None:
            if name in missing:
                namespace.pop(name, None)
            else:
                namespace[name] = value

        return cls(label, tuple(sorted(names)), namespace.get, put)

    @classmethod
    def of_members(cls, owner: Any, names: tuple[str, ...]) -> Place:
        """Return the place of a class's members, or of attributes that lie in slots."""
        label = owner.__name__ if isinstance(owner, (type, types.FunctionType)) else type(owner).__name__
        found = vars(owner).get if isinstance(owner, type) else functools.partial(_attribute, owner)
        setter = functools.partial(type.__setattr__ if isinstance(owner, type) else object.__setattr__, owner)
        return cls(label, names, found, setter)

    @classmethod
    def of_closure(cls, function: types.FunctionType) -> Place:
        """Return the place of the variables that a function closes over."""
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=False))
        return cls(
            function.__qualname__,
            tuple(cells),
            lambda name: _content_of(cells[name]),
            lambda name, value: setattr(cells[name], "cell_contents", value),
        )


def places(model: Any, *, passing: frozenset[str]) -> Iterator[Place]:
    """Yield every place that a step of a model may read; more than can be watched end in `OverflowError`.

    Args:
        model: A compiled, built model.
        passing: Attributes of layers that do not count.
    """
    seen: set[int] = set()
    alive: list[Any] = []
    waiting: list[Any] = [model, *_keras.all_layers(model), model.optimizer, *model.metrics, *_keras.losses(model)]
    while waiting:
        part = waiting.pop()
        if part is None or id(part) in seen:
            continue
        seen.add(id(part))
        alive.append(part)
        if len(seen) > _MOST_PARTS:
            raise OverflowError(f"it is made of more than {_MOST_PARTS:,} parts")
        for place in _places_of(part, passing):
            yield place
            for name in place.names:
                waiting.extend(_parts_in(place.get(name)))


def is_of_a_library(kind: Any) -> bool:
    """Return whether a class or function is installed rather than written by the user."""
    return _is_library(str(getattr(kind, "__module__", "")).partition(".")[0])


def is_library_file(path: str) -> bool:
    """Return whether code in a file is installed rather than written by the user."""
    return "site-packages" in path or "dist-packages" in path or path.startswith((_STANDARD_LIBRARY, "<frozen"))


@functools.cache
def _is_library(name: str) -> bool:
    module = sys.modules.get(name)
    if name == "__main__" or module is None:
        return False
    file = getattr(module, "__file__", None)
    return name == "keepfit" or file is None or is_library_file(file)


# What a part is made of


def _places_of(part: Any, passing: frozenset[str]) -> Iterator[Place]:
    if isinstance(part, types.FunctionType):
        yield from _places_of_function(part)
    elif isinstance(part, type):
        yield from _places_of_class(part)
    elif isinstance(part, functools.partial):
        yield Place.of_members(part, ("func", "args", "keywords"))
    elif not isinstance(part, _LISTS):
        if hasattr(part, "__dict__"):
            yield Place.of_attributes(part, passing=passing if isinstance(part, torch.nn.Module) else frozenset())
        if slots := tuple(name for base in type(part).__mro__ for name in _slots_of(base)):
            yield Place.of_members(part, slots)
        for base in type(part).__mro__:
            yield from _places_of_class(base)


def _places_of_class(kind: type) -> Iterator[Place]:
    if is_of_a_library(kind):
        return
    names = tuple(name for name in vars(kind) if name not in _OF_PYTHON)
    slots = set(_slots_of(kind))
    yield Place.of_members(kind, tuple(name for name in names if name not in slots))


def _slots_of(kind: type) -> tuple[str, ...]:
    if is_of_a_library(kind):
        return ()
    return tuple(name for name, member in vars(kind).items() if isinstance(member, types.MemberDescriptorType))


def _places_of_function(function: types.FunctionType) -> Iterator[Place]:
    """Yield what a function of the user's reads of modules, closures and itself."""
    yield Place.of_members(function, ("__defaults__", "__kwdefaults__", "__code__"))
    if vars(function):
        yield Place.of_attributes(function, passing=frozenset())
    if function.__closure__:
        yield Place.of_closure(function)
    words = _Words(function.__code__)
    globals_ = words.stored | (words.globals & function.__globals__.keys())
    yield Place.of_names(function.__qualname__, function.__globals__, globals_)
    named = (function.__globals__.get(name) for name in words.globals)
    modules = [value for value in named if isinstance(value, types.ModuleType)]
    modules += [sys.modules[name] for name in words.imports if name in sys.modules]
    for module in modules:
        yield from _places_of_module(module, words)
    if words.attributes & {"environ", "getenv"} or words.globals & {"environ", "getenv"}:
        kept = {"os.environ": dict(os.environ)}
        yield Place("os", tuple(kept), lambda _: dict(os.environ), kept.__setitem__)


def _places_of_module(module: types.ModuleType, words: _Words, depth: int = 0) -> Iterator[Place]:
    if _is_library(module.__name__.partition(".")[0]):
        return
    found = (words.attributes | words.imported) & vars(module).keys()
    yield Place.of_names(module.__name__, vars(module), found)
    if depth < _MOST_DEPTH:
        for name in found:
            if isinstance(inner := vars(module)[name], types.ModuleType):
                yield from _places_of_module(inner, words, depth + 1)


class _Words:
    """The names that code mentions, in the functions within it too.

    Attributes:
        globals: Names of the module it was written in.
        stored: Those of them that it sets.
        attributes: Names behind a dot.
        imports: Modules that it imports when it runs.
        imported: Names that it imports from them.
    """

    def __init__(self, code: types.CodeType) -> None:
        self.globals: set[str] = set()
        self.stored: set[str] = set()
        self.attributes: set[str] = set()
        self.imports: set[str] = set()
        self.imported: set[str] = set()
        self._read(code)
        if "globals" in self.globals:  # a name may be written as a text
            self.globals |= {word for word in _texts_in(code) if word.isidentifier()}

    def _read(self, code: types.CodeType) -> None:
        for instruction in dis.get_instructions(code):
            kind, name = instruction.opname, instruction.argval
            if kind in ("LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL"):
                self.globals.add(name)
                if kind == "STORE_GLOBAL":
                    self.stored.add(name)
            elif kind in ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR"):
                self.attributes.add(name)
            elif kind == "IMPORT_NAME":
                self.imports.add(name)
                self.imports.add(name.partition(".")[0])
            elif kind == "IMPORT_FROM":
                self.imported.add(name)
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self._read(constant)


def _texts_in(code: types.CodeType) -> Iterator[str]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _texts_in(constant)
        elif isinstance(constant, str):
            yield constant


def _parts_in(value: Any, depth: int = 0) -> Iterator[Any]:
    """Yield what in a value has attributes or code that a step may read."""
    if isinstance(value, types.MethodType):
        yield from _parts_in(value.__self__, depth)
        value = value.__func__
    elif isinstance(value, (classmethod, staticmethod)):
        value = value.__func__
    elif isinstance(value, property):
        value = value.fget
    elif isinstance(value, functools.cached_property):
        value = value.func
    if callable(value) and (wrapped := getattr(value, "__wrapped__", None)) is not None and depth < _MOST_DEPTH:
        yield from _parts_in(wrapped, depth + 1)
    if isinstance(value, CONTAINERS):
        if depth < _MOST_DEPTH:
            for item in list(value.values() if isinstance(value, dict) else value):
                yield from _parts_in(item, depth + 1)
    elif isinstance(value, (types.FunctionType, type)):
        yield from [] if is_of_a_library(value) else [value]
    elif isinstance(value, (*_PARTS, *_HOLDERS, functools.partial)) or not (
        isinstance(value, (types.ModuleType, torch.Tensor, np.ndarray)) or is_of_a_library(type(value))
    ):
        yield value


def _attribute(owner: Any, name: str) -> Any:
    return getattr(owner, name, None)


def _content_of(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None
