"""What a variable holds, as an array that never changes, on every backend.

JAX's arrays never change. TensorFlow and PyTorch write into variables in
place, so that what was read of one must be kept apart: TensorFlow does so by
itself (a buffer that somebody holds is copied before it is overwritten), and
PyTorch's tensors are copied here.

As long as a variable holds the same bits, `value` gives the same object, so
that ``is`` tells what has changed, and equal tensors are held once.

Looking costs more than the step of a small model. Where only keepfit's own
code runs for a while, `Known` looks at each variable once.
"""

from __future__ import annotations

import functools
import math
import sys
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keepfit import _keras

if keras.backend.backend() == "torch":
    import torch

    _WHOLE_NUMBERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Held(ABC):
    """A tensor that nobody changes, with what the rest of keepfit asks of an array.

    Args:
        tensor: The backend's tensor.
        variable: The Keras variable that it was read of.
        like: Another of the same shape and dtype, where one is at hand.
    """

    __slots__ = ("__weakref__", "dtype", "shape", "tensor")

    def __init__(self, tensor: Any, variable: Any, *, like: Held | None = None) -> None:
        self.tensor = tensor
        # To ask a Keras variable takes longer than to read it.
        self.shape: tuple[int, ...] = tuple(variable.shape) if like is None else like.shape
        self.dtype: np.dtype[Any] = np.dtype(variable.dtype) if like is None else like.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        found = self.host()
        return found if dtype is None or found.dtype == dtype else found.astype(dtype)

    @staticmethod
    @abstractmethod
    def tensors_of(variables: Sequence[Any]) -> list[Any]:
        """Return what variables hold as the backend's tensors, which stay as they are."""

    @staticmethod
    @abstractmethod
    def put_tensor(variable: Any, tensor: Any) -> None:
        """Let a variable hold what `tensors_of` gave of it."""

    @classmethod
    @abstractmethod
    def now(
        cls, variables: Sequence[Any], last: Sequence[Held | None], tensors: Sequence[Any] | None = None
    ) -> list[Held]:
        """Return what variables hold: the last that was read of each where that is still so.

        Args:
            variables: The variables.
            last: Of each. One of another shape is what a variable held that is gone and had the same id.
            tensors: What `tensors_of` gives of them, where somebody has it.
        """

    @abstractmethod
    def is_in(self, variable: Any) -> bool:
        """Return whether the variable still holds these bits; False where that is not known."""

    def put(self, variable: Any) -> None:
        """Write the tensor into a variable of its shape and dtype."""
        self.put_tensor(variable, self.tensor)

    @abstractmethod
    def host(self) -> NDArray[Any]:
        """Return the tensor as a NumPy array, which nobody may change."""


class HeldTensorFlow(Held):
    """A tensor read from a TensorFlow variable."""

    __slots__ = ("_host",)

    def __init__(self, tensor: Any, variable: Any, *, like: Held | None = None) -> None:
        super().__init__(tensor, variable, like=like)
        self._host: NDArray[Any] | None = None

    @staticmethod
    def tensors_of(variables: Sequence[Any]) -> list[Any]:
        """Read variables; each buffer is shared until its variable is written."""
        return read_variables([_keras.value(variable) for variable in variables])

    @staticmethod
    def put_tensor(variable: Any, tensor: Any) -> None:
        """Let the variable share the tensor's buffer."""
        raw_ops = sys.modules["tensorflow"].raw_ops
        raw_ops.AssignVariableOp(resource=_keras.value(variable).handle, value=tensor)

    @classmethod
    def now(
        cls, variables: Sequence[Any], last: Sequence[Held | None], tensors: Sequence[Any] | None = None
    ) -> list[Held]:
        """Read all variables at once, whether they have changed or not."""
        read = cls.tensors_of(variables) if tensors is None else tensors
        return [
            cls._now(variable, tensor, before)  # type: ignore[arg-type]
            for variable, tensor, before in zip(variables, read, last, strict=True)
        ]

    @classmethod
    def _now(cls, variable: Any, tensor: Any, before: HeldTensorFlow | None) -> HeldTensorFlow:
        if before is None:
            return cls(tensor, variable)
        host, mine = _host_of(tensor), before.host()
        if host.shape != mine.shape or host.dtype != mine.dtype:
            return cls(tensor, variable)
        if _is_same(host, mine):
            return before
        found = cls(tensor, variable, like=before)
        found._host = host
        return found

    def is_in(self, variable: Any) -> bool:
        """Compare buffers and bits."""
        now, mine = _host_of(self.tensors_of([variable])[0]), self.host()
        return now.shape == mine.shape and now.dtype == mine.dtype and _is_same(now, mine)

    def host(self) -> NDArray[Any]:
        """Return the tensor's own memory where it lies on the host."""
        if self._host is None:
            self._host = _host_of(self.tensor)
        return self._host


class HeldTorch(Held):
    """A copy of a PyTorch parameter."""

    __slots__ = ("_bits", "_seen")

    def __init__(self, tensor: Any, variable: Any, *, like: HeldTorch | None = None) -> None:
        super().__init__(tensor, variable, like=like)
        self._bits = _bits_of(tensor)
        # The parameter's own memory as it was last looked at, which the newest one has: the next look need not ask.
        self._seen: Any = None
        if like is not None:
            self._seen, like._seen = like._seen, None

    @staticmethod
    def tensors_of(variables: Sequence[Any]) -> list[Any]:
        """Copy parameters on their device."""
        return [_keras.value(variable).detach().clone() for variable in variables]

    @classmethod
    def now(
        cls, variables: Sequence[Any], last: Sequence[Held | None], tensors: Sequence[Any] | None = None
    ) -> list[Held]:
        """Copy the parameters that have changed."""
        assert tensors is None
        return [cls._now(variable, before) for variable, before in zip(variables, last, strict=True)]  # type: ignore[arg-type]

    @classmethod
    def _now(cls, variable: Any, before: HeldTorch | None) -> HeldTorch:
        if before is not None and before.is_in(variable):
            return before
        (tensor,) = cls.tensors_of([variable])
        return cls(tensor, variable, like=before if before is not None and before._is_like(tensor) else None)

    @staticmethod
    def put_tensor(variable: Any, tensor: Any) -> None:
        """Copy the tensor into the parameter."""
        _keras.value(variable).detach().copy_(tensor)

    def is_in(self, variable: Any) -> bool:
        """Compare bits, since a parameter can be written in ways that leave no trace (``.data``)."""
        now = _keras.value(variable)
        if not self._is_like(now):
            return False
        seen = self._seen
        if seen is None or now.data_ptr() != seen.data_ptr() or now.stride() != seen.stride():
            seen = _bits_of(now.detach())
            # What has no such view is a copy of now.
            self._seen = seen if seen.data_ptr() == now.data_ptr() else None
        return bool(torch.equal(seen, self._bits))

    def _is_like(self, now: Any) -> bool:
        mine = self.tensor
        return bool(now.shape == mine.shape and now.dtype is mine.dtype and now.device == mine.device)

    def host(self) -> NDArray[Any]:
        """Copy from the device where it must; dtypes that PyTorch does not give to NumPy go by their bytes."""
        tensor = self.tensor.cpu().contiguous()
        if _is_unknown_to_numpy(self.dtype):
            return np.asarray(_bytes_of(tensor).numpy()).view(self.dtype).reshape(self.shape)
        return np.asarray(tensor.numpy())


_KINDS: dict[str, type[Held]] = {"tensorflow": HeldTensorFlow, "torch": HeldTorch}
_KIND = _KINDS.get(keras.backend.backend())
_PIECE = 1 << 16
# To compare so many bytes takes less time than to find out where they lie; those of trained variables mostly differ.
_HEAD = 1 << 12
# Variable -> what was last read of it, as long as anybody holds that.
_last: weakref.WeakValueDictionary[int, Held] = weakref.WeakValueDictionary()


def value(variable: Any) -> Any:
    """Return what a variable holds: an array that never changes, the same object while the bits are the same."""
    return values([variable])[0]


def values(variables: Sequence[Any], tensors: Sequence[Any] | None = None) -> list[Any]:
    """Return what `value` does of each variable; to look at many at once takes less time.

    Args:
        variables: The variables.
        tensors: What they hold as the backend's tensors, where somebody has read them already; nobody changes these.
    """
    if _KIND is None:
        return [_keras.value(variable) for variable in variables]
    keys = [id(variable) for variable in variables]
    last = [_last.get(key) for key in keys]
    found = _KIND.now(variables, last, tensors)
    for key, before, now in zip(keys, last, found, strict=True):
        if now is not before:
            _last[key] = now
    return found


def set_value(variable: Any, array: Any) -> None:
    """Let a variable hold what `value` gave of it."""
    if isinstance(array, Held):
        if _last.get(id(variable)) is not array or not array.is_in(variable):
            array.put(variable)
            _last[id(variable)] = array
    elif _KIND is None:
        _keras.set_value(variable, array)
    else:
        variable.assign(array)


def assign(variable: Any, array: Any) -> None:
    """Give a variable the values of an array of any kind."""
    if isinstance(array, Held) and array.dtype == np.dtype(variable.dtype):
        set_value(variable, array)
    else:
        variable.assign(array)


class Known:
    """What variables hold, each looked at once in a stretch in which nobody but keepfit writes them.

    Outside of such a stretch every look is a new one. Within, whoever writes
    variables or lets others do so says it with `forget`.

    Example:
        >>> import keras
        >>> variable = keras.Variable([1.0, 2.0])
        >>> known = Known()
        >>> with known.undisturbed():
        ...     known.value(variable) is known.value(variable)
        True
    """

    def __init__(self) -> None:
        self._held: dict[int, Held] | None = None
        # Variable -> tensor that a program returned of it.
        self._seen: dict[int, Any] = {}
        # What is known of these variables is yet to be written.
        self._later: list[tuple[Any, Held]] = []

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Look once at each variable until `forget`; where arrays never change, a look costs nothing anyway."""
        self._held = None if _KIND is None else {}
        try:
            yield
        finally:
            self.forget()
            self._held = None

    def forget(self) -> None:
        """Look anew: variables may have been written."""
        self._write_later()
        self._clear()

    def hand_over(self, begins: Mapping[int, Any]) -> bool:
        """Forget, as a program is about to write; return whether it is to write first what `set_later` left.

        Where it is, that counts as written from `saw` on: if the program fails, `forget` writes it.

        Args:
            begins: Id of a variable -> the array that the program can give it; others are written here.
        """
        if any(begins.get(id(variable)) is not array for variable, array in self._later):
            self._write_later()
        self._clear()
        return bool(self._later)

    def saw(self, variables: Sequence[Any], tensors: Sequence[Any]) -> None:
        """Take what a program returned of the variables after it had written them: the next look need not read.

        Args:
            variables: Variables of TensorFlow.
            tensors: What they hold now, which nobody changes.
        """
        self._later = []
        if self._held is not None:
            self._seen = dict(zip(map(id, variables), tensors, strict=True))

    def look(self, variables: Sequence[Any]) -> None:
        """Look at all that will be asked for soon, at once; where nothing is known for long, do nothing."""
        if self._held is not None:
            self.values(variables)

    def value(self, variable: Any) -> Any:
        """Return what `value` of the module does."""
        return self.values([variable])[0]

    def values(self, variables: Sequence[Any]) -> list[Any]:
        """Return what `values` of the module does."""
        held = self._held
        if held is None:
            return values(variables)
        new = [variable for variable in variables if id(variable) not in held]
        if new:
            held.update(zip(map(id, new), values(new, self._seen_of(new)), strict=True))
        return [held[id(variable)] for variable in variables]

    def _seen_of(self, variables: Sequence[Any]) -> list[Any] | None:
        """Return what a program returned of the variables, None where it did not return all."""
        seen = self._seen
        if not seen:
            return None
        found = [seen.get(id(variable)) for variable in variables]
        return None if any(tensor is None for tensor in found) else found

    def set_later(self, variables: Sequence[Any], arrays: Sequence[Any]) -> None:
        """Do as `set_value` does for each, but leave it to the next program to write what is not there yet.

        To write one variable by itself takes as long as many operations of a program. `hand_over` says to a program
        that it is to write them; else `forget` does, which is called before others look at variables.
        """
        held = self._held
        if held is None:
            for variable, array in zip(variables, arrays, strict=True):
                set_value(variable, array)
            return
        self._write_later()
        before = self.values(variables)
        self._later = [
            (variable, array)
            for variable, array, known in zip(variables, arrays, before, strict=True)
            if known is not array
        ]
        held.update((id(variable), array) for variable, array in self._later)

    def _write_later(self) -> None:
        for variable, array in self._later:
            array.put(variable)
            _last[id(variable)] = array
        self._later = []

    def _clear(self) -> None:
        if self._held is not None:
            self._held = {}
        self._seen = {}

    def set_value(self, variable: Any, array: Any) -> None:
        """Let a variable hold what `value` gave of it, and know it."""
        self._write_later()
        held = self._held
        if held is None:
            set_value(variable, array)
            return
        known = held.get(id(variable))
        if known is None:
            set_value(variable, array)
        elif known is not array:
            array.put(variable)
            _last[id(variable)] = array
        held[id(variable)] = array

    def tensors(self, variables: Sequence[Any]) -> list[tuple[Any, Any]]:
        """Return variables with the tensors that `put_back` takes; not for JAX, where an array is all it needs."""
        assert _KIND is not None
        held = self._held or {}
        new = [variable for variable in variables if id(variable) not in held]
        read = iter(self._seen_of(new) or _KIND.tensors_of(new)) if new else iter(())
        return [(each, held[id(each)].tensor if id(each) in held else next(read)) for each in variables]

    def put_back(self, tensors: Iterable[tuple[Any, Any]]) -> None:
        """Let variables hold what `tensors` gave of them."""
        assert _KIND is not None
        for variable, tensor in tensors:
            _KIND.put_tensor(variable, tensor)
        self.forget()


def read_variables(variables: Sequence[Any]) -> list[Any]:
    """Return what variables of TensorFlow hold; their own ``read_value`` takes five times as long."""
    together = _read_together() if len(variables) > 1 else None
    if together is not None:
        return together([each.handle for each in variables], [each.dtype.as_datatype_enum for each in variables])
    raw_ops = sys.modules["tensorflow"].raw_ops
    return [raw_ops.ReadVariableOp(resource=each.handle, dtype=each.dtype) for each in variables]


@functools.cache
def _read_together() -> Callable[[list[Any], list[int]], list[Any]] | None:
    """Return a function that reads variables in one operation, None where TensorFlow has none or there are devices.

    The operation is the one in which its compiler puts readings together, and
    no part of the public API. Sixteen variables take 0.06 ms, and one by one
    0.25 ms.
    """
    tf = sys.modules["tensorflow"]
    if len(tf.config.list_logical_devices()) > 1:
        return None
    try:
        from tensorflow.python.eager import context, execute

        def read(handles: list[Any], types: list[int]) -> list[Any]:
            attributes = ("N", len(handles), "dtypes", types)
            found: list[Any] = execute.execute(
                b"_ReadVariablesOp", len(handles), handles, attributes, context.context()
            )
            return found

        probe = tf.Variable([1.0, 2.0], trainable=False)
        (found,) = read([probe.handle], [probe.dtype.as_datatype_enum])
        return read if found.numpy().tolist() == [1.0, 2.0] else None
    except (ImportError, AttributeError, TypeError, tf.errors.OpError):
        return None


def _host_of(tensor: Any) -> NDArray[Any]:
    """Return a tensor of TensorFlow as an array, without a copy where it lies on the host."""
    try:
        return np.asarray(tensor)
    except ValueError:  # NumPy takes no scalar of bfloat16 that way
        return np.asarray(tensor.numpy())


def _is_same(now: NDArray[Any], mine: NDArray[Any]) -> bool:
    """Compare the bits of two arrays of one shape and dtype, of which the second is held here."""
    if now.nbytes <= _HEAD:
        return now.tobytes() == mine.tobytes()
    if _head(now) != _head(mine):
        return False
    # A buffer that is held here is neither freed nor overwritten.
    return now.__array_interface__ == mine.__array_interface__ or _same(now, mine)


def _head(array: NDArray[Any]) -> bytes:
    return array.reshape(-1)[: _HEAD // array.itemsize].tobytes()


def _same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Compare bits, piece by piece."""
    first, second = (each.reshape(-1).view(np.uint8) for each in (one, other))
    return all(
        np.array_equal(first[start : start + _PIECE], second[start : start + _PIECE])
        for start in range(0, len(first), _PIECE)
    )


@functools.cache
def _is_unknown_to_numpy(dtype: np.dtype[Any]) -> bool:
    """Return whether PyTorch has the dtype and does not give it to NumPy; to ask for a dtype's name takes a while."""
    return str(dtype) in ("bfloat16", "float8_e4m3fn", "float8_e5m2")


def _bits_of(tensor: Any) -> Any:
    """Return a tensor's memory as whole numbers, which are equal where the bits are."""
    whole = _WHOLE_NUMBERS.get(tensor.dtype.itemsize)
    return _bytes_of(tensor) if whole is None else tensor.view(whole)


def _bytes_of(tensor: Any) -> Any:
    return tensor.contiguous().reshape(-1).view(torch.uint8)
