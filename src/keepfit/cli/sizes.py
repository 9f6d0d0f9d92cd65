"""Sizes on disk."""

from __future__ import annotations

import os
from pathlib import Path


def size(size_bytes: int) -> str:
    """Return a size as a person says it: ``812 B``, ``4.1 kB``, ``17 MB``."""
    amount = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 99.5 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def folder_bytes(directory: Path) -> int:
    """Return the size of all files under a folder; one that another process removes meanwhile counts nothing."""
    total = 0
    try:
        entries = list(os.scandir(directory))
    except OSError:
        return 0
    for entry in entries:
        try:
            is_folder = entry.is_dir(follow_symlinks=False)
            total += folder_bytes(Path(entry.path)) if is_folder else entry.stat(follow_symlinks=False).st_size
        except OSError:
            continue
    return total
