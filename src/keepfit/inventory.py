"""What a run knows of its model: its variables as they were last listed, and the optimizer that serves them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keepfit import _keras
from keepfit.phases import (
    VariableChanges,
    begin_optimizer,
    carry,
    forget_gone,
    fresh_values,
    has_trained,
    is_seated,
    made_anew,
    note_left_out,
    optimizer_values,
    reseat,
)
from keepfit.start import settle_start, widen_start
from keepfit.state import Variables, variables_of

if TYPE_CHECKING:
    from keepfit.run import Run


class Inventory:
    """Bring a model to the start of its run once, and take in what changes in it between calls.

    Args:
        run: The run.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.is_ready = False
        self.optimizer: Any = None
        # Of a restored state, what has no variable yet: metrics get theirs with the first batch.
        self.pending: dict[str, Any] = {}
        self._changes: list[VariableChanges] = []
        # As of the last call that took changes in; who only predicts lists anew without that.
        self._listed: Variables | None = None

    def settle(self) -> None:
        """Bring the built model to the start of the run."""
        settle_start(self.run)
        self._listed = self.run.engine.variables
        self.optimizer = self.run.model.optimizer
        self.is_ready = True

    def ready(self, batch: Any, *, fresh_optimizer: bool = False, trains: bool = True) -> None:
        """Build the model for a batch, and bring it to the start of the run once.

        Args:
            batch: What the model will be trained on.
            fresh_optimizer: Whether a newly compiled optimizer begins without the state of the last one.
            trains: Whether the call trains, with the layers that train now: an optimizer is built for no other.
        """
        last, known = self.optimizer, self._listed
        self._listed = self.run.engine.build(batch, optimizer=False)
        if self.pending:
            waiting, self.pending = self.pending, {}
            self.run.engine.variables.assign(waiting, skip=lambda name: name not in waiting)
        if not self.is_ready:
            self.settle()
            if trains:
                self._begin_optimizer()
            return
        if last is not self.run.model.optimizer and not trains:
            # How it begins is for the next call that trains to say; until then the last one's state stays known.
            self._listed = known
            return
        if trains or (last is not None and last.built):
            self._begin_optimizer()
        changes = VariableChanges() if known is None else VariableChanges.between(known, self.run.engine.variables)
        if changes:
            self._take_in(changes)
        if last is not self.run.model.optimizer:
            self.optimizer = self.run.model.optimizer
            note_left_out(self.run.model)
            before = optimizer_values(known.values()) if known is not None else {}
            if changes:
                before = changes.renamed(before)
            if has_trained(before):
                self._carry_optimizer(last, before, fresh=fresh_optimizer)

    def _begin_optimizer(self) -> None:
        """Let the optimizer be built where nothing has trained yet; what it begins with is the start's."""
        begun, ends = begin_optimizer(self.run.model), self.run.place.ends
        if begun:
            self.list_anew()
        if ends.record is not None or ends.has_optimizer:
            return
        ends.has_optimizer = True
        unknown = {name for name in self.run.engine.variables.names if name.startswith("optimizer/")} - {*ends.values}
        if begun:
            found = {name: value for name, value in self.run.engine.variables.values().items() if name in unknown}
            ends.values |= found
            if made_anew(self.run.model.optimizer) is None:
                widen_start(self.run, found)
        else:  # what a script has put into one that it built itself since is set by hand
            ends.values |= fresh_values(self.run.model, unknown)

    def _take_in(self, changes: VariableChanges) -> None:
        """Note that variables came or went: what was known of those that stayed goes by their names of now."""
        forget_gone(self.run.model)
        self.list_anew()
        ends = self.run.place.ends
        ends.values = changes.renamed(ends.values)
        ends.fresh |= {*changes.fresh}
        self._changes.append(changes)

    def say_changes(self) -> None:
        """Say which variables came and went, once a call can be served."""
        said, self._changes = self._changes, []
        for changes in said:
            self.run.notice(str(changes), kind="variables")

    def seat_optimizer(self, *, quietly: bool = False) -> None:
        """Let the optimizer serve the layers that train now; only what is going to train needs that."""
        if is_seated(self.run.model):
            return
        trained = has_trained(optimizer_values(self.run.engine.variables.values()))
        reseat(self.run.model)
        self.list_anew()
        if trained and not quietly:
            self.run.notice(
                "Other layers train than before: each keeps its optimizer state, what never trained begins fresh."
            )

    def list_anew(self) -> None:
        """List the model's variables again: what its optimizer keeps has changed."""
        self.run.engine.refresh()
        self._listed = self.run.engine.variables = variables_of(self.run.model)

    def _carry_optimizer(self, last: Any, before: dict[str, Any], *, fresh: bool) -> None:
        """Let a newly compiled optimizer of the same class go on with the state of the last one."""
        if self.run.model.optimizer is None:
            name = type(last).__name__
            self.run.notice(f"The model is compiled without an optimizer now: the state of {name} is let go.")
            return
        if fresh or type(last) is not type(self.run.model.optimizer):
            why = "as fresh= asks" if fresh else f"since the last one was {type(last).__name__}"
            self.run.notice(
                f"The newly compiled {type(self.run.model.optimizer).__name__} begins without state, {why}."
            )
            return
        carried = carry(self.run.model, before)
        self.list_anew()
        self.run.notice(
            f"The newly compiled {type(last).__name__} goes on with the state of the last one "
            f"({len(carried)} variables); "
            'its config and rate are the new ones. fresh=["optimizer"] prevents that.'
        )

    def ready_to_predict(self, batch: Any) -> None:
        """Build the model for a batch without targets."""
        if not _keras.is_built(self.run.model):
            _keras.call_symbolically(self.run.model, batch)
        self.run.engine.refresh()
        if not self.is_ready:
            self.settle()
