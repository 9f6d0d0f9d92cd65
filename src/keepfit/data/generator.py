"""A Python generator as a source: it goes on where the fit before left it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from keepfit import _keras
from keepfit.data.checks import check_batch
from keepfit.data.memory import ObjectMemory
from keepfit.data.source import StreamSource
from keepfit.errors import InvalidData, warn


@dataclass
class _Place:
    """Where a generator stands.

    Args:
        consumed: Batches taken from it so far.
        waiting: Batches drawn from it and not taken yet: the peeked one.
    """

    consumed: int = 0
    waiting: list[Any] = field(default_factory=list)


_PLACES = ObjectMemory(_Place)


class GeneratorSource(StreamSource):
    """Batches of a generator, which has one pass and no way back.

    Several sources over the same generator are one stream: a batch that one of
    them peeked at is the next one of all.

    Args:
        generator: Yields tuples ``(x,)``, ``(x, y)`` or ``(x, y, sample_weight)``.
    """

    def __init__(self, generator: Iterator[Any]) -> None:
        self._generator = generator
        self._place = _PLACES.of(generator)

    @property
    def consumed(self) -> int:
        """Batches taken so far over the life of the generator."""
        return self._place.consumed

    def peek(self) -> Any:
        """Return the next batch; it stays the next one, for every source over this generator."""
        if not self._place.waiting:
            try:
                self._place.waiting.append(self._draw())
            except StopIteration:
                raise InvalidData(
                    f"The generator has no batch to give; {self.consumed} were taken from it before. "
                    "Nothing was changed. Make a new generator."
                ) from None
            check_batch(self._place.waiting[0], "generator")
        return self._place.waiting[0]

    def next_batch(self) -> Any:
        """Take the next batch."""
        batch = self._place.waiting.pop(0) if self._place.waiting else self._draw()
        self._place.consumed += 1
        return batch

    def put_back(self, *batches: Any) -> None:
        """Take back the batch that was taken last."""
        self._place.waiting[:0] = batches
        self._place.consumed -= 1

    def skip(self, count: int) -> None:
        """Take batches and drop them."""
        for done in range(count):
            if self._place.waiting:
                self._place.waiting.pop(0)
            elif next(self._generator, _END) is _END:
                raise InvalidData(
                    f"The generator ended after {self.consumed} batches, but {count - done} more were taken from it "
                    "before. Was it made with other data or settings? Nothing was changed. Make it as it was made then."
                )
            self._place.consumed += 1

    def replay_to(self, consumed: int) -> None:
        """Go on until as many batches are taken."""
        if consumed < self.consumed:
            warn_no_way_back("generator", taken=self.consumed, wanted=consumed)
        self.skip(consumed - self.consumed)

    def get_state(self) -> dict[str, Any]:
        """Return how many batches are taken."""
        return {"consumed": self.consumed}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on until as many batches are taken as when the state was."""
        self.replay_to(int(state["consumed"]))

    def _draw(self) -> Any:
        batch = next(self._generator)
        if not isinstance(batch, tuple):
            raise InvalidData(
                "A generator must yield tuples (x,), (x, y) or (x, y, sample_weight), but it yielded a "
                f"{type(batch).__name__}. Nothing was changed. Yield a tuple: `yield (x,)` where there are no targets."
            )
        return _keras.backend_batch(batch)


_END = object()


def warn_no_way_back(kind: str, *, taken: int, wanted: int) -> None:
    """Warn that a stream stands further on than it should and cannot be taken back."""
    warn(
        f"{taken} batches were taken from this {kind} already, and it cannot go back to {wanted}: training goes on "
        f"with the batches after those. Make a new {kind} to see the same batches again."
    )
