"""The small things that a fit leaves, kept with its record: a replay needs them also where its state was thinned out.

What callbacks remember in plain data (``early_stopping.best``), and the global
generators where the fit drew from them. Weights are not small.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from typing import Any

from keepfit.snapshot import Snapshot

_FIELD = "left"
# Larger is no small thing; a thousand fits must not fill the memory with it.
_MOST_BYTES = 1 << 15


def small_things(result: Snapshot, *, began: Mapping[str, Any] | None) -> dict[str, str]:
    """Return what to add to a fit's detail, nothing where there is nothing.

    Args:
        result: The end of the fit.
        began: The global generators before the fit; None where that is not known.
    """
    entries = [entry for entry in map(_without_arrays, result.state.get("callbacks", ())) if entry["plain"]]
    generators = result.state.get("randomness") or {}
    changed = {name: state for name, state in generators.items() if began is None or began.get(name) != state}
    if not entries and not changed:
        return {}
    text = json.dumps({"callbacks": entries, "randomness": changed}, separators=(",", ":"))
    packed = base64.b64encode(zlib.compress(text.encode())).decode("ascii")
    return {_FIELD: packed} if len(packed) <= _MOST_BYTES else {}


def left_by(detail: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], Mapping[str, Any]]:
    """Return the callbacks' memories without their arrays, and the generators that the fit changed."""
    packed = detail.get(_FIELD)
    if packed is None:
        return [], {}
    found = json.loads(zlib.decompress(base64.b64decode(packed)))
    return found["callbacks"], found["randomness"]


def _without_arrays(entry: Mapping[str, Any]) -> dict[str, Any]:
    arrays = {name.split("/", 1)[0] for name in entry["tensors"]}
    plain = {name: value for name, value in entry["plain"].items() if name not in arrays}
    # Files are not cut back where nothing is trained.
    return {**entry, "plain": plain, "tensors": [], "file": None}
