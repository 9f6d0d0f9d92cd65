"""An engine whose model runs another function in the place of its own ``call``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from keepfit import _keras
from keepfit.engine.base import Block, Engine, Outcome, Plan
from keepfit.state import Variables


class SeatedEngine(Engine):
    """Steps of a model whose ``call`` is another one while they are traced or run.

    Losses, metrics, optimizer and variables remain the model's. Outside of this
    engine's methods the model has its own ``call``: a callback that predicts
    or saves amid a fit finds it whole.

    Args:
        inner: An engine of the model that nobody else uses: its programs are of this function.
        function: What is run in the place of ``model.call``, with the same arguments.
    """

    def __init__(self, inner: Engine, function: Callable[..., Any]) -> None:
        self._inner = inner
        self._function = function
        self.model = inner.model
        #: Called before each epoch; raises where what the function stands for is not what it was.
        self.guard: Callable[[], None] | None = None

    def serve(self, variables: Variables) -> None:
        """Run on variables as another engine of the model lists them, which know together what each holds."""
        self._inner.refresh()
        self._inner.variables = variables

    @property
    def variables(self) -> Variables:  # type: ignore[override]
        """The model's variables."""
        return self._inner.variables

    @property
    def unsettled(self) -> bool:
        """Whether steps are in the variables that nobody has counted."""
        return self._inner.unsettled

    @unsettled.setter
    def unsettled(self, value: bool) -> None:
        self._inner.unsettled = value

    def facts(self) -> dict[str, Any]:
        """Return what the bits of a step depend on beside the plan."""
        return self._inner.facts()

    def build(self, batch: Any, *, optimizer: bool = True) -> Variables:
        """Return the variables: the model was built by what it is called on otherwise."""
        del batch, optimizer
        return self.variables

    def refresh(self) -> Variables:
        """Return the variables; see `serve`."""
        return self.variables

    def heed_settings(self) -> None:
        """Look whether a callback has given a layer another setting."""
        shared = self._inner.variables
        with self._seated():
            self._inner.heed_settings()
        self._inner.variables = shared

    def heeds_attributes(self) -> bool:
        """Return whether a step reads the attributes of the user's classes anew."""
        return self._inner.heeds_attributes()

    def reset_metrics(self) -> None:
        """Begin the metrics anew, as every epoch does."""
        if self.guard is not None:
            self.guard()
        self._inner.reset_metrics()

    def prepare(self, batch: Any, *, plan: str | None = None, verb: str = "train") -> Plan:
        """Choose the plan for the function."""
        with self._seated():
            return self._inner.prepare(batch, plan=plan, verb=verb)

    def inexact(self) -> list[str]:
        """Return what a step does that no checkpoint can hold."""
        with self._seated():
            return self._inner.inexact()

    def most_steps(self, batch: Any) -> int:
        """Return how many batches like this one a block may hold."""
        return self._inner.most_steps(batch)

    def train(self, block: Block) -> Outcome:
        """Run training steps."""
        with self._seated():
            return self._inner.train(block)

    def test(self, block: Block) -> Outcome:
        """Run test steps."""
        with self._seated():
            return self._inner.test(block)

    def is_lost(self) -> bool:
        """Return whether the variables hold nothing of use any more."""
        return self._inner.is_lost()

    def predict(self, block: Block) -> list[Any]:
        """Return what the function gives for every batch."""
        with self._seated():
            return self._inner.predict(block)

    def joined(self, outputs: list[Any]) -> Any:
        """Return the outputs of several batches as one."""
        return self._inner.joined(outputs)

    def _seated(self) -> AbstractContextManager[None]:
        return _keras.calling(self.model, self._function)
