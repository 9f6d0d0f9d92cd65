"""How partitions differ from what was recorded of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def partition_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Yield in words what differs between two fingerprints of partitions.

    Args:
        old: What was recorded.
        new: What there is now.
    """
    if old["window"] != new["window"]:
        yield f"the window was {old['window']} partitions and is now {new['window']}"
    before, now = len(old["sizes"]), len(new["sizes"])
    if before != now:
        yield f"there were {before} partitions and are now {now}"
    for number in range(min(before, now)):
        one, other = ((each["sizes"][number], each["names"][number], each["files"][number]) for each in (old, new))
        if one != other:
            yield f"partition {number} {_difference(one, other)}"
    if old["rows"] != new["rows"]:
        yield f"the rows are of {_rows(new['rows'])}, not of {_rows(old['rows'])}"
    elif old.get("first", new.get("first")) != new.get("first"):  # an earlier version did not record it
        yield "the first rows are other ones"


def _difference(old: tuple[int, str, dict[str, Any]], new: tuple[int, str, dict[str, Any]]) -> str:
    if old[0] != new[0]:
        return f"({new[1]}) had {old[0]} samples and has now {new[0]}"
    if old[1] != new[1]:
        return f"was {old[1]} and is now {new[1]}"
    if old[2].get("bytes") != new[2].get("bytes"):
        return f"({new[1]}) had {old[2].get('bytes')} bytes and has now {new[2].get('bytes')}"
    return f"({new[1]}) has other content"


def _rows(rows: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {facts['dtype']}{tuple(facts['shape'])}" for name, facts in rows.items())
