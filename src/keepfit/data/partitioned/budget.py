"""What partitions may take of memory, and what fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from keepfit.data.partitioned.loading import Layout
from keepfit.errors import InvalidArgument
from keepfit.readers.part import PIECE_BYTES

# Beside partitions: the order of a stretch, batches on their way to the device, and one piece being read.
_BESIDE_BYTES = 16 << 20


@dataclass(frozen=True)
class Budget:
    """Memory for partitions.

    Args:
        largest: Bytes of each partition in memory, largest first.
        reading: Bytes that reading a partition takes beside it.
        workers: Partitions that are read ahead at once.
        memory: The budget in bytes, or None.
    """

    largest: tuple[int, ...]
    reading: int
    workers: int
    memory: int | None

    @classmethod
    def of(
        cls,
        layout: Layout,
        sizes: Sequence[int],
        *,
        workers: int,
        memory: int | None,
        is_whole: bool = False,
        processes: bool = False,
    ) -> Budget:
        """Return the budget for partitions of some sizes.

        Args:
            layout: What their rows are like.
            sizes: Their sizes.
            workers: How many are read at once.
            memory: The budget in bytes, or None.
            is_whole: Whether each is read in one piece.
            processes: Whether processes read: a piece lies there and here while it comes over.
        """
        held = sorted((size * layout.row_bytes for size in sizes if size), reverse=True)
        reading = max(sizes, default=0) * layout.given_row_bytes if is_whole else PIECE_BYTES
        return cls(tuple(held), 2 * reading if processes else reading, workers, memory)

    def needed(self, window: int) -> int:
        """Return the bytes that a window takes, with what is read ahead."""
        return _BESIDE_BYTES + sum(self.largest[: window + self.workers]) + self.reading * self.workers

    def places(self, window: int) -> int:
        """Return how many partitions are in memory at once.

        Raises:
            InvalidArgument: They do not fit the budget; says which window would.
        """
        window = min(window, len(self.largest))
        needed = self.needed(window)
        if self.memory is not None and needed > self.memory:
            fits = next((small for small in range(window - 1, 0, -1) if self.needed(small) <= self.memory), None)
            advice = (
                f"Give window={fits}, which would fit, or more memory"
                if fits
                else f"Not even window=1 fits, which takes {self.needed(1):,} bytes, {_BESIDE_BYTES:,} of them "
                "beside the partitions: give more memory, or make the partitions smaller"
            )
            raise InvalidArgument(
                f"A window of {window} partitions takes {needed:,} bytes with what is read ahead, more than "
                f"memory={self.memory:,}. Nothing was changed. {advice}. "
                "The window is part of the recipe, so it is never made smaller by itself.",
                argument="window",
                value=window,
            )
        return window + self.workers
