"""Hashes of code: the same for the same program text, whatever its comments, docstrings and place.

The hash is one of the stripped syntax tree where the source can be found
(scripts, modules, notebook cells), else one of the bytecode. A hash is computed
once per code object.
"""

from __future__ import annotations

import ast
import dis
import functools
import hashlib
import inspect
import linecache
import sys
import weakref
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any, Generic, TypeAlias, TypeVar

_Function: TypeAlias = "ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda"
_DOCUMENTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_HAS_DOCSTRING = 0x4000000  # CO_HAS_DOCSTRING, from Python 3.13 on

_T = TypeVar("_T")


class _Known(Generic[_T]):
    """What was found out about code objects, for as long as each lives.

    By identity: two code objects are equal when their text is, though only one
    may have its source at hand.
    """

    def __init__(self, find: Callable[[CodeType, dict[str, Any] | None], _T]) -> None:
        self._find = find
        self._found: dict[int, tuple[weakref.ref[CodeType], _T]] = {}

    def __call__(self, code: CodeType, module_globals: dict[str, Any] | None) -> _T:
        key = id(code)
        known = self._found.get(key)
        if known is None:
            gone = weakref.ref(code, lambda _: self._found.pop(key, None))
            known = self._found[key] = (gone, self._find(code, module_globals))
        return known[1]


def code_hash(code: CodeType, module_globals: dict[str, Any] | None = None) -> str:
    """Return the hash of a function's code.

    Args:
        code: A function's code object.
        module_globals: The function's globals, through which the source of a zipped module is found.

    Returns:
        64 hex digits; behind ``"bytecode:"`` where no source was found or it
        could not be told which of several functions on a line was meant. Such a
        hash changes with the Python version.
    """
    return _hashes(code, module_globals)


def global_names(code: CodeType) -> tuple[str, ...]:
    """Return the names that a function and the functions inside it read from its module, sorted."""
    return _names(code, None)


@_Known
def _hashes(code: CodeType, module_globals: dict[str, Any] | None) -> str:
    return _source_hash(code, module_globals) or f"bytecode:{_bytecode_hash(code)}"


@_Known
def _names(code: CodeType, _: dict[str, Any] | None) -> tuple[str, ...]:
    return tuple(sorted(set(_global_names(code))))


def _global_names(code: CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _global_names(constant)


# --- source ---


def _source_hash(code: CodeType, module_globals: dict[str, Any] | None) -> str | None:
    linecache.checkcache(code.co_filename)  # a module that was edited and reloaded
    lines = linecache.getlines(code.co_filename, module_globals)
    if not lines:
        return None
    hashes = {_tree_hash(node) for node in _nodes_of(code, _functions("".join(lines)))}
    # Equal text at different places of one line is no ambiguity.
    return hashes.pop() if len(hashes) == 1 else None


# A few files, for their trees are large; the functions of one file are asked for together.
@functools.lru_cache(maxsize=4)
def _functions(source: str) -> dict[int, list[_Function]]:
    """Return the functions in a source by the line that their code objects count from, 1-based."""
    found: dict[int, list[_Function]] = {}
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return found
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            found.setdefault(first, []).append(node)
        elif isinstance(node, ast.Lambda):
            found.setdefault(node.lineno, []).append(node)
    return found


def _nodes_of(code: CodeType, functions: dict[int, list[_Function]]) -> list[_Function]:
    """Return the syntax trees that a code object can have been compiled from."""
    candidates = [
        node
        for node in functions.get(code.co_firstlineno, [])
        if _name(node) == code.co_name and _arguments(node.args) == _code_arguments(code)
    ]
    fitting = [node for node in candidates if _encloses(node, code)]
    # A lambda in a lambda: the outer one's text encloses the inner one's code too.
    return [node for node in fitting if not any(_contains(node, other) for other in fitting)]


def _name(node: _Function) -> str:
    return "<lambda>" if isinstance(node, ast.Lambda) else node.name


def _arguments(arguments: ast.arguments) -> list[str]:
    names = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    extra = [each for each in (arguments.vararg, arguments.kwarg) if each is not None]
    return [each.arg for each in (*names, *extra)]


def _code_arguments(code: CodeType) -> list[str]:
    count = code.co_argcount + code.co_kwonlyargcount
    count += bool(code.co_flags & inspect.CO_VARARGS) + bool(code.co_flags & inspect.CO_VARKEYWORDS)
    return list(code.co_varnames[:count])


def _encloses(node: _Function, code: CodeType) -> bool:
    """Return whether every instruction comes from inside ``node``: no, if the file was edited after the import."""
    start, end = _span(node.body if isinstance(node, ast.Lambda) else node)
    for first, last in _positions(code):
        if first[0] < start[0] or last[0] > end[0] or (first[1] >= 0 and not start <= first <= last <= end):
            return False
    return True


def _positions(code: CodeType) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yield where each instruction begins and ends, as (line, column); column -1 where Python keeps none."""
    started = False
    for instruction in dis.get_instructions(code):
        place = instruction.positions
        if started and place is not None and place.lineno is not None and place.end_lineno is not None:
            known = place.col_offset is not None and place.end_col_offset is not None
            columns = (place.col_offset or 0, place.end_col_offset or 0) if known else (-1, -1)
            if not known or (place.lineno, columns[0]) != (place.end_lineno, columns[1]):  # a lambda's return has none
                yield (place.lineno, columns[0]), (place.end_lineno, columns[1])
        started = started or instruction.opname == "RESUME"  # what comes before is made by the compiler


def _span(node: ast.AST) -> tuple[tuple[int, int], tuple[int, int]]:
    place: Any = node
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.decorator_list:
        first = min(decorator.lineno for decorator in node.decorator_list)
        return (first, 0), (place.end_lineno, place.end_col_offset)
    return (place.lineno, place.col_offset), (place.end_lineno, place.end_col_offset)


def _contains(outer: _Function, inner: _Function) -> bool:
    (start, end), (first, last) = _span(outer), _span(inner)
    return outer is not inner and start <= first and last <= end


def _tree_hash(node: ast.AST) -> str:
    return hashlib.sha256("".join(_dump(node)).encode("utf-8", "surrogatepass")).hexdigest()


def _dump(node: Any) -> Iterator[str]:
    """Yield a syntax tree as text without positions, docstrings, and fields that are empty.

    ``ast.dump`` writes empty fields or not by Python version; this does not.
    """
    if isinstance(node, ast.AST):
        yield f"({type(node).__name__}"
        for field, value in ast.iter_fields(node):
            if field in ("ctx", "kind", "type_comment") or value is None or value == []:
                continue
            yield f" {field}="
            yield from _dump(_body(node, value) if field == "body" else value)
        yield ")"
    elif isinstance(node, list):
        yield "["
        for item in node:
            yield from _dump(item)
            yield ","
        yield "]"
    else:
        yield f"{type(node).__name__}:{node!r}"


def _body(node: ast.AST, body: Any) -> Any:
    if not isinstance(node, _DOCUMENTED) or ast.get_docstring(node, clean=False) is None:
        return body
    return body[1:] or [ast.Pass()]


# --- bytecode ---


def _bytecode_hash(code: CodeType) -> str:
    return hashlib.sha256("".join(_code_text(code)).encode("utf-8", "surrogatepass")).hexdigest()


def _code_text(code: CodeType) -> Iterator[str]:
    names = (code.co_name, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    yield f"({names!r} {code.co_argcount} {code.co_posonlyargcount} {code.co_kwonlyargcount} {code.co_code.hex()}"
    for index, constant in enumerate(code.co_consts):
        yield from ("None",) if index == 0 and _has_docstring(code) else _constant_text(constant)
        yield ","
    yield ")"


def _constant_text(constant: Any) -> Iterator[str]:
    if isinstance(constant, CodeType):
        yield from _code_text(constant)
    elif isinstance(constant, tuple):
        yield f"({','.join(''.join(_constant_text(each)) for each in constant)})"
    elif isinstance(constant, frozenset):  # its order changes with the hash seed
        yield f"{{{','.join(sorted(''.join(_constant_text(each)) for each in constant))}}}"
    else:
        yield f"{type(constant).__name__}:{constant!r}"


def _has_docstring(code: CodeType) -> bool:
    if sys.version_info >= (3, 13):
        return bool(code.co_flags & _HAS_DOCSTRING)
    # Before 3.13 a function's first constant is its docstring or None; that of a comprehension is neither.
    return bool(code.co_consts) and isinstance(code.co_consts[0], str) and not code.co_name.startswith("<")
