"""One array of a source, whatever library it comes from, as rows for the backend in force."""

from __future__ import annotations

import functools
import math
import mmap
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keepfit import _keras
from keepfit.errors import InvalidData

Rows = slice | NDArray[np.int64]


class Column(ABC):
    """An array with one row per sample.

    Attributes:
        shape: Shape of the whole array, first axis samples.
        size_bytes: Size as the model gets it; for sparse arrays that of what is stored.
    """

    shape: tuple[int, ...]
    size_bytes: int

    @abstractmethod
    def take(self, rows: Rows) -> Any:
        """Return rows as the backend in force is fed them."""


class DenseColumn(Column):
    """A NumPy array in memory or a JAX array, of the dtype that the model gets."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self.shape = tuple(array.shape)
        self.size_bytes = int(array.nbytes)
        self._host: NDArray[Any] | None = array if type(array) is np.ndarray else None

    def take(self, rows: Rows) -> NDArray[Any]:
        """Return rows."""
        if self._host is None:
            self._host = np.asarray(self.array)
        return _rows(self._host, rows)


class MappedColumn(Column):
    """A NumPy array that stays on disk; rows are read and converted when they are taken."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = np.asarray(array)
        self._dtype = model_dtype(array.dtype)
        self.shape = array.shape
        self.size_bytes = math.prod(array.shape) * self._dtype.itemsize

    def take(self, rows: Rows) -> NDArray[Any]:
        """Return rows."""
        return _rows(self._array, rows).astype(self._dtype, copy=False)


class StoreColumn(Column):
    """An HDF5 or Zarr array, which stays where it is; rows are read and converted when they are taken."""

    def __init__(self, array: Any) -> None:
        self._array = array
        self._dtype = model_dtype(np.dtype(array.dtype))
        self.shape = tuple(array.shape)
        self.size_bytes = math.prod(self.shape) * self._dtype.itemsize

    def take(self, rows: Rows) -> NDArray[Any]:
        """Return rows."""
        return np.asarray(stored_rows(self._array, rows)).astype(self._dtype, copy=False)


class StoreRows:
    """Some rows of an array that stays on disk, as an array of such rows.

    Args:
        array: An HDF5, Zarr or memory-mapped array.
        rows: Which rows, rising.
    """

    def __init__(self, array: Any, rows: NDArray[np.int64]) -> None:
        self._array = array
        self._rows = rows
        self.dtype = array.dtype
        self.shape = (len(rows), *array.shape[1:])
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: Rows) -> NDArray[Any]:
        return stored_rows(self._array, self._rows[rows])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        del copy  # what is read is always new
        return self[slice(None)].astype(dtype or self.dtype, copy=False)


class SlicedColumn(Column):
    """A sparse, ragged or text array, which Keras slices and converts on the host."""

    def __init__(self, array: Any) -> None:
        self._rows_of: Callable[[Any], Any] = _keras.host_slicer(array)
        self.shape = tuple(int(length) if length is not None else -1 for length in array.shape)
        self.size_bytes = int(getattr(getattr(array, "data", None), "nbytes", 0))

    def take(self, rows: Rows) -> Any:
        """Return rows."""
        return self._rows_of(rows)


def column(array: Any, *, name: str, mapped_bytes: int) -> Column:
    """Return an array as a column, floats converted to Keras's ``floatx`` as Keras does.

    Args:
        array: Anything that Keras takes as an array.
        name: What messages call it, such as ``x['age']``.
        mapped_bytes: Largest memory-mapped array that is read into memory.

    Returns:
        The column; a NumPy array of the right dtype keeps its memory.

    Raises:
        InvalidData: The dtype is one that no model takes, or there are no rows to speak of.
    """
    if type(array) is not np.ndarray and _keras.is_sparse_or_ragged(array):
        return SlicedColumn(array)
    if is_store(array):
        check_dtype(np.dtype(array.dtype), name)
        return StoreColumn(array)
    native = _native(array, name)
    if isinstance(native, np.ndarray) and native.dtype == object and _is_text(native):
        return SlicedColumn(array)
    check_dtype(native.dtype, name)
    if isinstance(native, np.ndarray) and is_mapped(native) and native.nbytes > mapped_bytes:
        return MappedColumn(native)
    if isinstance(native, np.ndarray):
        return DenseColumn(np.asarray(native).astype(model_dtype(native.dtype), copy=False))
    return DenseColumn(native.astype(keras.backend.floatx()) if _is_other_float(native.dtype) else native)


def is_mapped(array: NDArray[Any]) -> bool:
    """Return whether an array's memory is a file."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, mmap.mmap)


def is_store(value: Any) -> bool:
    """Return whether a value is an array of an HDF5 file or a Zarr store, or rows of one; imports neither."""
    if isinstance(value, StoreRows):
        return True
    library = type(value).__module__.partition(".")[0]
    return library in ("h5py", "zarr") and hasattr(value, "shape") and hasattr(value, "dtype")


def is_rows(value: Any) -> bool:
    """Return whether a value is an array that a source can take rows of; None counts."""
    return _keras.is_array_like(value) or is_store(value)


def stored_rows(array: Any, rows: Rows) -> NDArray[Any]:
    """Return rows of a stored array, which takes them rising and once each."""
    if isinstance(rows, slice):
        return np.asarray(array[rows])
    rising, places = np.unique(rows, return_inverse=True)
    found = array.get_orthogonal_selection((rising,)) if hasattr(array, "get_orthogonal_selection") else array[rising]
    return np.asarray(found)[places]


def is_pandas(value: Any) -> bool:
    """Return whether a value is a pandas frame or series; does not import pandas."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, (pandas.DataFrame, pandas.Series))


def is_jax(value: Any) -> bool:
    """Return whether a value is a dense JAX array; does not import JAX."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(value, jax.Array)


def host_array(array: Any) -> NDArray[Any]:
    """Return a dense array of any library as NumPy, without a copy where that can be."""
    if is_pandas(array):
        values = array.to_numpy()
        # Keras gives a series as one feature per sample.
        return values[:, None] if values.ndim == 1 else values  # type: ignore[no-any-return]
    if _keras.is_torch_tensor(array):
        tensor = array.detach()
        if tensor.is_floating_point() and tensor.element_size() != 8:
            # NumPy lacks bfloat16; floats other than floatx are converted anyway.
            tensor = tensor.to(getattr(sys.modules["torch"], keras.backend.floatx()))
        return np.asarray(tensor.cpu())
    return np.asarray(array)


def check_dtype(dtype: Any, name: str) -> None:
    """Check that a dtype is one that a model can be given.

    Raises:
        InvalidData: It is not; names the array and what to do.
    """
    if _standard_name(dtype) is None:
        raise InvalidData(
            f"{name} has dtype {dtype}, which a model cannot be trained on. Nothing was changed.\n{_advice(dtype)}",
            name=name,
            dtype=str(dtype),
        )


def model_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype in which a model gets values of a dtype: floats in Keras's ``floatx``."""
    if not _is_other_float(dtype):
        return dtype
    if keras.backend.floatx() == "bfloat16":
        import ml_dtypes

        bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    floatx: str = keras.backend.floatx()
    return np.dtype(floatx)


def _native(array: Any, name: str) -> Any:
    if is_jax(array):
        if array.is_deleted():
            raise InvalidData(
                f"{name} is a JAX array whose memory was given away (donated). Nothing was changed. "
                "Load it again, or keep a copy of your own before it is donated.",
                name=name,
            )
        return array
    if is_pandas(array):
        _check_pandas(array, name)
    return host_array(array)


def _check_pandas(array: Any, name: str) -> None:
    dtypes = list(array.dtypes) if array.ndim == 2 else [array.dtype]
    columns = [f"{name}[{label!r}]" for label in array.columns] if array.ndim == 2 else [name]
    for label, dtype in zip(columns, dtypes, strict=True):
        check_dtype(dtype, label)


def _rows(array: NDArray[Any], rows: Rows) -> NDArray[Any]:
    return array[rows] if isinstance(rows, slice) else np.take(array, rows, axis=0)


def _is_other_float(dtype: Any) -> bool:
    name = _standard_name(dtype)
    return name is not None and name != keras.backend.floatx() and bool(keras.backend.is_float_dtype(name))


@functools.lru_cache(maxsize=256)
def _standard_name(dtype: Any) -> str | None:
    """Return Keras's name of a dtype, None where it has none; kept, since small fits are many."""
    try:
        name: str = keras.backend.standardize_dtype(dtype)
    except ValueError:
        return None
    return name


def _is_text(array: NDArray[Any]) -> bool:
    # Only TensorFlow has tensors of text.
    return keras.backend.backend() == "tensorflow" and all(isinstance(item, (str, bytes)) for item in array.flat)


def _advice(dtype: Any) -> str:
    kind = getattr(dtype, "kind", "O")
    if kind in "SU" or str(dtype) in ("str", "string"):
        return "Turn text into numbers first, for example with keras.layers.StringLookup or TextVectorization."
    if kind in "Mm":
        return 'Turn times into numbers first, for example with array.astype("int64") or differences in seconds.'
    return (
        'Give numbers: array.astype("float32"). If that fails, the rows have different lengths '
        "(pad them, for example with keras.utils.pad_sequences), or values are missing or are text."
    )
