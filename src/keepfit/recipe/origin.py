"""Whether a function or class is the user's own or a library's, and what it is called.

Libraries have versions, which the run records beside the recipe; only the
user's own code is hashed.
"""

from __future__ import annotations

import functools
import importlib.util
import site
import sys
import sysconfig
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any
from weakref import WeakKeyDictionary


@functools.cache
def _library_roots() -> tuple[str, ...]:
    """Return the folders whose code is a library's: the standard library, installed packages, keepfit."""
    paths = sysconfig.get_paths()
    roots = {paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    roots.update(site.getsitepackages())
    roots.add(site.getusersitepackages())
    roots.add(str(Path(__file__).resolve().parent.parent))
    keras = importlib.util.find_spec("keras")
    if keras is not None and keras.origin is not None:  # an editable Keras lies outside of all these
        roots.add(str(Path(keras.origin).parent))
    return tuple(f"{path}/" for root in roots for path in {str(Path(root)), str(Path(root).resolve())})


@functools.lru_cache(maxsize=4096)
def is_library_file(filename: str) -> bool:
    """Return whether a code object's file belongs to a library."""
    if filename.startswith("<frozen"):
        return True
    return filename.replace("\\", "/").startswith(tuple(root.replace("\\", "/") for root in _library_roots()))


def is_own_code(code: CodeType) -> bool:
    """Return whether a code object is the user's."""
    return not is_library_file(code.co_filename)


_own_classes: WeakKeyDictionary[type, bool] = WeakKeyDictionary()


def is_own_class(cls: type) -> bool:
    """Return whether a class is the user's; one made in a notebook or by ``exec`` is."""
    known = _own_classes.get(cls)
    if known is None:
        known = _own_classes[cls] = _is_own_class(cls)
    return known


def _is_own_class(cls: type) -> bool:
    if cls.__module__ == "__main__":
        return True
    module = sys.modules.get(cls.__module__)
    if module is None:
        return True
    if module.__name__ in sys.stdlib_module_names:
        return False
    filename = getattr(module, "__file__", None)
    if filename is None:  # builtin, or a module that someone made by hand
        return getattr(module, "__spec__", None) is None
    return not is_library_file(filename)


def short_name(qualified: str) -> str:
    """Return a qualified name without the functions it was made in, which may be moved or renamed."""
    return qualified.rpartition("<locals>.")[2]


def class_name(cls: type) -> str:
    """Return a class's name: with the top package for a library's, without module for the user's own."""
    if is_own_class(cls):
        return short_name(cls.__qualname__)
    return _with_package(cls.__module__, cls.__qualname__)


def function_name(function: Any) -> str:
    """Return a callable's name: with the top package for a library's, without module for the user's own."""
    name = getattr(function, "__qualname__", None) or getattr(function, "__name__", None)
    if name is None:
        return class_name(type(function))
    own = isinstance(function, FunctionType) and is_own_code(function.__code__)
    return short_name(name) if own else _with_package(getattr(function, "__module__", None), short_name(name))


def _with_package(module: str | None, name: str) -> str:
    package = (module or "builtins").partition(".")[0]
    return name if package == "builtins" else f"{package}.{name}"
