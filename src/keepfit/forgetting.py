"""What a model still knows: one metric on the validation set of each fit, after each fit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keepfit.extras import load_extra

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Forgetting:
    """The matrix of continual learning, with the numbers that are made of it.

    Args:
        matrix: The metric, shape ``(fits, sets)``: after the fit of the row, on the set of the column. NaN where the
            set had not come yet, and where the value is not known.
        fits: Number of the fit of each row.
        sets: Number of the fit with which the set of each column came.
        metric: Name of the metric.
        more_is_better: Whether higher values are better.
        names: Name of each fit that has one, by number.

    Example:
        >>> found = Forgetting(np.array([[0.9, np.nan], [0.6, 0.8]]), (1, 2), (1, 2), "accuracy", True)
        >>> round(found.average, 3), round(found.forgetting, 3), round(found.backward_transfer, 3)
        (0.7, 0.3, -0.3)
    """

    matrix: NDArray[np.float64]
    fits: tuple[int, ...]
    sets: tuple[int, ...]
    metric: str
    more_is_better: bool
    names: tuple[tuple[int, str], ...] = ()

    @property
    def average(self) -> float:
        """The mean over all sets after the last fit; NaN where one of them is not known.

        References:
            "Average accuracy" of D. Lopez-Paz and M. Ranzato, "Gradient episodic memory for continual learning",
            NeurIPS 2017, arXiv:1706.08840.
        """
        return float(np.mean(self.matrix[-1])) if self.sets else float("nan")

    @property
    def forgetting(self) -> float:
        """How much worse the earlier sets are after the last fit than they were at best; the mean over these sets.

        Above 0 where something was forgotten, whether higher or lower values of
        the metric are better. Values that are not known are left out of the best;
        NaN where there is no earlier set, or none with a value before the last fit.

        References:
            A. Chaudhry et al., "Riemannian walk for incremental learning", ECCV 2018, arXiv:1801.10112.
        """
        sign = 1.0 if self.more_is_better else -1.0
        before, last = sign * self.matrix[:-1], sign * self.matrix[-1]
        known = ~np.all(np.isnan(before), axis=0)
        return _mean(np.nanmax(before[:, known], axis=0) - last[known] if known.any() else [])

    @property
    def backward_transfer(self) -> float:
        """How much better the earlier sets are after the last fit than after their own; the mean over these sets.

        Above 0 where later fits helped, below where they harmed. NaN as for `forgetting`.

        References:
            D. Lopez-Paz and M. Ranzato, as above.
        """
        sign = 1.0 if self.more_is_better else -1.0
        own = np.array([self.matrix[self.fits.index(fit), place] for place, fit in enumerate(self.sets)])
        earlier = np.array([fit < self.fits[-1] for fit in self.sets], bool) & ~np.isnan(own)
        return _mean(sign * (self.matrix[-1] - own)[earlier])

    def frame(self) -> pd.DataFrame:
        """Return the matrix as a pandas frame: a row for each fit, a column for each set.

        Raises:
            ImportError: pandas is not installed; the message has the line that installs it.
        """
        frames = load_extra("pandas", extra="frames", purpose="Forgetting.frame()")
        frame: pd.DataFrame = frames.DataFrame(
            self.matrix,
            index=frames.Index(self.labels(self.fits), name=f"{self.metric} after"),
            columns=frames.Index(self.labels(self.sets), name="on the set of"),
        )
        return frame

    def plot(self, path: str | Path | None = None) -> Any:
        """Draw the matrix, and how each set went on from fit to fit; needs matplotlib.

        Args:
            path: Where to write the picture too; the ending tells the format.
        """
        load_extra("matplotlib", extra="plot", purpose="The picture of forgetting")
        from keepfit.history.matrix import draw_matrix

        figure = draw_matrix(
            self.matrix,
            there=np.array(self.sets)[None, :] <= np.array(self.fits)[:, None],
            rows=self.labels(self.fits),
            columns=self.labels(self.sets),
            metric=self.metric,
            more_is_better=self.more_is_better,
            title=self._sentence(),
        )
        if path is not None:
            figure.write(path)
        return figure

    def labels(self, fits: tuple[int, ...]) -> list[str]:
        """Return what fits are called: their names, else their numbers."""
        names = dict(self.names)
        return [names.get(fit, f"fit {fit}") for fit in fits]

    def _sentence(self) -> str:
        told = (("average", self.average), ("forgetting", self.forgetting))
        return f"{self.metric}: " + ", ".join(f"{name} {value:.3g}" for name, value in told if value == value)

    def __repr__(self) -> str:
        counts = f"{len(self.fits)} fit{'s' * (len(self.fits) != 1)}, {len(self.sets)} set{'s' * (len(self.sets) != 1)}"
        return f"Forgetting({counts}; {self._sentence()})"


def _mean(values: Any) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
