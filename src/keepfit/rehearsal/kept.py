"""Samples of data that a run keeps: what is known of them, and their arrays."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np
import xxhash
from numpy.typing import NDArray

from keepfit.data import IndexedSource, Sample
from keepfit.rehearsal.layout import Layout

_PIECE_BYTES = 16 << 20


@dataclass(frozen=True)
class Kept:
    """What is known of the samples of one set of data.

    Args:
        kind: ``"source"`` of training, or ``"validation"``.
        fit: Number of the first fit with this data.
        data: Hash of what identifies the data.
        number: Number of the source, in the order in which they came.
        seen: Samples of the data.
        samples: Samples that are kept.
        bound: The largest key that belonged to the sample of all sources then.
        layout: What arrays they consist of, as plain data.
        batch_size: Samples in a batch, as the fit had it.
    """

    kind: str
    fit: int
    data: str
    number: int
    seen: int
    samples: int
    bound: int
    layout: Mapping[str, Any]
    batch_size: int

    @classmethod
    def of(
        cls, source: IndexedSource, sample: Sample, *, kind: str, fit: int, data: str, number: int, layout: Layout
    ) -> Kept:
        """Return what is known of a sample of a source."""
        return cls(
            kind=kind,
            fit=fit,
            data=data,
            number=number,
            seen=source.num_samples,
            samples=len(sample.rows),
            bound=sample.bound,
            layout=layout.to_json(),
            batch_size=source.batch_size,
        )

    @property
    def key(self) -> str:
        """What their arrays lie under."""
        return f"{self.kind}-{self.number}-{self.data[:12]}"

    @property
    def is_whole(self) -> bool:
        """Whether all samples of the data are kept."""
        return self.samples == self.seen

    @property
    def size_bytes(self) -> int:
        """Bytes of the samples."""
        return self.samples * Layout.from_json(self.layout).row_bytes

    def to_json(self) -> dict[str, Any]:
        """Return the facts as plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Kept:
        """Return the facts that `to_json` gave."""
        return cls(**data)


def digest(facts: Any, split: float) -> str:
    """Return a hash of what identifies data, and of the fraction of it that is held back."""
    return xxhash.xxh3_128_hexdigest(json.dumps([facts, split], sort_keys=True).encode())


def rows_of(source: IndexedSource, rows: NDArray[np.int64], *, weighted: bool) -> Iterator[tuple[Layout, list[Any]]]:
    """Yield rows of a source in pieces, in their order, with what they consist of.

    Args:
        source: It.
        rows: Rising.
        weighted: Whether its sample weights are the data's own and not made of ``class_weight``.
    """
    layout, _ = layout_of(source, weighted=weighted)
    piece = max(1, _PIECE_BYTES // max(1, layout.row_bytes))
    for start in range(0, len(rows), piece):
        x, y, weights = keras.utils.unpack_x_y_sample_weight(source.take(rows[start : start + piece]))
        yield Layout.of(x, y, weights if weighted else None)


def layout_of(source: IndexedSource, *, weighted: bool) -> tuple[Layout, list[NDArray[Any]]]:
    """Return what a source's samples consist of, and a few of them."""
    x, y, weights = keras.utils.unpack_x_y_sample_weight(source.peek())
    return Layout.of(x, y, weights if weighted else None)
