"""What fits of a run validated on: kept beside the reservoir, or held weakly for as long as the script has it."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras

from keepfit import nested
from keepfit.data import IndexedSource, fingerprint, sample_of, split_validation
from keepfit.rehearsal.kept import Kept, digest, layout_of
from keepfit.rehearsal.layout import Layout
from keepfit.rehearsal.reservoir import Reservoir, with_keys

if TYPE_CHECKING:
    from keepfit.data import Source
    from keepfit.rehearsal.register import Register
    from keepfit.request import FitRequest

VALIDATION = "validation"
# Sets whose arrays are gone are forgotten beyond so many.
_MOST_HELD = 64


@dataclass(frozen=True)
class ValidationSet:
    """A set of validation data, at hand.

    Args:
        fit: The first fit that validated on it.
        data: Hash of what identifies it.
        given: ``x``, ``y`` and ``sample_weight``.
        batch_size: Samples in a batch, as the fit had it; None where the data makes its own batches.
        samples: How many of its samples these are, where they are not all.
        seen: How many it has, then.
    """

    fit: int
    data: str
    given: tuple[Any, Any, Any]
    batch_size: int | None
    samples: int | None = None
    seen: int | None = None


class Validated:
    """The validation sets of a run's fits.

    Args:
        register: What the run keeps.
        reservoir: Tells how many samples may be kept.
    """

    def __init__(self, register: Register, reservoir: Reservoir) -> None:
        self._register = register
        self._reservoir = reservoir
        self._held: list[_Held] = []

    def note(self, fit: int, request: FitRequest) -> None:
        """Hold what a fit validates on for as long as the script does; cheap."""
        given = (
            (request.x, request.y, request.sample_weight)
            if request.validation_data is None
            else (request.validation_data,)
        )
        split = request.validation_split if request.validation_data is None else 0.0
        leaves = nested.flatten(given)
        for held in reversed(self._held):
            first = held.references[0]  # most differ there already, and the call is a hot one
            if first is not None and first() is leaves[0] and held.holds(leaves, split):
                held.fit = min(held.fit, fit)
                return
        if len(self._held) >= _MOST_HELD:
            self._held = [held for held in self._held if held.is_alive] or self._held[-1:]
        try:
            references = [None if leaf is None else weakref.ref(leaf) for leaf in leaves]
        except TypeError:  # a list of numbers, for one
            return
        size = request.validation_batch_size or request.batch_size
        structure = nested.map_structure(lambda _: 0, given)
        self._held.append(_Held(fit, references, structure, split, size))

    def keep(self, source: Source, *, fit: int, data: str) -> Kept | None:
        """Keep a validation set, a sample of it where it is larger than the reservoir; None where it cannot be.

        Raises:
            StoreFull, StoreFailed, RunReadOnly: It could not be written.
        """
        if not isinstance(source, IndexedSource) or not source.is_dense:
            return None
        if (whole := self._register.whole(VALIDATION, data, fit=fit)) is not None:
            return whole
        layout, _ = layout_of(source, weighted=True)
        number = self._register.next_number(VALIDATION)
        if (found := self._register.find(VALIDATION, data)) is not None:
            number, fit = found.number, min(found.fit, fit)
        # The same samples whatever the seed, so that runs can be compared.
        sample = sample_of(0, 0, source.num_samples, most=self._reservoir.most(layout))
        kept = Kept.of(source, sample, kind=VALIDATION, fit=fit, data=data, number=number, layout=layout)
        self._register.add(kept, with_keys(source, sample.rows, sample.keys, weighted=True))
        return kept

    def sets(self, upto: int) -> Iterator[ValidationSet]:
        """Yield the sets of fits up to number ``upto`` that are at hand, kept ones first; one may be both."""
        for kept in self._register.of(VALIDATION):
            arrays = self._register.arrays(kept) if kept.fit <= upto else None
            if arrays is not None:
                given = Layout.from_json(kept.layout).packed(list(arrays[:-1]))
                part = () if kept.is_whole else (kept.samples, kept.seen)
                yield ValidationSet(kept.fit, kept.data, given, kept.batch_size, *part)
        for held in self._held:
            if held.fit <= upto and (found := held.data()) is not None:
                yield ValidationSet(held.fit, *found, held.batch_size)

    def forget(self, fit: int) -> None:
        """Let go of what fits from number ``fit`` on validated on."""
        self._held = [held for held in self._held if held.fit < fit]


@dataclass
class _Held:
    """A set that is held weakly.

    Args:
        fit: The first fit that validated on it.
        references: Its arrays, in the order of the structure; None where there is none.
        structure: That of ``validation_data`` alone, or of the training data it is split from.
        split: The fraction it is of the training data, 0.0 where it is data of its own.
        batch_size: Samples in a batch.
    """

    fit: int
    references: list[weakref.ref[Any] | None]
    structure: Any
    split: float
    batch_size: int | None

    @property
    def is_alive(self) -> bool:
        """Return whether all of it is still there."""
        return all(reference is None or reference() is not None for reference in self.references)

    def holds(self, leaves: list[Any], split: float) -> bool:
        """Return whether it consists of these very objects, or is that fraction of them."""
        return (
            split == self.split
            and len(leaves) == len(self.references)
            and all(
                (None if reference is None else reference()) is leaf
                for reference, leaf in zip(self.references, leaves, strict=True)
            )
        )

    def data(self) -> tuple[str, tuple[Any, Any, Any]] | None:
        """Return its hash, and ``x``, ``y`` and ``sample_weight``; None where some of it is gone."""
        leaves = [None if reference is None else reference() for reference in self.references]
        if any(leaf is None and self.references[place] is not None for place, leaf in enumerate(leaves)):
            return None
        given = nested.pack_sequence_as(self.structure, leaves)
        if self.split:
            x, y, weights = given
            _, held_back = split_validation(x, y, weights, self.split)
            return digest(fingerprint({"x": x, "y": y, "sample_weight": weights}), self.split), held_back
        x, y, weights = keras.utils.unpack_x_y_sample_weight(given[0])
        return digest(fingerprint(given[0]), 0.0), (x, y, weights)
