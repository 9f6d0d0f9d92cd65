"""Where tensors lie: files named by the hash of their content."""

from __future__ import annotations

from keepfit.store.disk import Disk
from keepfit.store.lock import Holder, RunLock, holder_of
from keepfit.store.objects import LARGE_BYTES, Batch, Damage, Store
from keepfit.store.process import Process
from keepfit.store.retention import kept

__all__ = ["LARGE_BYTES", "Batch", "Damage", "Disk", "Holder", "Process", "RunLock", "Store", "holder_of", "kept"]
