"""What a run keeps of the data of its fits, and what one fit makes of that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keepfit.data import IndexedSource, RehearsedSource, fingerprint
from keepfit.errors import InvalidArgument
from keepfit.rehearsal.batch import Batch
from keepfit.rehearsal.identity import SAMPLED, Identity
from keepfit.rehearsal.kept import digest
from keepfit.rehearsal.layout import Layout
from keepfit.rehearsal.register import Register
from keepfit.rehearsal.reservoir import DEFAULT_SIZE, MOST_BYTES, Reservoir
from keepfit.rehearsal.retested import Retested
from keepfit.rehearsal.validated import Validated

if TYPE_CHECKING:
    from keepfit.data import Source
    from keepfit.journal import FitRecord
    from keepfit.recorder import Recorder
    from keepfit.request import FitRequest


_MOST_TOLD = 5


def few(fits: Iterable[int]) -> str:
    """Return numbers of fits in words, the first ones where there are many."""
    told = sorted(fits)
    return ", ".join(map(str, told[:_MOST_TOLD])) + (", ..." if len(told) > _MOST_TOLD else "")


class Past:
    """Samples and validation sets of the fits of one run.

    Args:
        recorder: Remembers what is known of them.
        directory: Folder of the run; None keeps them in the process.
        seed: Seed of the run.
        size: Samples in the reservoir, which then takes some of every fit; None for those of fits that say
            ``rehearse=``.
    """

    def __init__(self, recorder: Recorder, directory: Path | None, *, seed: int, size: int | None) -> None:
        self.recorder = recorder
        self.register = Register(recorder, directory)
        self.reservoir = Reservoir(self.register, seed=seed, size=size or DEFAULT_SIZE)
        self.validated = Validated(self.register, self.reservoir)
        self.retested = Retested(recorder)
        self.seed = seed
        self._always = size is not None

    def wants(self, request: FitRequest) -> bool:
        """Return whether samples of a fit are to be kept."""
        return self._always or request.rehearse is not None

    def forget(self, fit: int) -> None:
        """Let go of what fits from number ``fit`` on brought: they are trained anew."""
        self.register.forget(fit)
        self.validated.forget(fit)
        self.retested.forget(fit)

    def copy_to(self, recorder: Recorder, directory: Path, *, before: int) -> None:
        """Give another run what this one has of fits before number ``before``, as far as it can be read."""
        self.register.copy_to(Register(recorder, directory), before=before)
        self.retested.copy_to(Retested(recorder), before=before)


@dataclass(frozen=True)
class Mix:
    """What a fit trains on.

    Args:
        source: The data, with earlier samples mixed in where there are any.
        facts: What the recipe says of these; empty where there are none.
        fits: The fits they came from.
    """

    source: Source
    facts: dict[str, Any] = field(default_factory=dict)
    fits: tuple[int, ...] = ()

    @property
    def detail(self) -> dict[str, Any]:
        """What the record of the fit says of it."""
        return {"rehearse": {**self.facts, "fits": list(self.fits)}} if self.facts else {}


class Rehearsal:
    """What one call of ``fit`` mixes in and keeps.

    Args:
        past: What the run keeps.
        request: The call.
        source: Its training data.
        validation: Its validation data, if any.

    Raises:
        InvalidArgument: ``rehearse=`` was given with data that has no samples by index; nothing was changed.
    """

    def __init__(self, past: Past, request: FitRequest, source: Source, validation: Source | None) -> None:
        self._past = past
        self._request = request
        self._source = source
        self._validation = validation
        self._can = isinstance(source, IndexedSource) and source.is_dense
        if not self._can and request.rehearse is not None:
            raise InvalidArgument(
                f"rehearse={request.rehearse} needs data whose samples can be had one by one: dense arrays, "
                f"partitions, or an object that gives a sample for an index; x is a {type(request.x).__name__}. "
                "Nothing was changed. Give such data, or leave rehearse= out and mix earlier samples in yourself.",
                argument="rehearse",
                value=request.rehearse,
            )
        self._identity = Identity(past.register, request, source, self._split)

    def data(self, fit: int) -> str:
        """Return the hash of what identifies the data, for fit number ``fit``; empty where nothing like it is kept."""
        return self._identity.known(fit, self._past.recorder.fits)

    @property
    def _split(self) -> float:
        return self._request.validation_split if self._request.validation_data is None else 0.0

    def mixed(self, fit: int) -> Mix:
        """Return what fit number ``fit`` trains on.

        Raises:
            InvalidArgument: Earlier fits left no samples, or such as do not fit the new ones; nothing was changed.
        """
        fraction = self._request.rehearse
        if not fraction:
            return Mix(self._source)
        reservoir, source = self._past.reservoir, self._source
        assert isinstance(source, IndexedSource)
        kept = reservoir.before(fit, but=self.data(fit))
        if not kept and fit > 1 and not reservoir.before(fit, but=""):
            raise InvalidArgument(
                f"fit cannot take rehearse={fraction}: none of the {fit - 1} fits before it left samples. "
                "Nothing was changed. Samples are kept of fits that are given rehearse= (0.0 will do), and of every "
                "fit of a run with reservoir=1000; call the earlier fits again with either, or train without it.",
                argument="rehearse",
                value=fraction,
            )
        selection = reservoir.selected(kept)
        count = sum(len(rows) for _, rows in selection)
        if not count:
            return Mix(source)
        batch = Batch.of(source, kept)

        def load() -> Any:
            return batch.filled(selection, reservoir.arrays(selection), classes=self._request.class_weight)

        shuffle = bool(self._request.shuffle)
        mixed = RehearsedSource(
            source, load, like=batch.like, count=count, fraction=fraction, seed=self._past.seed, shuffle=shuffle
        )
        return Mix(mixed, {"fraction": float(fraction), "samples": count}, tuple(each.fit for each in kept))

    def keep(self, fit: int) -> tuple[dict[str, Any], list[str]]:
        """Keep samples of the fit's data, and its validation data, for later fits.

        Returns:
            What the record of the fit says of them, and what could not be kept, a sentence each.

        Raises:
            StoreFull, StoreFailed, RunReadOnly: They could not be written.
        """
        detail: dict[str, Any] = {}
        told = []
        if self._validation is not None:
            given = self._request.validation_data
            data = digest(fingerprint(given) if given is not None else self._identity.facts, self._split)
            self._past.validated.keep(self._validation, fit=fit, data=data)
        if not self._can:
            told.append(f"No samples of a {type(self._request.x).__name__} are kept: it has none by index.")
            return detail, told
        assert isinstance(self._source, IndexedSource)
        reservoir = self._past.reservoir
        weighted = self._request.class_weight is None
        kept = reservoir.keep(self._source, self._identity, fit=fit, data=self.data(fit), weighted=weighted)
        most = reservoir.most(Layout.from_json(kept.layout))
        if most < min(reservoir.size, kept.seen):
            told.append(
                f"The reservoir holds {most:,} samples instead of {reservoir.size:,}, which is "
                f"{MOST_BYTES >> 20} MiB of them, its bound in bytes."
            )
        return {SAMPLED: kept.number}, told

    def gaps(self, fit: int, mix: Mix, fits: Mapping[int, FitRecord]) -> list[str]:
        """Return in words which earlier fits left nothing to rehearse, where others did."""
        if not mix.facts:
            return []
        firsts = set(mix.fits)
        missing = [n for n, r in fits.items() if n < fit and SAMPLED not in r.detail and n not in firsts]
        if not missing:
            return []
        one = len(missing) == 1
        return [
            f"Earlier fits are rehearsed without fit{'' if one else 's'} {few(missing)}, of which no samples were "
            f"kept: {'it was' if one else 'they were'} not given rehearse=, and the run has no reservoir=."
        ]
