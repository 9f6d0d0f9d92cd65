"""The guard against leaks: rows of a fit's validation data that earlier fits of the run trained on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from keepfit.errors import warn
from keepfit.trained import MOST_FITS, TrainedRows, Version, Words
from keepfit.watched import Watched, is_watched

if TYPE_CHECKING:
    from keepfit.data import Source
    from keepfit.engine import Block
    from keepfit.feed import Feed
    from keepfit.recorder import Recorder
    from keepfit.snapshot import Snapshot

KIND = "leak"
_MOST_FITS = 5  # named in one sentence
_MOST_COMPARED = 64
_PASS_FACTS = 4  # an earlier version noted three
_MOST_HELD = 1 << 20  # rows of validation data, in 12 bytes each


@dataclass
class _Compared:
    """A validation set that was looked for among the rows trained on.

    Args:
        count: Its rows.
        hashes: Their hashes; None where they are too many to hold.
        fits: The first fit that trained on each of them as of then, 0 for none; None as for `hashes`, or where what was
            trained on is another thing now.
        version: As of when; None where that is not known, or where not all rows were looked for.
    """

    count: int
    hashes: Words | None
    fits: NDArray[np.int32] | None
    version: Version | None


class LeakGuard:
    """Knows which rows the fits of one run trained on, and looks for them in what later fits validate on.

    Rows are looked at as they are trained on, in the first pass over a data
    set; its content says whether it is known. What is known belongs to the
    state of the run: it lies in checkpoints, so that a killed, replayed,
    branched or forked run knows what the run knew there.

    Args:
        recorder: Where a leak is recorded.
        on: Whether the guard looks at anything; where not, what is known stays.
    """

    def __init__(self, recorder: Recorder, *, on: bool = True) -> None:
        self._recorder = recorder
        self._on = on
        self._rows = TrainedRows()
        self._fit = 0
        self._training: Watched | None = None
        self._validation: Watched | None = None
        # Of the rows of it that have come: their hashes, and the first fit that trained on each, 0 for none.
        self._hashes: list[Words] = []
        self._found: list[Words] = []
        # How far the first passes over a data set have come: its identity, the first pass, the last one, its batches.
        self._pass: list[int] | None = None
        # What was known when the fit began, None where its own rows are in that.
        self._known: Version | None = None
        self._compared: OrderedDict[int, _Compared] = OrderedDict()

    def begin(
        self,
        point: Snapshot,
        *,
        fit: int,
        source: Source,
        given: Any,
        resumed: bool,
        mixed: Mapping[str, Any] | None = None,
    ) -> None:
        """Begin a fit.

        Args:
            point: The state it begins with.
            fit: Its number.
            source: Its training data.
            given: The same as it was given: ``(x, y)``, without what is held back.
            resumed: Whether it goes on inside.
            mixed: What tells which earlier samples are mixed in, as plain data.
        """
        state = point.state.get("trained") or {}
        if not self._rows.are_in(point.tensors):
            self._rows = TrainedRows.of(point.tensors, int(state.get("halvings", 0)))
            for each in self._compared.values():
                each.fits = each.version = None
        self._pass = state.get("pass")
        self._fit = fit
        self._known = None if resumed else self._rows.version
        self._training = self._validation = None
        if self._on and is_watched(source):
            watched = Watched(source, given, mixed=mixed)
            if not self._rows.has_set(watched.identity):
                self._training = watched

    def compare(self, source: Source | None, given: Any) -> None:
        """Warn where earlier fits trained on rows of validation data: of arrays now, of other data in its first pass.

        Args:
            source: The validation data, if any.
            given: The same as it was given: ``(x, y)``.
        """
        if source is None or not self._on or not is_watched(source) or self._rows.is_empty:
            return
        watched = Watched(source, given)
        before = self._compared.get(watched.identity)
        if before is not None and self._known is not None and before.version == self._known:
            return
        self._validation, self._hashes, self._found = watched, [], []
        if before is not None and before.hashes is not None:
            self._compared.move_to_end(watched.identity)
            self._hashes = [before.hashes]
            self._found = [self._rows.first_fits(before.hashes, before=before.fits, since=before.version)]
            self._tell()
        elif watched.source.resident:
            for hashes in watched.all_hashes():
                self._look_for(hashes)
            self._tell()

    # While the fit trains

    def trained(self, feed: Feed, block: Block) -> None:
        """Note a block that was trained on.

        Args:
            feed: Where it came from, as it stands behind it; of the data, or of what stands for its inputs.
            block: The block.
        """
        watched = self._training
        if watched is None:
            return
        number, stop = feed.cursor.passes, feed.cursor.offset
        for hashes in watched.hashes(feed, block):
            self._rows.add(hashes, fit=self._fit)
        first = self._first_pass(watched, number, stop - block.count)
        if first is None:
            return  # some of this pass was trained on when nobody looked
        self._pass = [watched.identity, first, number, stop]
        if stop >= watched.source.num_batches and number - first + 1 >= watched.passes:
            self._rows.add_set(watched.identity)
            self._training = self._pass = None

    def _first_pass(self, watched: Watched, number: int, start: int) -> int | None:
        """Return the first of the passes that were looked at without a gap up to a place; None where there is one."""
        if self._pass is not None and len(self._pass) == _PASS_FACTS and self._pass[0] == watched.identity:
            _, first, last, stop = self._pass
            if (last, stop) == (number, start) or (last + 1, watched.source.num_batches, 0) == (number, stop, start):
                return first
        return number if start == 0 else None

    @property
    def is_comparing(self) -> bool:
        """Whether blocks of validation data are wanted."""
        return self._validation is not None

    def validated(self, feed: Feed, block: Block) -> None:
        """Look for a block of validation data among what earlier fits trained on."""
        if self._validation is not None:
            for hashes in self._validation.hashes(feed, block):
                self._look_for(hashes)

    def end_validation(self) -> None:
        """Warn where the pass that has ended came upon rows that earlier fits trained on."""
        if self._validation is not None and self._found:
            self._tell()

    # What is kept

    def tensors(self) -> dict[str, Any]:
        """Return the arrays that a checkpoint must hold, the same ones while nothing was learned."""
        return self._rows.tensors()

    def state(self) -> dict[str, Any]:
        """Return the plain data that a checkpoint must hold."""
        return {"halvings": self._rows.halvings, "pass": self._pass}

    def _look_for(self, hashes: Words) -> None:
        self._hashes.append(hashes)
        self._found.append(self._rows.first_fits(hashes))

    def _tell(self) -> None:
        assert self._validation is not None
        watched, hashes, found = self._validation, np.concatenate(self._hashes), np.concatenate(self._found)
        self._validation, self._hashes, self._found = None, [], []
        self._note(watched, hashes, found)
        earlier = found[(found > 0) & (found < min(self._fit, MOST_FITS))]
        if not len(earlier):
            return
        halvings = self._rows.halvings
        rows = min(len(earlier) << halvings, len(found))
        # Rows are the same in every process, whatever tells the data from others here.
        facts = {"set": f"{int(hashes.sum()):016x}", "rows": rows, "of": len(found)}
        if any(event.kind == KIND and event.data.get("facts") == facts for event in self._recorder.events):
            return
        message = _message(self._fit, rows, len(found), np.unique(earlier).tolist(), about=halvings > 0)
        self._recorder.event(KIND, message, fit=self._fit, facts=facts)
        warn(message)

    def _note(self, watched: Watched, hashes: Words, found: Words) -> None:
        """Remember what was found, so that only rows that are trained on from now on are looked for next time."""
        whole = len(hashes) == watched.source.num_samples
        held = whole and len(hashes) <= _MOST_HELD
        self._compared[watched.identity] = _Compared(
            count=len(hashes),
            hashes=hashes if held else None,
            fits=found.astype(np.int32) if held else None,
            version=self._known if whole else None,
        )
        self._compared.move_to_end(watched.identity)
        rows = sum(each.count for each in self._compared.values() if each.hashes is not None)
        while len(self._compared) > _MOST_COMPARED or rows > _MOST_HELD:
            _, gone = self._compared.popitem(last=False)
            rows -= gone.count if gone.hashes is not None else 0


def _message(fit: int, rows: int, of: int, fits: list[int], *, about: bool) -> str:
    named = ", ".join(map(str, fits[:_MOST_FITS]))
    named += f" and {len(fits) - _MOST_FITS} more" if len(fits) > _MOST_FITS else ""
    return (
        f"{'About ' if about else ''}{rows:,} of the {of:,} rows that fit {fit} validates on were trained on before, "
        f"first in fit{'s' if len(fits) > 1 else ''} {named}: what is measured on them says nothing about new data. "
        "Hold validation data back once, before the first fit, and give the same validation_data to all fits. "
        "leak_guard=False of Run and attach looks at no rows."
    )
