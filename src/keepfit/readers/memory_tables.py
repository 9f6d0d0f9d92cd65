"""Tables in memory as partitions: Arrow tables, record batches, and Hugging Face data sets."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from keepfit.errors import InvalidArgument
from keepfit.readers.arrow import is_arrow
from keepfit.readers.part import Part, Piece
from keepfit.readers.tables import ROWS, arrow_columns, piece_of

# Up to here all of a table is hashed, of a larger one some stretches of it.
_WHOLE_BYTES = 4_000_000
_STRETCH = 256
_STRETCHES = 8


def is_table(value: Any) -> bool:
    """Return whether a value is an Arrow table, a record batch, or a Hugging Face data set; imports neither."""
    # A dict of data sets (Hugging Face's DatasetDict) is none.
    if isinstance(value, (type, dict)) or not hasattr(value, "column_names") or not hasattr(value, "__getitem__"):
        return False
    return is_arrow(value) or hasattr(value, "__len__")


def table_part(table: Any, number: int, target: str | None) -> Part:
    """Return what reads a table as a partition.

    Args:
        table: What `is_table` accepts.
        number: Its number, from 0.
        target: Name of the targets; None where there are only inputs.

    Raises:
        InvalidArgument: There is no such column.
    """
    part = ArrowTablePart(table, target) if is_arrow(table) else DatasetPart(table, target)
    # A transform may make columns that nobody knows before it runs.
    if target is not None and part.is_steady and target not in part.columns:
        raise InvalidArgument(
            f"Partition {number} ({part.name}) has no column {target!r}, only {', '.join(part.columns)}. "
            "Nothing was changed. Give one of them as target=.",
            argument="target",
            value=target,
        )
    return part


class MemoryTablePart(Part):
    """A table in memory: the column ``target`` is ``y``, ``sample_weight`` the weights, the others are the inputs.

    Args:
        table: The table.
        target: Name of the targets, or None.

    Attributes:
        columns: Names of the columns.
        is_steady: Whether a row is the same whenever it is read.
    """

    is_steady = True

    def __init__(self, table: Any, target: str | None) -> None:
        self.columns = [str(name) for name in table.column_names]
        # The same in every process: it is part of the fingerprint.
        self.name = f"{type(table).__name__} of {', '.join(self.columns)}"[:200]
        self._table = table
        self._target = target
        self._facts: dict[str, Any] | None = None

    def pieces(self) -> Iterator[Piece]:
        """Yield some rows at a time."""
        count = self.count()
        for start in range(0, count, ROWS):
            yield piece_of(self._rows(start, min(start + ROWS, count)), self._target)

    def facts(self) -> dict[str, Any]:
        """Return the number of rows, the columns, and the hash of the rows or of stretches of them; worked out once."""
        if self._facts is None:
            count = self.count()
            self._facts = {"rows": count, "columns": self.columns}
            if self.is_steady and count:
                self._facts["content"] = self._content(count)
        return self._facts

    def _content(self, count: int) -> str:
        digest = xxhash.xxh3_64()
        first = self._rows(0, min(count, _STRETCH))
        row_bytes = sum(array.nbytes for array in first.values()) / min(count, _STRETCH)
        if row_bytes * count <= _WHOLE_BYTES:
            stretches = [(start, min(start + ROWS, count)) for start in range(0, count, ROWS)]
        else:
            last = max(0, count - _STRETCH)
            starts = sorted({last * place // (_STRETCHES - 1) for place in range(_STRETCHES)})
            stretches = [(start, min(start + _STRETCH, count)) for start in starts]
        for start, stop in stretches:
            for name, array in self._rows(start, stop).items():
                digest.update(f"{name} {array.dtype} {array.shape}".encode())
                digest.update(_bytes(array))
        return digest.hexdigest()

    @abstractmethod
    def _rows(self, start: int, stop: int) -> Mapping[str, NDArray[Any]]:
        """Return rows of all columns."""


class ArrowTablePart(MemoryTablePart):
    """An Arrow table or record batch; its columns become arrays as those of Parquet and Arrow files do."""

    def count(self) -> int:
        """Return the number of rows."""
        return int(self._table.num_rows)

    def without_rows(self) -> Part:
        """Return an empty table with the same columns."""
        return ArrowTablePart(self._table.slice(0, 0), self._target)

    def _rows(self, start: int, stop: int) -> Mapping[str, NDArray[Any]]:
        return arrow_columns(self._table.slice(start, stop - start))


class DatasetPart(MemoryTablePart):
    """A Hugging Face data set, read by slices: one gives a dict of columns.

    What it gives as lists, or as tensors of some library, is asked for as NumPy; a
    transform of the user's own (``set_transform``) is left as it is.
    """

    def __init__(self, table: Any, target: str | None) -> None:
        super().__init__(table, target)
        form = getattr(table, "format", None)
        form = form if isinstance(form, Mapping) else {}
        self.is_steady = self.tells_content = form.get("type") != "custom"
        if form.get("columns") is not None and not form.get("output_all_columns"):
            self.columns = [name for name in self.columns if name in form["columns"]]
        if self.is_steady and form.get("type") != "numpy" and hasattr(table, "with_format"):
            self._table = table.with_format("numpy", columns=self.columns)

    def count(self) -> int:
        """Return the number of rows."""
        return len(self._table)

    def _rows(self, start: int, stop: int) -> Mapping[str, NDArray[Any]]:
        columns = {str(name): _column(name, values) for name, values in self._table[start:stop].items()}
        for name, array in columns.items():
            # As NumPy, values that are missing are not told from those that are no number.
            if array.dtype.kind == "f" and np.isnan(array).any():
                _check_missing(name, self._nulls(name, start, stop))
        return columns

    def _nulls(self, name: str, start: int, stop: int) -> int:
        if not self.is_steady or not hasattr(self._table, "with_format"):
            return 0
        stored = self._table.with_format("arrow")[start:stop]
        return int(stored.column(name).null_count) if name in stored.schema.names else 0


def _column(name: Any, values: Any) -> NDArray[Any]:
    if isinstance(values, list):
        _check_missing(name, sum(value is None for value in values))
    return np.asarray(values)


def _check_missing(name: Any, missing: int) -> None:
    if missing:
        raise ValueError(f"{missing} values are missing in the column {name!r}: fill them first")


def _bytes(array: NDArray[Any]) -> bytes:
    return repr(array.tolist()).encode("utf-8", "surrogatepass") if array.dtype == object else array.tobytes()
