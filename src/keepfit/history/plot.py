"""The picture of a run's history."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from keepfit.errors import InvalidArgument
from keepfit.extras import load_extra
from keepfit.history.timeline import Unit, timeline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keepfit.history.history import History

FORMATS = ("png", "svg", "pdf", "jpg", "jpeg", "webp")


def plot(history: History, path: str | PathLike[str] | None = None, *, over: Unit = "epochs") -> Figure:
    """Return one picture of all fits of a run: metrics, learning rate, fits as bands, kills and resumes.

    It needs no display and leaves matplotlib's global state (pyplot) alone.

    Args:
        history: The history to draw.
        path: Where to write it too; the ending tells the format. None writes nothing.
        over: What the axis counts: finished ``"epochs"`` or finished ``"steps"`` of the run.

    Raises:
        InvalidArgument: `over` or the ending of `path` is unknown; nothing was written.
        ImportError: matplotlib is not installed; the message has the line that installs it.
    """
    if over not in ("epochs", "steps"):
        raise InvalidArgument(f"plot(over=...) takes 'epochs' or 'steps', received {over!r}.", over=over)
    if path is not None and Path(path).suffix.lower().removeprefix(".") not in FORMATS:
        raise InvalidArgument(
            f"The picture's format is told by its ending: one of {', '.join(FORMATS)}; received {str(path)!r}.",
            path=path,
        )
    load_extra("matplotlib", extra="plot", purpose="The picture of a run")
    from keepfit.history.picture import draw

    figure = draw(history, timeline(history, over))
    if path is not None:
        figure.write(path)
    return figure
