"""What can give batches: by index, batch by batch, or one after another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Exactness = Literal["exact", "replay", "approximate"]


class Source(ABC):
    """Something that gives the batches of one ``fit``, ``evaluate`` or ``predict``.

    A batch is what the model's step receives, in the structure that Keras gives
    it: ``x``, ``(x,)``, ``(x, y)`` or ``(x, y, sample_weight)``, each an array or
    a nested structure of arrays.

    Attributes:
        num_batches: Batches in one pass, or None where that is unknown or has no end.
        num_samples: Samples in one pass, or None where the source does not say.
        batch_size: Samples in a batch, or None where the source makes its own batches.
        exactness: How a position is reached again: ``"exact"`` by seeking,
            ``"replay"`` by going through what came before, ``"approximate"``
            where what comes next may differ.
    """

    num_batches: int | None = None
    num_samples: int | None = None
    batch_size: int | None = None
    exactness: Exactness = "exact"

    @abstractmethod
    def peek(self) -> Any:
        """Return a batch like those to come, without taking it from the stream.

        Raises:
            InvalidData: There is no batch, or it is of no use for training.
        """

    def begin_pass(self, number: int, *, resumed: bool = False) -> None:  # noqa: B027 - most sources have nothing to do
        """Begin an epoch.

        Args:
            number: Passes over the data that were begun before the current one.
                Several epochs have the same number where ``steps_per_epoch`` is
                less than a pass.
            resumed: Whether the epoch was begun before, in this process or another.
        """

    def end_pass(self) -> None:  # noqa: B027 - most sources have nothing to do
        """End the epoch that `begin_pass` began."""

    def get_state(self) -> dict[str, Any] | None:
        """Return what `set_state` needs beside the cursor, as plain data and arrays; None if nothing."""
        return None

    def small_state(self) -> Any:
        """Return of `get_state` what is to be kept for long, where it can do without the rest."""
        return self.get_state()

    def set_state(self, state: Mapping[str, Any]) -> None:  # noqa: B027 - most sources have nothing to do
        """Go to where `get_state` was called, maybe in another process, before `peek` and `begin_pass`."""

    def as_set(self) -> AbstractContextManager[None]:
        """Leave what a script may have set in the data object as it is, whatever `set_state` or `go_to` do inside."""
        return nullcontext()

    def put_back(self, *batches: Any) -> None:  # noqa: B027 - most sources have nothing to do
        """Stand where the last batch has not been taken yet, as far as making it changed anything.

        Args:
            batches: That batch, where it cannot be made again.
        """

    def take_told(self) -> list[str]:
        """Return what was said of the data since the last call, for the journal."""
        return []

    def close(self) -> None:  # noqa: B027 - most sources have nothing to do
        """Let go of workers; the source can still be used."""


class IndexedSource(Source):
    """Random access to samples.

    An order is asked for in stretches: no source works out, or holds, that of a whole pass.

    Attributes:
        arrays: The batch structure over all samples, its leaves dense NumPy or
            JAX arrays or None; None as a whole where some leaf can only be
            sliced on the host. Never written to.
        resident: Whether ``arrays`` are there and may be copied to a device whole.
        is_dense: Whether `take` gives dense arrays, so that several batches may be taken at once.
        size_bytes: Size of all samples, as given to the model.
        takes_inputs: Whether `with_inputs` can be called.
    """

    num_batches: int
    num_samples: int
    batch_size: int
    arrays: Any = None
    resident: bool = False
    is_dense: bool = False
    size_bytes: int = 0
    takes_inputs: bool = False

    @abstractmethod
    def take(self, indices: NDArray[np.int64]) -> Any:
        """Return the samples at ``indices``, shape ``(count,)``, as a batch on the host.

        The result may share memory with the data: it is not to be written to.
        """

    def with_inputs(self, inputs: Any) -> IndexedSource:
        """Return the same samples in the same orders with other inputs, where `takes_inputs` says that it can.

        Args:
            inputs: An array or a list of them, a row for each sample.
        """
        raise NotImplementedError(f"{type(self).__name__} does not take other inputs than {inputs!r}.")

    @abstractmethod
    def order(self, number: int, start: int, stop: int) -> NDArray[np.int64]:
        """Return which samples come at places ``start`` to ``stop - 1`` of pass ``number`` (0, 1, …).

        In time and memory proportional to ``stop - start``, wherever in the pass that is.
        """

    def read(self, number: int, start: int, stop: int, *, room: int = 0) -> Any:
        """Return the samples at places ``start`` to ``stop - 1`` of a pass, as `take` does; cheapest in a row.

        Args:
            number: The pass.
            start: First place.
            stop: Place after the last one.
            room: Samples that the result may have, those after ``stop - start`` of no meaning: an engine that
                works on so many at once need not copy them. A source may leave it aside.
        """
        del room
        return self.take(self.order(number, start, stop))


class BatchSource(Source):
    """Random access to whole batches."""

    @abstractmethod
    def batch(self, pass_number: int, index: int) -> Any:
        """Return batch ``index`` (0, 1, …) of pass ``pass_number``; cheapest for indices in a row."""


class StreamSource(Source):
    """Batches one after another.

    Attributes:
        consumed: Batches taken so far over the life of the data object.
        begins_anew: Whether every epoch begins with the first batch, whatever was taken before.
    """

    exactness: Exactness = "replay"
    begins_anew: bool = False

    @property
    @abstractmethod
    def consumed(self) -> int:
        """Batches taken so far over the life of the data object; a peeked batch is not taken."""

    @abstractmethod
    def next_batch(self) -> Any:
        """Take the next batch.

        Raises:
            StopIteration: The pass has ended.
        """

    @abstractmethod
    def put_back(self, *batches: Any) -> None:
        """Take back the batch that was taken last: it is the next one again, for every source over the data object."""

    @abstractmethod
    def skip(self, count: int) -> None:
        """Take ``count`` batches and drop them; where passes follow one another, over their borders.

        Raises:
            InvalidData: The stream has fewer.
        """

    def marks(self, consumed: int) -> dict[str, Any]:
        """Return what `go_to` needs besides the number of batches taken, as plain data.

        Args:
            consumed: That number; it may be a few less than `consumed`.
        """
        del consumed
        return {}

    def go_to(self, state: Mapping[str, Any]) -> Exactness:
        """Go to where ``state["consumed"]`` batches were taken, with the `marks` of then; return how that was done."""
        consumed = int(state.get("consumed", 0))
        if consumed <= self.consumed:
            return "exact"
        self.replay_to(consumed)
        return "replay"

    @abstractmethod
    def replay_to(self, consumed: int) -> None:
        """Go on until ``consumed`` batches are taken; warns where more of them are gone already.

        Raises:
            InvalidData: The stream has fewer.
        """
