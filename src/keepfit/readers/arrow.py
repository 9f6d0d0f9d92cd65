"""Arrow tables and record batches on their way to another process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keepfit.extras import load_extra


def is_arrow(value: Any) -> bool:
    """Return whether a value is an Arrow table or record batch; imports nothing."""
    return type(value).__module__.partition(".")[0] == "pyarrow" and hasattr(value, "num_rows")


def rows_alone(table: Any) -> tuple[Callable[[str, Any], Any], tuple[str, Any]] | None:
    """Return how to make a table anew from its rows, as ``__reduce__`` does; None where Arrow's format would not do.

    A pickle of a table that is a slice holds all that it was cut from; Arrow's own format holds its rows alone.
    """
    arrow = load_extra("pyarrow", extra="arrow", purpose="An Arrow table")
    if any(isinstance(field.type, arrow.BaseExtensionType) for field in table.schema):
        return None  # it would come back as another type where nobody has registered this one
    sink = arrow.BufferOutputStream()
    with load_extra("pyarrow.ipc", extra="arrow", purpose="An Arrow table").new_stream(sink, table.schema) as stream:
        stream.write(table)
    return _table_of, (type(table).__name__, sink.getvalue())


def _table_of(kind: str, content: Any) -> Any:
    ipc = load_extra("pyarrow.ipc", extra="arrow", purpose="An Arrow table")
    with ipc.open_stream(content) as stream:
        return stream.read_next_batch() if kind == "RecordBatch" else stream.read_all()
