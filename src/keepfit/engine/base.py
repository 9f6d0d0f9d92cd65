"""What an engine is: steps of one model on one backend."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keepfit import _keras
from keepfit.state import Variables


@dataclass(frozen=True)
class Block:
    """Batches of one shape that are run in a row.

    Rows of arrays (``arrays`` and ``rows``), which an engine may keep on its
    device and gather there; the samples of these batches one after another
    (``arrays`` alone); or batches as a source gave them.

    Args:
        count: Number of batches, 1 or more.
        samples: Samples in each batch.
        arrays: Nested structure of arrays, first axis samples; or None.
        rows: Rows of ``arrays``, shape ``(count * samples,)``; None where these are all there are, in order.
        batches: The batches themselves where there are no ``arrays``.
    """

    count: int
    samples: int
    arrays: Any = None
    rows: NDArray[np.int64] | None = None
    batches: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Plan:
    """How an engine runs steps; recorded, so that a resumed fit runs them alike.

    Args:
        kind: ``"fused"`` (many steps a dispatch), ``"stepwise"`` (one) or ``"eager"`` (one, not compiled).
        reason: Why, in a few words.
        facts: Backend, versions, device and threads.
    """

    kind: str
    reason: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain data."""
        return {"plan": self.kind, "reason": self.reason, **self.facts}


class Outcome(ABC):
    """What a dispatch gave; its values may still be under way on the device."""

    count: int

    @abstractmethod
    def wait(self) -> None:
        """Return when the dispatch has finished; raises what went wrong in it."""

    @abstractmethod
    def logs(self) -> dict[str, Any]:
        """Return the logs of the last step: scalars as Python floats, the rest as NumPy arrays."""

    @abstractmethod
    def first_nonfinite(self) -> int | None:
        """Return the first step (0-based in the block) whose loss was NaN or infinite, or None."""


class Engine(ABC):
    """Runs the steps of one compiled model; the model's variables always hold the current values.

    Attributes:
        unsettled: Whether variables are being given the values of steps that nobody has counted yet; set by
            `train`, and put back by who counts them.
    """

    model: Any
    variables: Variables
    unsettled: bool = False
    _metrics_begin: tuple[Variables | None, list[Any]] = (None, [])

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return what the bits of a step depend on beside the plan: backend, versions, device, threads, precision."""

    @abstractmethod
    def build(self, batch: Any, *, optimizer: bool = True) -> Variables:
        """Build the model for a batch, and the optimizer if asked; returns the variables as they are now."""

    @abstractmethod
    def refresh(self) -> Variables:
        """Return the variables of the built model as they are now."""

    @abstractmethod
    def heed_settings(self) -> None:
        """Look whether a callback has given a layer another setting, such as a rate of dropout."""

    def heeds_attributes(self) -> bool:
        """Return whether a step reads the attributes of the user's classes anew, as they are."""
        return bool(self.model.run_eagerly)

    def reset_metrics(self) -> None:
        """Begin the metrics anew; for Keras's own, whose beginning is always the same, with the values of last time."""
        found = self.variables
        if begins := self.metrics_begin():
            found.known.set_later(*zip(*begins, strict=True))
            return
        self.model.reset_metrics()
        found.known.forget()
        if _keras.has_stock_metrics(self.model):
            # A training step does not overwrite metrics in place, so that the values stay what they are.
            self._metrics_begin = (found, found.known.values(found.metrics))

    def metrics_begin(self) -> list[tuple[Any, Any]]:
        """Return the variables of metrics, each with what it begins an epoch with; none where that is not known."""
        known, values = self._metrics_begin
        return list(zip(known.metrics, values, strict=True)) if known is not None and known is self.variables else []

    @abstractmethod
    def prepare(self, batch: Any, *, plan: str | None = None, verb: str = "train") -> Plan:
        """Choose the plan for batches like this one; what is compiled already stays compiled.

        Args:
            batch: What a step is given.
            plan: ``"fused"`` or ``"stepwise"`` pins it.
            verb: Which step will run, ``"train"`` or ``"test"``: the other one may not take such batches.
        """

    def inexact(self) -> list[str]:
        """Return what a training step, as it was last prepared, does that no checkpoint can hold, a sentence each."""
        return []

    @abstractmethod
    def most_steps(self, batch: Any) -> int:
        """Return how many batches like this one a block may hold: a pure function of its shape and the plan."""

    @abstractmethod
    def train(self, block: Block) -> Outcome:
        """Run ``model.train_step`` on every batch of a block.

        It counts whole or not at all: where this raises, the variables are as
        they were, or `is_lost`.
        """

    @abstractmethod
    def test(self, block: Block) -> Outcome:
        """Run ``model.test_step`` on every batch of a block."""

    @abstractmethod
    def is_lost(self) -> bool:
        """Return whether a dispatch ended in such a way that the variables hold nothing of use any more."""

    @abstractmethod
    def predict(self, block: Block) -> list[Any]:
        """Return the outputs of ``model.predict_step`` for every batch of a block, as NumPy arrays.

        What NumPy has no arrays for (ragged and sparse tensors) stays as it is.
        """

    def release_data(self) -> None:  # noqa: B027 - an engine need not hold any
        """Let go of data that is held for the blocks to come: they will be of other arrays."""

    def joined(self, outputs: list[Any]) -> Any:
        """Return what `predict` gave for some batches, 1 or more, with all samples on the first axis."""
        return keras.tree.map_structure(lambda *parts: np.concatenate(parts), *outputs)
