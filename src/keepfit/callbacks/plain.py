"""Plain data and arrays as JSON and tensors: exactly, and without executing code when read."""

from __future__ import annotations

import random
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Deeper than any real state; an object that holds itself ends here.
_MOST_DEPTH = 12
# From here on, numbers in a list are one tensor: a loss for every batch would be a page of JSON.
_MANY = 64
_SEQUENCES: dict[type, str] = {tuple: "tuple", deque: "deque", set: "set", frozenset: "frozenset"}
_MAPPINGS: dict[type, str] = {dict: "dict", OrderedDict: "OrderedDict", Counter: "Counter", defaultdict: "defaultdict"}
# A file can name these and no other factory.
_FACTORIES: dict[str, Any] = {kind.__name__: kind for kind in (list, dict, set, int, float, str)}
_BIT_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")


class NotPlain(Exception):
    """A value that is neither plain data nor an array; the message says what it is."""


def encode(value: Any, path: str, keep: Callable[[str, Array], None], depth: int = 0) -> Any:
    """Return JSON for a value.

    Types come back exactly: a tuple stays a tuple, integer keys stay integers,
    a NumPy scalar keeps its dtype, an array of the backend stays one, and NaN
    and infinities survive.

    Args:
        value: None, bool, int, float, complex, str, bytes, path, NumPy scalar or array, array of the backend,
            random generator (Python's or NumPy's), and lists, tuples, sets, dicts and deques of those.
        path: Name of the value, such as ``best_weights``; what it holds is named below it.
        keep: Called with name and array for each array; copies it where it must.
        depth: Containers around the value.

    Raises:
        NotPlain: The value is or holds something else.
    """
    kind = type(value)
    if depth > _MOST_DEPTH:
        raise NotPlain("nested without end")
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if np.isfinite(value) else {"float": repr(value)}
    if isinstance(value, np.generic):
        return _scalar(value)
    if kind is np.ndarray:
        return _array(value, path, keep)
    if kind is list:
        return _members(value, path, keep, depth)
    if kind in _SEQUENCES:
        return _sequence(value, path, keep, depth)
    if kind in _MAPPINGS:
        return _mapping(value, path, keep, depth)
    return _rare(value, path, keep, depth)


def decode(value: Any, read: Callable[[str], Array]) -> Any:
    """Return what `encode` was given.

    Args:
        value: The JSON.
        read: Gives the array that was kept under a name; the caller may not change it afterwards.
    """
    if isinstance(value, list):
        return [decode(item, read) for item in value]
    if not isinstance(value, Mapping):
        return value
    kind, inner = next(iter(value.items()))
    if kind in _DECODERS:
        return _DECODERS[kind](inner)
    if kind in ("array", "tensor"):
        array = read(inner)
        return array if kind == "array" else keras.ops.convert_to_tensor(array)
    if kind == "numbers":
        return read(inner).tolist()
    if kind in _MAPPINGS.values():
        return _decoded_mapping(kind, inner, value.get("factory"), read)
    if kind in ("generator", "RandomState", "Random"):
        return _decoded_generator(kind, decode(inner, read))
    members = decode(inner, read)
    if kind == "deque":
        return deque(members, value["maxlen"])
    return {"tuple": tuple, "set": set, "frozenset": frozenset}[kind](members)


# Encoding


def _scalar(value: np.generic) -> Any:
    if value.dtype.kind == "O" or value.dtype.names:
        raise NotPlain(f"a {type(value).__name__}")
    return {"scalar": [_dtype_name(value.dtype), value.tobytes().hex()]}


def _array(value: Array, path: str, keep: Callable[[str, Array], None], marker: str = "array") -> Any:
    if value.dtype.hasobject or value.dtype.names:
        raise NotPlain(f"an array of dtype {value.dtype}")
    if value.dtype.kind in "mMUS":  # times and texts, which a file of tensors cannot hold
        return {"raw": [value.dtype.str, list(value.shape), value.tobytes().hex()]}
    keep(path, value)
    return {marker: path}


def _members(values: Sequence[Any], path: str, keep: Callable[[str, Array], None], depth: int) -> Any:
    if len(values) >= _MANY:
        kinds = set(map(type, values))
        if kinds == {float} or (kinds == {int} and -(2**63) <= min(values) <= max(values) < 2**63):
            keep(path, np.array(values, np.float64 if kinds == {float} else np.int64))
            return {"numbers": path}
    return [encode(item, f"{path}/{index}", keep, depth + 1) for index, item in enumerate(values)]


def _sequence(value: Any, path: str, keep: Callable[[str, Array], None], depth: int) -> Any:
    kind = type(value)
    # A set has no order; the same one gives the same JSON.
    members = sorted(value, key=repr) if kind in (set, frozenset) else list(value)
    encoded = {_SEQUENCES[kind]: _members(members, path, keep, depth)}
    return {**encoded, "maxlen": value.maxlen} if kind is deque else encoded


def _mapping(value: Any, path: str, keep: Callable[[str, Array], None], depth: int) -> Any:
    named = all(type(key) is str and key and "/" not in key for key in value)
    items = []
    for index, (key, item) in enumerate(value.items()):
        below = f"{path}/{key if named else index}"
        items.append([encode(key, f"{below}/key", keep, depth + 1), encode(item, below, keep, depth + 1)])
    encoded = {_MAPPINGS[type(value)]: items}
    if type(value) is defaultdict:
        factory = value.default_factory
        name = getattr(factory, "__name__", None)
        if factory is not None and _FACTORIES.get(str(name)) is not factory:
            raise NotPlain("a defaultdict with a factory of its own")
        return {**encoded, "factory": name}
    return encoded


def _rare(value: Any, path: str, keep: Callable[[str, Array], None], depth: int) -> Any:
    kind = type(value)
    if kind is bytes:
        return {"bytes": value.hex()}
    if kind is complex:
        return {"complex": [repr(value.real), repr(value.imag)]}
    if isinstance(value, PurePath) and kind is type(Path()):
        return {"path": str(value)}
    if kind is np.random.Generator and type(value.bit_generator).__name__ in _BIT_GENERATORS:
        return {"generator": encode(value.bit_generator.state, path, keep, depth + 1)}
    if kind is np.random.RandomState:
        return {"RandomState": encode(value.get_state(legacy=False), path, keep, depth + 1)}
    if kind is random.Random:
        return {"Random": encode(value.getstate(), path, keep, depth + 1)}
    # A keras.Variable is not data but a place: putting an array where it was would break its user.
    if not isinstance(value, keras.Variable) and keras.ops.is_tensor(value):
        try:
            array = keras.ops.convert_to_numpy(value)
        except Exception as error:  # a deleted buffer, a symbolic tensor, a key of JAX: each backend has its own
            raise NotPlain(f"a {kind.__name__} that cannot be read") from error
        return _array(np.asarray(array), path, keep, "tensor")
    raise NotPlain(f"a {kind.__name__}")


# Decoding


def _dtype_name(dtype: np.dtype[Any]) -> str:
    # The types of ml_dtypes have a name and no code of their own.
    return dtype.name if dtype.kind == "V" else dtype.str


def _decoded_raw(inner: Sequence[Any]) -> Array:
    dtype, shape, data = inner
    return np.frombuffer(bytes.fromhex(data), np.dtype(dtype)).reshape(shape).copy()


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "float": float,
    "complex": lambda inner: complex(float(inner[0]), float(inner[1])),
    "bytes": bytes.fromhex,
    "path": Path,
    "scalar": lambda inner: np.frombuffer(bytes.fromhex(inner[1]), np.dtype(inner[0]))[0],
    "raw": _decoded_raw,
}


def _decoded_mapping(kind: str, items: Sequence[Any], factory: str | None, read: Callable[[str], Array]) -> Any:
    pairs = [(decode(key, read), decode(item, read)) for key, item in items]
    if kind == "defaultdict":
        return defaultdict(None if factory is None else _FACTORIES[factory], pairs)
    if kind == "Counter":
        return Counter(dict(pairs))
    return OrderedDict(pairs) if kind == "OrderedDict" else dict(pairs)


def _decoded_generator(kind: str, state: Any) -> Any:
    if kind == "Random":
        generator = random.Random()  # noqa: S311 - the user's own generator
        generator.setstate(state)
        return generator
    if kind == "RandomState":
        old = np.random.RandomState()
        old.set_state(state)
        return old
    name = state["bit_generator"]
    if name not in _BIT_GENERATORS:
        raise ValueError(f"not a generator of NumPy: {name!r}")
    bits = getattr(np.random, name)()
    bits.state = state
    return np.random.Generator(bits)
