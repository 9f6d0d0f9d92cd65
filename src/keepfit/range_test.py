"""The range test: which learning rate a model can take, found on a state that is put back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keepfit import randomness
from keepfit.compiled import check_optimizer
from keepfit.data import IndexedSource, fingerprint, training_source
from keepfit.engine.base import Block
from keepfit.errors import InvalidArgument
from keepfit.evaluated import question
from keepfit.feed import Feed
from keepfit.interrupts import Interrupts
from keepfit.phases import Asked, multipliers, seat_as_before, served
from keepfit.snapshot import Snapshot
from keepfit.standing import restore, state_not_kept

if TYPE_CHECKING:
    from keepfit.data import Source
    from keepfit.run import Run

_FIELD = "range_tests"
# The test ends where the smoothed loss is so many times its lowest, and losses are smoothed with this weight.
# Both are fastai's.
_WORSE = 4.0
_SMOOTHING = 0.98
_FEWEST = 10


@dataclass(frozen=True)
class RangeTest:
    """What a range test found.

    Args:
        rates: The rate of each step, rising geometrically.
        losses: The loss of each step's batch, before the step; as many as there are rates.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def smoothed(self) -> tuple[float, ...]:
        """The losses as a moving average that does not begin with zero."""
        found, average = [], 0.0
        for count, loss in enumerate(self.losses, start=1):
            average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
            found.append(average / (1 - _SMOOTHING**count))
        return tuple(found)

    @property
    def suggestion(self) -> float | None:
        """A rate in the middle of the longest valley, one of `rates`; None where the loss never fell.

        References:
            The "valley" of fastai's ``lr_find``: half way through the longest falling subsequence of losses.
        """
        first, last = _longest_fall(self.smoothed)
        return None if first == last else self.rates[first + (last - first) // 2]

    def plot(self, path: str | Path | None = None) -> Any:
        """Draw the loss over the rate, with the suggestion; needs matplotlib.

        Args:
            path: Where to write the picture too; the ending tells the format.
        """
        from keepfit.extras import load_extra

        load_extra("matplotlib", extra="plot", purpose="The picture of a range test")
        from keepfit.history.curve import draw_curve

        figure = draw_curve(
            self.rates, self.losses, smoothed=self.smoothed, marked=self.suggestion, x="learning rate", y="loss"
        )
        if path is not None:
            figure.write(path)
        return figure


def find_learning_rate(
    run: Run,
    x: Any,
    y: Any = None,
    *,
    batch_size: int | None = None,
    sample_weight: Any = None,
    class_weight: Any = None,
    shuffle: Any = True,
    lowest: float = 1e-7,
    highest: float = 10.0,
    steps: int = 100,
    train: Any = None,
) -> RangeTest:
    """Do the range test; see `keepfit.Run.find_learning_rate`."""
    _check(run, lowest, highest, steps)
    source = training_source(
        x,
        y,
        sample_weight,
        batch_size=batch_size,
        shuffle=shuffle,
        class_weight=class_weight,
        seed=run.seed,
        training=False,
    )
    batch = source.peek()
    _check_source(source, x)
    rates = tuple(float(rate) for rate in np.geomspace(lowest, highest, steps))
    asked = Asked(run.model)
    try:
        if train is not None:
            asked.train(train)
        if run.place.missing is None:
            run.inventory.ready(batch)
        key = _question(run, source, {"x": x, "y": y, "sample_weight": sample_weight}, rates, class_weight)
        losses = _answer(run, key)
        if losses is None:
            if run.place.missing is not None:
                raise state_not_kept(run, "find_learning_rate")
            losses = _measured(run, asked, source, batch, rates)
            _note(run, key, losses)
    finally:
        asked.take_back()
    return RangeTest(rates[: len(losses)], tuple(losses))


def _check(run: Run, lowest: float, highest: float, steps: int) -> None:
    check_optimizer(run.model, "find_learning_rate")
    for name, value in (("lowest", lowest), ("highest", highest)):
        number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or value <= 0:
            raise _refused(name, value, "a number above 0")
    if lowest >= highest:
        raise _refused("lowest", lowest, f"less than highest={highest!r}")
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < _FEWEST:
        raise _refused("steps", steps, f"a whole number, {_FEWEST} or more")


def _check_source(source: Source, x: Any) -> None:
    """A stream cannot be put back, nor what its own hooks change."""
    if isinstance(source, IndexedSource) or (source.num_batches is not None and source.exactness == "exact"):
        return
    raise _refused("x", type(x).__name__, "arrays, or a PyDataset with a length, which can be read without a trace")


def _refused(name: str, value: Any, expected: str) -> InvalidArgument:
    return InvalidArgument(
        f"find_learning_rate cannot take {name}={value!r}: expected {expected}. Nothing was changed.",
        argument=name,
        value=value,
    )


def _measured(run: Run, asked: Asked, source: Source, batch: Any, rates: tuple[float, ...]) -> list[float]:
    """Train with rising rates, and put everything back."""
    losses: list[float] = []
    lowest = math.inf
    with _put_back(run, source, asked), Interrupts() as interrupts:
        run.inventory.seat_optimizer(quietly=True)
        asked.rate(rates[0])
        run.inventory.list_anew()
        run.engine.prepare(batch, plan=run.plan)
        blocks = _blocks(source)
        for rate in rates:
            asked.number(rate)
            run.engine.variables.known.forget()
            run.engine.reset_metrics()
            outcome = run.engine.train(next(blocks))
            outcome.wait()
            run.engine.unsettled = False
            interrupts.leave()
            loss = _loss(outcome.logs())
            if not math.isfinite(loss):
                break
            losses.append(loss)
            if len(losses) < _FEWEST:  # a first batch that is easy by chance tells nothing
                continue
            smoothed = RangeTest(rates[: len(losses)], tuple(losses)).smoothed[-1]
            lowest = min(lowest, smoothed)
            if smoothed > _WORSE * lowest > 0:
                break
    return losses


@contextmanager
def _put_back(run: Run, source: Source, asked: Asked) -> Iterator[None]:
    """Put back variables, rates, generators, the stop flag and the data's own state, whatever happens inside."""
    seated = served(run.model)
    before = Snapshot(run.engine.variables.values(), {"randomness": randomness.take()})
    stopped, state = getattr(run.model, "stop_training", None), source.get_state()
    try:
        yield
    finally:
        run.engine.unsettled = False
        asked.take_back()
        seat_as_before(run.model, seated)
        restore(run, before)
        source.close()
        if state is not None:
            source.set_state(state)
        if getattr(run.model, "stop_training", None) is not stopped:
            run.model.stop_training = stopped


def _blocks(source: Source) -> Iterator[Block]:
    """Yield one batch after another, pass after pass."""
    feed = Feed(source)
    while True:
        feed.begin_epoch()
        while (block := feed.next_block(1)) is not None:
            yield block
        feed.end_epoch()


def _loss(logs: Mapping[str, Any]) -> float:
    return float(np.mean(np.asarray(logs.get("loss", next(iter(logs.values()), math.nan)))))


def _longest_fall(losses: tuple[float, ...]) -> tuple[int, int]:
    """Return the places where the longest falling subsequence begins, by its length, and ends."""
    lengths = [1] * len(losses)
    last = 0
    for index in range(1, len(losses)):
        shorter = [lengths[before] for before in range(index) if losses[index] < losses[before]]
        lengths[index] = 1 + max(shorter, default=0)
        if lengths[index] > lengths[last]:
            last = index
    return max(0, last - lengths[last] + 1) if losses else 0, last


# What a replay gives again, where the script asks the same


def _question(run: Run, source: Source, data: Mapping[str, Any], rates: Any, class_weight: Any) -> str | None:
    variables = getattr(run.engine, "variables", None)
    if variables is None:
        return None
    names = {id(variable): name for name, variable in variables.items()}
    trained = [names.get(id(variable)) for variable in run.model.trainable_variables]
    more = [
        rates,
        trained,
        multipliers(run.model, names),
        fingerprint({"class_weight": class_weight}) if class_weight else None,
    ]
    return question(run, source, data, steps=len(rates), more=more)


def _answer(run: Run, key: str | None) -> list[float] | None:
    record = run.recorder.fits.get(run.place.fits)
    if record is None or key is None:
        return None
    if run.place.missing is None and run.place.ends.changed(run.engine.variables):
        return None
    found = record.detail.get(_FIELD, {}).get(key)
    return None if found is None else [float(loss) for loss in found]


def _note(run: Run, key: str | None, losses: list[float]) -> None:
    record = run.recorder.fits.get(run.place.fits)
    if record is None or key is None or run.place.ends.changed(run.engine.variables):
        return
    known = record.detail.get(_FIELD, {})
    run.recorder.put_fit(replace(record, detail={**record.detail, _FIELD: {**known, key: losses}}))
