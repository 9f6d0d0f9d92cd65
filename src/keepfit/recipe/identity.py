"""Identities of functions and classes: name, code, and the plain values they were made with."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any

from keepfit.recipe.code import code_hash, global_names
from keepfit.recipe.origin import class_name, function_name, is_own_class, is_own_code
from keepfit.recipe.values import NOT_PLAIN, plain

_GENERATED = frozenset({"__dict__", "__weakref__", "__doc__", "__module__", "__annotations__", "__qualname__"})
_GENERATED_LATER = frozenset({"__firstlineno__", "__static_attributes__", "__annotate__", "__annotate_func__"})
_SKIPPED_MEMBERS = _GENERATED | _GENERATED_LATER | {"__slots__", "__parameters__", "__abstractmethods__", "_abc_impl"}


def callable_identity(function: Any) -> dict[str, Any]:
    """Return what tells one callable from another, over processes.

    Args:
        function: A function, lambda, bound method, partial, class, or object that can be called.

    Returns:
        ``name``: without module for the user's own, with the top package for a library's;
        ``code``: see `code.code_hash`; only for the user's own code;
        ``closure``: plain values of closure variables, defaults and the module's variables it reads;
        ``uses``: identities of the user's own functions and classes among those, by name.
        Empty entries are left out. A partial has ``of`` and ``arguments``.
    """
    return _callable(function, set())


def class_identity(cls: type) -> dict[str, Any]:
    """Return what tells one class from another, over processes.

    Returns:
        ``name``; for the user's own classes also ``code`` (method -> hash), ``closure`` (plain class
        attributes, and as for functions), ``uses``, and ``bases`` (identities of own bases).
    """
    return _class(cls, set())


def is_function(value: Any) -> bool:
    """Return whether a value is a function in the plain sense: no class, no object with ``__call__``."""
    if isinstance(value, (FunctionType, MethodType, BuiltinFunctionType, functools.partial)):
        return True
    # A jitted function is a library's object around a function.
    return not isinstance(value, type) and callable(value) and _wrapped(value) is not None


def own_function(value: Any) -> bool:
    """Return whether a value is a function with code of the user in it."""
    if type(value) is FunctionType and not value.__dict__:  # the usual case, asked for each attribute of each layer
        return is_own_code(value.__code__)
    if isinstance(value, functools.partial):
        return own_function(value.func)
    function = unwrapped(value)
    return isinstance(function, FunctionType) and is_own_code(function.__code__)


def unwrapped(value: Any) -> Any:
    """Return the function in a bound method and in a library's wrapper (``jax.jit``)."""
    while True:
        if isinstance(value, MethodType):
            value = value.__func__
            continue
        own = isinstance(value, FunctionType) and is_own_code(value.__code__)
        inner = None if own or isinstance(value, type) else _wrapped(value)
        if inner is None:
            return value
        value = inner


def _wrapped(value: Any) -> FunctionType | None:
    inner = getattr(value, "__wrapped__", None)
    return inner if isinstance(inner, FunctionType) else None


def _callable(value: Any, seen: set[Any]) -> dict[str, Any]:
    if isinstance(value, functools.partial):
        arguments = [[str(key), plain(item)] for key, item in [*enumerate(value.args), *value.keywords.items()]]
        return {
            "name": "functools.partial",
            "of": _callable(value.func, seen),
            "arguments": {key: item for key, item in arguments if item is not NOT_PLAIN},
        }
    if isinstance(value, type):
        return _class(value, seen)
    function = unwrapped(value)
    if isinstance(function, FunctionType):
        return _function(function, seen)
    if is_function(function):
        return {"name": function_name(function)}
    return _class(type(value), seen)


def _function(function: FunctionType, seen: set[Any]) -> dict[str, Any]:
    code = function.__code__
    identity: dict[str, Any] = {"name": function_name(function)}
    if not is_own_code(code):
        return identity
    identity["code"] = code_hash(code, function.__globals__)
    if id(code) not in seen:  # functions that call each other
        seen.add(id(code))
        _add_values(identity, _values_in(function), seen)
    return identity


def _class(cls: type, seen: set[Any]) -> dict[str, Any]:
    identity: dict[str, Any] = {"name": class_name(cls)}
    if cls in seen or not is_own_class(cls):
        return identity
    seen.add(cls)
    hashes: dict[str, str] = {}
    values: dict[str, Any] = {}
    for name, member in vars(cls).items():
        functions = list(_functions_of(member))
        for function in functions:
            hashes[name] = hashes.get(name, "") + code_hash(function.__code__, function.__globals__)
            values.update(_values_in(function))
        if not functions and name not in _SKIPPED_MEMBERS:
            values[name] = member
    if hashes:
        identity["code"] = dict(sorted(hashes.items()))
    _add_values(identity, values, seen)
    bases = [_class(base, seen) for base in cls.__bases__ if is_own_class(base)]
    if bases:
        identity["bases"] = bases
    return identity


def _functions_of(member: Any) -> Iterator[FunctionType]:
    """Yield the functions of a class's member: methods, properties, class and static methods."""
    parts: tuple[Any, ...] = (member,)
    if isinstance(member, property):
        parts = (member.fget, member.fset, member.fdel)
    elif isinstance(member, (staticmethod, classmethod)):
        parts = (member.__func__,)
    elif isinstance(member, functools.cached_property):
        parts = (member.func,)
    for part in parts:
        function = None if part is None else unwrapped(part)
        if isinstance(function, FunctionType) and is_own_code(function.__code__):
            yield function


def _values_in(function: FunctionType) -> dict[str, Any]:
    """Return what a function's free names stand for, by name."""
    code: CodeType = function.__code__
    names = global_names(code)
    found = {name: function.__globals__[name] for name in names if name in function.__globals__}
    if function.__defaults__:
        arguments = code.co_varnames[: code.co_argcount]
        found.update(zip(arguments[-len(function.__defaults__) :], function.__defaults__, strict=True))
    if function.__kwdefaults__:
        found.update(function.__kwdefaults__)
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        if name != "__class__" and (value := _cell_value(cell)) is not NOT_PLAIN:
            found[name] = value
    return found


def _cell_value(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return NOT_PLAIN


def _add_values(identity: dict[str, Any], found: dict[str, Any], seen: set[Any]) -> None:
    """Sort what a function's names stand for into plain values and the user's own code."""
    closure: dict[str, Any] = {}
    uses: dict[str, Any] = {}
    for name in sorted(found):
        value = found[name]
        if inspect.ismodule(value):
            continue
        if own_function(value) or (isinstance(value, type) and is_own_class(value)):
            uses[name] = _callable(value, seen)
        elif is_function(value):
            closure[name] = {"function": function_name(value)}
        elif (told := plain(value)) is not NOT_PLAIN:
            closure[name] = told
    if closure:
        identity["closure"] = closure
    if uses:
        identity["uses"] = uses
