"""XLA's persistent cache, so that another process compiles nothing."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any


def use_compilation_cache() -> None:
    """Turn JAX's persistent compilation cache on where the user has not said anything about it.

    It lies in ``$KEEPFIT_CACHE``, else under the user's cache folder; a folder
    that cannot be written leaves the cache off. ``KEEPFIT_CACHE=off`` too.
    """
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    settings: Any = jax.config  # made at run time, so that no type checker knows its names
    chosen = os.environ.get("KEEPFIT_CACHE")
    if chosen == "off" or settings.jax_compilation_cache_dir or not settings.jax_enable_compilation_cache:
        return
    folder = Path(chosen) if chosen else _cache_folder() / "keepfit" / "xla"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if not os.access(folder, os.W_OK):
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    # What was compiled before this call has switched the cache off for good; start it afresh.
    compilation_cache.reset_cache()


def _cache_folder() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
