"""What a captured step may have read of Python: the plain attributes of a model and of all it is made of."""

from __future__ import annotations

import functools
import sys
import sysconfig
import types
from collections.abc import Iterator
from operator import is_
from typing import Any

import keras
import numpy as np
import torch

from keepfit import _keras

_SCALARS = (int, float, complex, str, bytes, bool, type(None), np.generic)
_CALLABLES = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, type)
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
_LISTS = (torch.nn.ParameterDict, torch.nn.ParameterList, keras.Variable)
_STANDARD_LIBRARY = sysconfig.get_paths()["stdlib"]
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_MOST_NUMBERS = 1024
_MOST_DEPTH = 4
_MOST_PARTS = 20_000
# What the engine itself sets, and what says only how far Keras has come.
_PASSING = frozenset({"training", "_called", "history", "stop_training", "run", "fit", "call_signature_parameters"})

# Lists in which Keras keeps what belongs to a layer; a name is given, so that no counter of names is touched.
_KEPT_BY_KERAS = frozenset(name for name in vars(keras.layers.Layer(name="keepfit")) if name.startswith("_"))


class Watch:
    """The plain attributes of a model's layers, optimizer, losses and metrics, as they are now.

    Numbers, strings and small arrays are compared by value, with their type;
    functions, tensors and large arrays by identity. For custom classes, what
    their methods read of their modules and closures counts too.

    Args:
        model: A compiled, built model.
    """

    def __init__(self, model: Any) -> None:
        self._entries: list[tuple[Any, dict[str, Any], int, tuple[str, ...], tuple[Any, ...]]] = []
        self._contents: list[tuple[Any, dict[str, Any], str, Any]] = []
        for owner, attributes, names in _watched(model):
            of_a_library = names is None and _is_of_a_library(type(owner))
            scalars = {}
            for name in attributes if names is None else names:
                value = attributes.get(name)
                if name in _PASSING:
                    continue
                if isinstance(value, (*_SCALARS, *_CALLABLES, torch.Tensor)):
                    scalars[name] = value
                elif name in _KEPT_BY_KERAS or (of_a_library and name.startswith("_")):
                    continue  # no setting
                elif (content := _content(value)) is not None:
                    self._contents.append((owner, attributes, name, content))
            if names is None and isinstance(owner, torch.nn.Module) and not isinstance(owner, keras.layers.Layer):
                self._contents += [(owner, attributes, name, _content(attributes[name])) for name in _HOOKS]
            size = len(attributes) if names is None else -1
            self._entries.append((owner, attributes, size, tuple(scalars), tuple(scalars.values())))

    def change(self) -> str | None:
        """Return the name of something that is another now, or None."""
        for index, (owner, attributes, size, names, values) in enumerate(self._entries):
            if size >= 0 and len(attributes) != size:
                return f"{_name(owner)} has other attributes"
            if all(map(is_, map(attributes.get, names), values)):
                continue
            now = tuple(map(attributes.get, names))
            for name, old, new in zip(names, values, now, strict=True):
                if old is not new and not _equal(old, new):
                    return f"{_name(owner)}.{name}"
            self._entries[index] = (owner, attributes, size, names, now)
        for owner, attributes, name, content in self._contents:
            if _content(attributes.get(name)) != content:
                return f"{_name(owner)}.{name}"
        return None

    def put_back(self) -> None:
        """Give every scalar attribute the value it had."""
        for _, attributes, size, names, values in self._entries:
            if size < 0:
                continue
            for name, value in zip(names, values, strict=True):
                if attributes.get(name) is not value and isinstance(value, _SCALARS):
                    attributes[name] = value


def has_hooks(model: Any) -> bool:
    """Return whether a PyTorch module in a model calls hooks; layers of Keras do not call theirs."""
    modules = (module for module in model.modules() if not isinstance(module, keras.layers.Layer))
    return any(getattr(module, name, None) for module in modules for name in _HOOKS)


def _equal(old: Any, new: Any) -> bool:
    return type(old) is type(new) and isinstance(old, _SCALARS) and bool(old == new)


def _name(owner: Any) -> str:
    return owner if isinstance(owner, str) else type(owner).__name__


def _content(value: Any, depth: int = 0) -> Any:
    """Return what can be compared of a container or an array, None where there is nothing."""
    if isinstance(value, np.ndarray):
        return (
            ("array", value.tobytes()) if value.size <= _MOST_NUMBERS and value.dtype != object else ("id", id(value))
        )
    if isinstance(value, (*_CALLABLES, torch.Tensor)):
        return ("id", id(value))
    if isinstance(value, _SCALARS):
        return (type(value).__name__, value)
    if depth >= _MOST_DEPTH or isinstance(value, torch.nn.Module):
        return None
    if isinstance(value, dict) and len(value) <= _MOST_NUMBERS:
        found = tuple((str(key), _content(item, depth + 1)) for key, item in value.items())
    elif isinstance(value, (list, tuple, set, frozenset)) and len(value) <= _MOST_NUMBERS:
        found = tuple(("", _content(item, depth + 1)) for item in value)
    else:
        return None
    return ("container", found)


def _watched(model: Any) -> Iterator[tuple[Any, dict[str, Any], tuple[str, ...] | None]]:
    """Yield owner, namespace and the names in it that count (None for all)."""
    seen: set[int] = set()
    waiting: list[Any] = [model, *_keras.all_layers(model), model.optimizer, *model.metrics, *_keras.losses(model)]
    while waiting and len(seen) < _MOST_PARTS:
        part = waiting.pop()
        if part is None or id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, types.FunctionType):
            for owner, namespace, names in _read_by(part):
                yield owner, namespace, names
                for name in names:
                    waiting.extend(_parts_in(namespace.get(name)))
        elif hasattr(part, "__dict__") and not isinstance(part, _LISTS):
            yield part, vars(part), None
            for name, value in vars(part).items():
                if name not in _PASSING:
                    waiting.extend(_parts_in(value))
            for base in type(part).__mro__:
                if not _is_of_a_library(base):
                    for member in vars(base).values():
                        waiting.extend(_parts_in(getattr(member, "fget", member)))


def _parts_in(value: Any, depth: int = 0) -> Iterator[Any]:
    """Yield what in a value has attributes or code that a step may read."""
    value = getattr(value, "__func__", value)
    if isinstance(value, types.FunctionType):
        value = getattr(value, "__wrapped__", value)
        yield from [] if _is_of_a_library(value) else [value]
    elif isinstance(value, _PARTS):
        yield value
    elif depth < _MOST_DEPTH and isinstance(value, dict):
        for item in list(value.values()):
            yield from _parts_in(item, depth + 1)
    elif depth < _MOST_DEPTH and isinstance(value, (list, tuple)):
        for item in value:
            yield from _parts_in(item, depth + 1)
    elif not isinstance(value, (type, types.ModuleType)) and not _is_of_a_library(type(value)):
        yield value


def _is_of_a_library(kind: Any) -> bool:
    return _is_library(str(getattr(kind, "__module__", "")).partition(".")[0])


@functools.cache
def _is_library(name: str) -> bool:
    """Return whether a package is installed rather than written by the user."""
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if name == "__main__" or module is None:
        return False
    if name == "keepfit" or file is None:
        return True
    return "site-packages" in file or "dist-packages" in file or file.startswith(_STANDARD_LIBRARY)


def _read_by(function: types.FunctionType) -> Iterator[tuple[Any, dict[str, Any], tuple[str, ...]]]:
    """Yield what a function of the user's reads of modules and closures."""
    words = set(_names_in(function.__code__))
    yield function.__qualname__, function.__globals__, tuple(words.intersection(function.__globals__))
    for name in words:
        module = function.__globals__.get(name)
        if isinstance(module, types.ModuleType) and not _is_library(module.__name__.partition(".")[0]):
            yield module.__name__, vars(module), tuple(words.intersection(vars(module)))
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        yield function.__qualname__, _Cell(cell), (name,)


def _names_in(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names_in(constant)


class _Cell(dict[str, Any]):
    """A closure's variable, read like a namespace."""

    def __init__(self, cell: types.CellType) -> None:
        super().__init__()
        self._cell = cell

    def get(self, key: str, default: Any = None) -> Any:
        """Return what the variable holds."""
        del key
        try:
            return self._cell.cell_contents
        except ValueError:
            return default
