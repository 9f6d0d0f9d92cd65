"""keepfit plot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from keepfit.errors import RunFolderError
from keepfit.history.plot import plot

if TYPE_CHECKING:
    from keepfit.history import History
    from keepfit.history.timeline import Unit


def write_picture(history: History, directory: Path, output: Path | None, *, over: str) -> Path:
    """Write the picture of a run and return where.

    Args:
        history: What to draw.
        directory: Folder of the run.
        output: Where to write; None for a file beside the caller, named after the folder.
        over: What the axis counts, ``epochs`` or ``steps``.

    Raises:
        RunFolderError: The picture cannot be written there.
    """
    path = output or Path(f"{directory.resolve().name}-history.png")
    try:
        plot(history, path, over=cast("Unit", over))
    except OSError as error:
        raise RunFolderError(
            f"The picture cannot be written to {path}: {error.strerror or error}.\nGive another place with -o FILE.",
            path=path,
        ) from error
    return path
