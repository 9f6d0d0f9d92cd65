"""Parquet, Arrow and CSV files as partitions: tables, one column of which is the target."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepfit.extras import load_extra
from keepfit.readers.part import Part, Piece

# Rows of a table that are worked on at once.
ROWS = 8192


class TablePart(Part):
    """A table in a file: the column ``target`` is ``y``, ``sample_weight`` the weights, the others are the inputs.

    Args:
        path: The file.
        target: Name of the targets; None where there are only inputs.
    """

    def __init__(self, path: Path, target: str | None) -> None:
        self.paths = (path,)
        self.name = str(path)
        self._target = target

    def pieces(self) -> Iterator[Piece]:
        """Yield some rows at a time."""
        for columns in self._columns():
            yield piece_of(columns, self._target)

    @abstractmethod
    def _columns(self) -> Iterator[Mapping[str, NDArray[Any]]]:
        """Yield some rows of all columns at a time."""


class ParquetPart(TablePart):
    """A Parquet file, read by row groups."""

    def count(self) -> int:
        """Read the footer."""
        with self._file() as file:
            return int(file.metadata.num_rows)

    def _columns(self) -> Iterator[Mapping[str, NDArray[Any]]]:
        with self._file() as file:
            for batch in file.iter_batches(batch_size=ROWS):
                yield arrow_columns(batch)
            if not file.metadata.num_rows:
                yield arrow_columns(file.schema_arrow.empty_table())

    def _file(self) -> Any:
        return load_extra("pyarrow.parquet", extra="arrow", purpose="A Parquet file").ParquetFile(self.paths[0])


class ArrowPart(TablePart):
    """An Arrow file (IPC, also called Feather), read by record batches."""

    def count(self) -> int:
        """Read the lengths of the record batches."""
        with self._file() as file:
            return sum(file.get_batch(number).num_rows for number in range(file.num_record_batches))

    def _columns(self) -> Iterator[Mapping[str, NDArray[Any]]]:
        with self._file() as file:
            for number in range(file.num_record_batches):
                yield arrow_columns(file.get_batch(number))

    def _file(self) -> Any:
        arrow = load_extra("pyarrow", extra="arrow", purpose="An Arrow file")
        return load_extra("pyarrow.ipc", extra="arrow", purpose="An Arrow file").open_file(
            arrow.memory_map(str(self.paths[0]))
        )


class CsvPart(TablePart):
    """A CSV file with a line of names; inputs are floats."""

    def count(self) -> int:
        """Read all of the file."""
        return sum(len(next(iter(columns.values()))) for columns in self._columns())

    def _columns(self) -> Iterator[Mapping[str, NDArray[Any]]]:
        pandas = load_extra("pandas", extra="frames", purpose="A CSV file")
        with pandas.read_csv(self.paths[0], chunksize=ROWS) as chunks:
            for chunk in chunks:
                # What looks like whole numbers in one file, or in some rows of it, has a fraction in another.
                yield {
                    str(name): chunk[name].to_numpy(None if str(name) == self._target else np.float64)
                    for name in chunk.columns
                }


def piece_of(columns: Mapping[str, NDArray[Any]], target: str | None) -> Piece:
    """Return columns as a piece; several inputs of one number a row become one array ``(rows, columns)``.

    Raises:
        ValueError: There is no such target, or no inputs.
    """
    if target is not None and target not in columns:
        raise ValueError(f"it has no column {target!r}, only {', '.join(columns)}")
    inputs = {name: array for name, array in columns.items() if name not in (target, "sample_weight")}
    if not inputs:
        raise ValueError("it has no column beside the target and the weights")
    flat = [array for array in inputs.values() if array.ndim == 1]
    x: Any = next(iter(inputs.values()))
    if len(flat) == len(inputs):
        x = np.stack(flat, axis=1)
    elif len(inputs) > 1:
        x = inputs
    return x, None if target is None else columns[target], columns.get("sample_weight")


def arrow_columns(table: Any) -> dict[str, NDArray[Any]]:
    """Return the columns of an Arrow table or record batch; lists of one length become arrays of two axes."""
    names = table.schema.names
    if len(set(names)) < len(names):
        raise ValueError(f"two of its columns have the same name: {', '.join(names)}")
    return {name: _array(table.column(number)) for number, name in enumerate(names)}


def _array(column: Any) -> NDArray[Any]:
    if hasattr(column, "combine_chunks"):
        column = column.combine_chunks()
    if column.null_count:
        raise ValueError(f"{column.null_count} values are missing in a column of {column.type}: fill them first")
    if hasattr(column.type, "list_size"):
        # Of a list that is missing, flatten() gives nothing.
        return _array(column.flatten()).reshape(len(column), -1 if len(column) else column.type.list_size)
    return np.asarray(column.to_numpy(zero_copy_only=False))
