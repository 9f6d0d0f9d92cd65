"""What `keepfit show` says of rehearsal: which samples are kept, and which fits had earlier ones mixed in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from keepfit.cli.sizes import size
from keepfit.history.table import counted

if TYPE_CHECKING:
    from keepfit.journal import FitRecord


def rehearsal_lines(meta: Mapping[str, Any], fits: Iterable[FitRecord]) -> list[str]:
    """Return lines on what a run keeps of the data of its fits, and on the fits that rehearse; none without either.

    Args:
        meta: Facts about the run.
        fits: In their order.
    """
    kept, files = meta.get("rehearsal") or (), meta.get("rehearsal_files") or {}
    lines = [f"fit {each['fit']}: {_kept_text(each, files)}" for each in kept]
    for fit in fits:
        told = fit.detail.get("rehearse")
        if isinstance(told, Mapping):
            from_fits = ", ".join(map(str, told.get("fits", ())))
            lines.append(
                f"fit {fit.number}: {told.get('fraction', 0):.3g} of each epoch are earlier samples, "
                f"of {counted(int(told.get('samples', 0)), 'sample')} from fit{'s' * (',' in from_fits)} {from_fits}"
            )
    return lines


def _kept_text(each: Mapping[str, Any], files: Mapping[str, Any]) -> str:
    """Return how many samples of one set of data are kept, and their bytes on disk."""
    key = f"{each['kind']}-{each['number']}-{each['data'][:12]}-"
    on_disk = sum(int(facts["size"]) for name, facts in files.items() if facts and name.startswith(key))
    what = "for later fits" if each["kind"] == "source" else "of its validation set"
    return f"{each['samples']:,} of {counted(int(each['seen']), 'sample')} kept {what} ({size(on_disk)})"
