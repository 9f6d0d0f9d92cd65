"""Where tensors lie: files named by the hash of their content."""

from __future__ import annotations

from keepfit.store.disk import Disk
from keepfit.store.features import FeatureFiles, damage_of
from keepfit.store.lock import Holder, RunLock, holder_of
from keepfit.store.objects import LARGE_BYTES, Batch, Damage, Store
from keepfit.store.process import Process
from keepfit.store.retention import kept
from keepfit.store.tensors import dtype_named

__all__ = [
    "LARGE_BYTES",
    "Batch",
    "Damage",
    "Disk",
    "FeatureFiles",
    "Holder",
    "Process",
    "RunLock",
    "Store",
    "damage_of",
    "dtype_named",
    "holder_of",
    "kept",
]
