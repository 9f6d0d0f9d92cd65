"""What a variable holds, as an array that never changes, on every backend.

JAX's arrays never change. TensorFlow and PyTorch write into variables in
place, so that what was read of one must be kept apart: TensorFlow does so by
itself (a buffer that somebody holds is copied before it is overwritten), and
PyTorch's tensors are copied here.

As long as a variable holds the same bits, `value` gives the same object, so
that ``is`` tells what has changed, and equal tensors are held once.
"""

from __future__ import annotations

import sys
import weakref
from abc import ABC, abstractmethod
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
        dtype: Its dtype's standard name in Keras.
    """

    __slots__ = ("__weakref__", "dtype", "shape", "tensor")

    def __init__(self, tensor: Any, dtype: str) -> None:
        self.tensor = tensor
        self.shape = tuple(int(extent) for extent in tensor.shape)
        self.dtype: np.dtype[Any] = np.dtype(dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        found = self.host()
        return found if dtype is None or found.dtype == dtype else found.astype(dtype)

    @classmethod
    @abstractmethod
    def of(cls, variable: Any) -> Held:
        """Return what a variable holds."""

    @classmethod
    def now(cls, variable: Any, last: Held | None) -> Held:
        """Return what a variable holds: the last that was read of it where that is still so."""
        # Of another shape is what a variable held that is gone and had the same id.
        same = last is not None and last.shape == tuple(variable.shape) and last.is_in(variable)
        return last if same and last is not None else cls.of(variable)

    @abstractmethod
    def is_in(self, variable: Any) -> bool:
        """Return whether the variable still holds these bits; False where that is not known."""

    @abstractmethod
    def put(self, variable: Any) -> None:
        """Write the tensor into a variable of its shape and dtype."""

    @abstractmethod
    def host(self) -> NDArray[Any]:
        """Return the tensor as a NumPy array, which nobody may change."""


class HeldTensorFlow(Held):
    """A tensor read from a TensorFlow variable."""

    __slots__ = ("_host",)

    def __init__(self, tensor: Any, dtype: str) -> None:
        super().__init__(tensor, dtype)
        self._host: NDArray[Any] | None = None

    @classmethod
    def of(cls, variable: Any) -> Held:
        """Read the variable; the buffer is shared until the variable is written."""
        return cls(read(variable), variable.dtype)

    @classmethod
    def now(cls, variable: Any, last: Held | None) -> Held:
        """Read the variable once, whether it has changed or not."""
        tensor = read(variable)
        return last if isinstance(last, cls) and last._is_same(tensor) else cls(tensor, variable.dtype)

    def is_in(self, variable: Any) -> bool:
        """Compare buffers, then bits."""
        return self._is_same(read(variable))

    def _is_same(self, tensor: Any) -> bool:
        now, mine = np.asarray(tensor), self.host()
        # A buffer that is held here is neither freed nor overwritten.
        return now.__array_interface__ == mine.__array_interface__ or _same(now, mine)

    def put(self, variable: Any) -> None:
        """Write the tensor."""
        write(variable, self.tensor)

    def host(self) -> NDArray[Any]:
        """Return the tensor's own memory where it lies on the host."""
        if self._host is None:
            self._host = np.asarray(self.tensor)
        return self._host


class HeldTorch(Held):
    """A copy of a PyTorch parameter."""

    __slots__ = ("_bits",)

    def __init__(self, tensor: Any, dtype: str) -> None:
        super().__init__(tensor, dtype)
        self._bits = _bits_of(tensor)

    @classmethod
    def of(cls, variable: Any) -> Held:
        """Copy the parameter on its device."""
        return cls(_keras.value(variable).detach().clone(), variable.dtype)

    def is_in(self, variable: Any) -> bool:
        """Compare bits, since a parameter can be written in ways that leave no trace (``.data``)."""
        now = _keras.value(variable)
        if now.dtype is not self.tensor.dtype or now.device != self.tensor.device:
            return False
        return bool(torch.equal(_bits_of(now.detach()), self._bits))

    def put(self, variable: Any) -> None:
        """Copy the tensor into the parameter."""
        _keras.value(variable).detach().copy_(self.tensor)

    def host(self) -> NDArray[Any]:
        """Copy from the device where it must; dtypes that PyTorch does not give to NumPy go by their bytes."""
        tensor = self.tensor.cpu().contiguous()
        if str(self.dtype) in _UNKNOWN_TO_NUMPY:
            return np.asarray(_bytes_of(tensor).numpy()).view(self.dtype).reshape(self.shape)
        return np.asarray(tensor.numpy())


_UNKNOWN_TO_NUMPY = ("bfloat16", "float8_e4m3fn", "float8_e5m2")
_KINDS: dict[str, type[Held]] = {"tensorflow": HeldTensorFlow, "torch": HeldTorch}
_KIND = _KINDS.get(keras.backend.backend())
_PIECE = 1 << 16
# Variable -> what was last read of it, as long as anybody holds that.
_last: weakref.WeakValueDictionary[int, Held] = weakref.WeakValueDictionary()


def value(variable: Any) -> Any:
    """Return what a variable holds: an array that never changes, the same object while the bits are the same."""
    if _KIND is None:
        return _keras.value(variable)
    key = id(variable)
    last = _last.get(key)
    found = _KIND.now(variable, last)
    if found is not last:
        _last[key] = found
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


def read(variable: Any) -> Any:
    """Return what a variable of TensorFlow holds; its own ``read_value`` takes five times as long."""
    tf = sys.modules["tensorflow"]
    inner = _keras.value(variable)
    return tf.raw_ops.ReadVariableOp(resource=inner.handle, dtype=inner.dtype)


def write(variable: Any, tensor: Any) -> None:
    """Let a variable of TensorFlow share what `read` gave of one like it."""
    tf = sys.modules["tensorflow"]
    tf.raw_ops.AssignVariableOp(resource=_keras.value(variable).handle, value=tensor)


def _same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Compare bits piece by piece: those of a variable that was trained differ at once."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    first, second = (each.reshape(-1).view(np.uint8) for each in (one, other))
    return all(
        np.array_equal(first[start : start + _PIECE], second[start : start + _PIECE])
        for start in range(0, len(first), _PIECE)
    )


def _bits_of(tensor: Any) -> Any:
    """Return a tensor's memory as whole numbers, which are equal where the bits are."""
    whole = _WHOLE_NUMBERS.get(tensor.dtype.itemsize)
    return _bytes_of(tensor) if whole is None else tensor.view(whole)


def _bytes_of(tensor: Any) -> Any:
    return tensor.contiguous().reshape(-1).view(torch.uint8)
