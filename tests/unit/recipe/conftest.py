"""Functions and classes out of source text, as a notebook's cells or an edited script would give them."""

from __future__ import annotations

import itertools
import linecache
from collections.abc import Callable
from typing import Any

import pytest

_cells = itertools.count()


@pytest.fixture
def cell() -> Callable[..., dict[str, Any]]:
    """Return a function that runs source as a notebook cell and gives its names."""

    def run(source: str, *, keep_source: bool = True, **names: Any) -> dict[str, Any]:
        filename = f"/tmp/ipykernel_7/{next(_cells)}.py" if keep_source else "<string>"
        if keep_source:  # no modification time: linecache leaves such an entry alone, as it does IPython's
            linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
        module = {"__name__": "__main__", **names}
        exec(compile(source, filename, "exec"), module)
        return module

    return run
