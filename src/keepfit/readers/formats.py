"""Which file reads which kind of partition."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from keepfit.errors import InvalidArgument
from keepfit.readers.array_stores import Hdf5Part, ZarrPart
from keepfit.readers.memory_tables import is_table, table_part
from keepfit.readers.numpy_files import NpyPart, NpzPart
from keepfit.readers.part import FunctionPart, Part
from keepfit.readers.tables import ArrowPart, CsvPart, ParquetPart


def part_of(item: Any, number: int, *, load: Callable[[Any], Any] | None, target: str | None) -> Part:
    """Return what reads one partition.

    Args:
        item: A path, a tuple of paths, a function, a table, or with ``load`` anything.
        number: Its number, from 0.
        load: Returns the arrays of an item, or None.
        target: Name of the targets, where arrays have names.

    Raises:
        InvalidArgument: Nothing can read it.
    """
    paths = _paths_of(item)
    if load is not None:
        existing = tuple(path for path in paths if path.exists()) if paths else ()
        return FunctionPart(partial(load, item), name=str(item)[:200], paths=existing)
    if is_table(item):
        return table_part(item, number, target)
    if callable(item):
        return FunctionPart(item, name=f"function {getattr(item, '__name__', type(item).__name__)}")
    if not paths:
        raise InvalidArgument(
            f"Partition {number} is a {type(item).__name__}: expected a path, a tuple of paths, a table, or a "
            "function that returns (x, y). Nothing was changed. Give load= with a function that reads such an item.",
            argument="parts",
            value=item,
        )
    if len(paths) > 1 and all(path.suffix == ".npy" for path in paths) and len(paths) <= 3:
        return NpyPart(paths)
    reader = READERS.get(paths[0].suffix.lower()) if len(paths) == 1 else None
    if reader is None:
        raise InvalidArgument(
            f"Partition {number} ({', '.join(map(str, paths))}) has a format that is not known: expected "
            f"{', '.join(READERS)}, or a tuple of .npy files of x, y and sample_weight. Nothing was changed. "
            "Give load= with a function that reads it.",
            argument="parts",
            value=item,
        )
    return reader(paths[0], target)


def _paths_of(item: Any) -> tuple[Path, ...]:
    items = item if isinstance(item, (tuple, list)) else (item,)
    if not all(isinstance(each, (str, Path)) for each in items):
        return ()
    return tuple(Path(each) for each in items)


# By suffix; a new format is one more line and one more file.
READERS: dict[str, Callable[[Path, str | None], Part]] = {
    ".npy": lambda path, _: NpyPart((path,)),
    ".npz": NpzPart,
    ".h5": Hdf5Part,
    ".hdf5": Hdf5Part,
    ".zarr": ZarrPart,
    ".parquet": ParquetPart,
    ".arrow": ArrowPart,
    ".feather": ArrowPart,
    ".csv": CsvPart,
}
