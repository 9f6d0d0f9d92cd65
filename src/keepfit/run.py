"""Run: one training timeline of one model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from keepfit import _keras, live
from keepfit.ahead import Ahead, Loads, taken, taken_whole
from keepfit.attributes import Attributes
from keepfit.clock import Position
from keepfit.compiled import check_compiled
from keepfit.debts import Debts
from keepfit.engine import make_engine
from keepfit.errors import FitUnderWay, InvalidArgument, RunClosed, warn
from keepfit.fitting import FitCall
from keepfit.frozen import Frozen
from keepfit.inventory import Inventory
from keepfit.leaks import LeakGuard
from keepfit.pace import Pace
from keepfit.phases import current_rate, let_rates_be_set
from keepfit.place import Place
from keepfit.recorder import DiskRecorder, MemoryRecorder, Recorder
from keepfit.rehearsal import Past
from keepfit.request import check_arguments
from keepfit.settings import Settings
from keepfit.standing import state_not_kept
from keepfit.start import settle_seed

if TYPE_CHECKING:
    from keepfit.fine_tuning import FineTuning
    from keepfit.forgetting import Forgetting
    from keepfit.history import History
    from keepfit.range_test import RangeTest


class Run:
    """One training timeline of one model, which outlives processes where it has a folder.

    Call *k* of `fit` asks that fit *k* of the run reach its length: a fit that
    is not in the journal is trained, one that is finished returns what was
    recorded, one that was killed goes on.

    Args:
        model: A compiled Keras model; it may be unbuilt.
        directory: Folder of the run, made if missing; None keeps the same promises within the process.
        seed: Seed of the order of samples, 0 or more. None takes the recorded one, else that of
            ``keras.utils.set_random_seed``, else a fresh one.
        mode: ``"replay"``: calls of `fit` count from 1 in every process. ``"append"``: every process adds fits.
        on_change: ``"raise"``, or ``"branch"`` off where a fit was recorded with another recipe.
        plan: ``"fused"`` or ``"stepwise"`` pins how steps run; None lets the engine choose.
        checkpoint_share: Largest share of training time that checkpoints may cost, or ``"each"`` for one per fit.
        keep: How many ends of fits are kept, 2 or more.
        reservoir: Samples of earlier data that are kept for rehearsal, of every fit; None keeps 1,000, of fits that
            are given ``rehearse=``.
        leak_guard: Whether to warn of rows of validation data that earlier fits trained on.

    Raises:
        InvalidArgument: An argument has no meaning.
        NotCompiled: The model was not compiled.
        RunFolderError: The folder is something else, newer, locked, read-only, or of another model.
        CannotAttach: Another live run has the model's variables.

    Example:
        >>> import keepfit, keras
        >>> import numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> x, y = np.ones((4, 2)), np.ones((4, 1))
        >>> with keepfit.Run(model) as run:
        ...     [run.fit(x, y, epochs=2, verbose=0).epoch, run.fit(x, y, verbose=0).epoch, run.position]
        [[0, 1], [2], Position(fit=2, epoch=3, step=3, samples=12)]
    """

    def __init__(
        self,
        model: Any,
        directory: str | Path | None = None,
        *,
        seed: int | None = None,
        mode: str = "replay",
        on_change: str = "raise",
        plan: str | None = None,
        checkpoint_share: float | str = 0.02,
        keep: int = 10,
        reservoir: int | None = None,
        leak_guard: bool = True,
    ) -> None:
        self.settings = Settings(seed, mode, on_change, plan, checkpoint_share, keep, reservoir, leak_guard)
        if not _keras.is_model(model):
            raise InvalidArgument(
                f"Run takes a keras.Model, received {type(model).__name__}. Nothing was changed.", argument="model"
            )
        check_compiled(model, "attach() or Run")
        self.model = model
        self.directory = None if directory is None else Path(directory)
        # Which folder that is, wherever the script goes.
        self.folder = None if directory is None else Path(directory).resolve()
        self.mode = mode
        self.on_change = on_change
        self.plan = plan
        self.pace = Pace()
        self.place = Place()
        self._loads = Loads()
        self.closed: str | None = None
        self._said: set[str] = set()
        self.is_fitting = False
        self.inventory = Inventory(self)
        self.debts = Debts()
        live.check_free(self)
        let_rates_be_set()
        # What can fail without a folder comes before there is one.
        self.engine = make_engine(model)
        _keras.probe(model)
        self.recorder: Recorder = (
            MemoryRecorder(keep=keep)
            if self.directory is None
            else DiskRecorder.open(self.directory, keep=keep, share=checkpoint_share)  # type: ignore[arg-type]
        )
        try:
            self.seed = settle_seed(self, seed)
            self.frozen = Frozen(self)
            self.past = Past(self.recorder, self.folder, seed=self.seed, size=reservoir)
            self.leaks = LeakGuard(self.recorder, on=leak_guard)
            self.attributes = Attributes(model)
            if _keras.is_built(model):
                self.inventory.settle()
        except BaseException:
            self.recorder.close()
            raise
        live.register(self)

    # The public verbs

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: Any = True,
        class_weight: Any = None,
        sample_weight: Any = None,
        initial_epoch: int | None = None,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: Any = 1,
        **further: Any,
    ) -> Any:
        """Train, go on, or return what was recorded; the arguments of ``keras.Model.fit`` with the same meaning.

        Args:
            x: Training data.
            y: Targets, where ``x`` does not give them.
            batch_size: Samples in a batch.
            epochs: Length of this fit.
            verbose: ``"auto"``, 0, 1 (a bar) or 2 (a line an epoch).
            callbacks: Callbacks; what they remember goes on over fits and processes.
            validation_split: Last fraction of the samples to validate on.
            validation_data: What to validate on.
            shuffle: Whether every pass has an order of its own; ``"batch"`` shuffles within batches.
            class_weight: Class -> weight.
            sample_weight: Weight of each sample.
            initial_epoch: Number of the first epoch, which counts as done; by default numbers go on over fits.
            steps_per_epoch: Batches in an epoch; None for a pass over the data.
            validation_steps: Batches to validate on.
            validation_batch_size: Samples in a batch of validation.
            validation_freq: Epochs between validations, or a list of epoch numbers.
            further: ``name`` (a name for the fit), ``fresh`` (callbacks and ``"optimizer"`` that start
                without memory), ``on_change``, ``train`` (which layers train: a layer, a list, a pattern over layer
                paths such as ``"backbone/block5/*"``, a predicate or ``"all"``) and ``learning_rate`` (a number, a
                ``LearningRateSchedule``, a mapping from the same selectors to multipliers of the rate, or
                ``slice(lowest, highest)`` over depth, or a pair of a rate and such a mapping or slice); these two stay
                set, as an assignment by hand. ``rehearse``: the fraction of earlier fits' samples in every epoch;
                giving it, 0.0 included, keeps samples of this fit for later ones. And ``cache_frozen``: False computes
                frozen layers anew in every epoch, as Keras does.

        Returns:
            The ``keras.callbacks.History`` of this fit, with epoch numbers that go on over fits.

        Raises:
            InvalidArgument: Before anything changes.
            RecipeChanged: The fit was recorded with another recipe; nothing was changed.
            FitUnderWay: The call came from inside a fit of this run.
        """
        self.check_idle("fit")
        x, y, sample_weight = taken(x, y, sample_weight)
        validation_data = taken_whole(validation_data)
        request = check_arguments(
            {
                "x": x,
                "y": y,
                "batch_size": batch_size,
                "epochs": epochs,
                "verbose": verbose,
                "callbacks": callbacks,
                "validation_split": validation_split,
                "validation_data": validation_data,
                "shuffle": shuffle,
                "class_weight": class_weight,
                "sample_weight": sample_weight,
                "initial_epoch": initial_epoch,
                "steps_per_epoch": steps_per_epoch,
                "validation_steps": validation_steps,
                "validation_batch_size": validation_batch_size,
                "validation_freq": validation_freq,
                **further,
            }
        )
        self.is_fitting = True
        try:
            return FitCall(self, request).perform()
        finally:
            self.is_fitting = False
            self.engine.release_data()

    def fine_tune(self, x: Any, y: Any = None, *, epochs: int, **arguments: Any) -> FineTuning:
        """Train the head on a frozen backbone, then everything, early layers at lower rates: two fits of the run.

        Args:
            x: Training data.
            y: Targets, where ``x`` does not give them.
            epochs: Length of the second fit, in which everything trains.
            arguments: ``frozen_epochs=1``, length of the first fit; ``backbone``, a selector as for ``train``, by
                default the models in the model, or all layers but the last with weights; ``learning_rate=2e-3``, the
                peak of the head's one-cycle, half of which is the second fit's; ``lowest=0.01``, what the first layer's
                rate in the second fit is multiplied with; ``name="fine_tune"``; and those of `fit`.

        Returns:
            The histories of both fits.

        Raises:
            InvalidArgument: Before anything changes.
            RecipeChanged: One of the fits was recorded with another recipe.
        """
        from keepfit.fine_tuning import fine_tune

        self.check_idle("fine_tune")
        return fine_tune(self, x, y, epochs=epochs, **arguments)

    def find_learning_rate(self, x: Any, y: Any = None, **arguments: Any) -> RangeTest:
        """Train for a moment at rising rates, put everything back bit for bit, and suggest a rate.

        It is no fit: nothing is counted, and no callback is called. A script that
        is run again gets the same answer.

        Args:
            x: Arrays, or a PyDataset with a length.
            y: Targets, where ``x`` does not give them.
            arguments: ``lowest=1e-7``, ``highest=10.0`` and ``steps=100`` of the test; ``train``, which layers train in
                it; and ``batch_size``, ``sample_weight``, ``class_weight`` and ``shuffle`` of `fit`.

        Returns:
            ``rates``, ``losses``, ``suggestion`` and ``plot()``.

        Raises:
            InvalidArgument: Before anything changes.
            StateNotKept: A replay stands where the state was thinned out, and did not ask this before.
        """
        from keepfit.range_test import find_learning_rate

        self.check_idle("find_learning_rate")
        x, y, weights = taken(x, y, arguments.pop("sample_weight", None))
        return find_learning_rate(self, x, y, sample_weight=weights, **arguments)

    def prefetch(self, load: Any, *arguments: Any, **keywords: Any) -> Ahead:
        """Load data in the background, while a fit trains on other data.

        Functions are called one at a time, in the order of these calls, and the
        next one not before what the last one returned was taken: beside what a
        fit trains on, one more partition is in memory. What was prefetched is the
        same to ``fit`` as what the function returns, in the recipe and to the bit.
        The function runs while a fit does: let it draw from a generator of its
        own, not from the global ones.

        Args:
            load: A function that returns ``x``, ``(x, y)`` or ``(x, y, sample_weight)``; or ``x`` itself, with ``y``
                and ``sample_weight`` behind it.
            arguments: Arguments of the function.
            keywords: Named arguments of the function.

        Returns:
            What ``fit``, ``evaluate`` and ``predict`` take as ``x``, and ``fit`` as ``validation_data``; what the
            function raises is raised there, before anything changes.

        Raises:
            InvalidArgument: Data was given with more beside it than targets and weights.
            RunClosed: The run is closed.

        Example:
            >>> import keepfit, keras
            >>> import numpy as np
            >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
            >>> model.compile("sgd", "mse")
            >>> with keepfit.Run(model) as run:
            ...     ahead = run.prefetch(lambda rows: (np.ones((rows, 2)), np.ones((rows, 1))), 8)
            ...     run.fit(ahead, verbose=0).epoch
            [0]
        """
        self.check_open()
        if callable(load):
            return self._loads.begin(load, arguments, keywords)
        if keywords or len(arguments) > 2:
            raise InvalidArgument(
                f"prefetch takes a function and its arguments, or x, y and sample_weight; received a "
                f"{type(load).__name__} and {len(arguments) + len(keywords)} more. Nothing was changed.",
                argument="load",
            )
        return self._loads.given((load, *arguments))

    def forgetting(self, *, metric: str | None = None) -> Forgetting:
        """Return what the model knows of each fit's validation set after each fit: the matrix of continual learning.

        Sets that are equal are one column. The state of the model now is measured
        on all sets, earlier states as far as they are kept; everything is put back
        bit for bit. What was measured is recorded, and not measured again.

        Args:
            metric: A metric that the model is compiled with, or ``"loss"``; None takes an accuracy where there is one.

        Returns:
            ``matrix``, ``average``, ``forgetting``, ``backward_transfer``, ``frame()`` and ``plot()``.

        Raises:
            InvalidArgument: There is no such metric, or no validation set of any fit is at hand.
        """
        from keepfit.retest import forgetting

        self.check_idle("forgetting")
        return forgetting(self, metric=metric)

    def evaluate(self, *args: Any, **arguments: Any) -> Any:
        """Evaluate as ``keras.Model.evaluate`` does; the training metrics stay as they are.

        Where a replay has no state any more, it gives what was recorded.
        """
        from keepfit.calls import evaluate

        self.check_open()
        return evaluate(self, *args, **arguments)

    def predict(self, *args: Any, **arguments: Any) -> Any:
        """Predict as ``keras.Model.predict`` does."""
        from keepfit.calls import predict

        self.check_state("predict")
        return predict(self, *args, **arguments)

    def train_on_batch(self, *args: Any, **arguments: Any) -> Any:
        """Train on one batch as ``keras.Model.train_on_batch`` does; durable with ``mode="append"`` only."""
        from keepfit.calls import train_on_batch

        self.check_state("train_on_batch")
        return train_on_batch(self, *args, **arguments)

    def test_on_batch(self, *args: Any, **arguments: Any) -> Any:
        """Evaluate one batch as ``keras.Model.test_on_batch`` does."""
        from keepfit.calls import test_on_batch

        self.check_state("test_on_batch")
        return test_on_batch(self, *args, **arguments)

    def predict_on_batch(self, x: Any) -> Any:
        """Predict one batch as ``keras.Model.predict_on_batch`` does."""
        from keepfit.calls import predict_on_batch

        self.check_state("predict_on_batch")
        return predict_on_batch(self, x)

    @property
    def position(self) -> Position:
        """Finished fits, epochs, steps and samples as of the script's place."""
        return self.place.position

    @property
    def learning_rate(self) -> float | None:
        """The rate that the next step would use, None where the optimizer has none of its own."""
        return current_rate(self.model)

    @property
    def history(self) -> History:
        """All fits up to the script's place, read as one."""
        from keepfit.history import History, Lineage

        fits = [record for number, record in self.recorder.fits.items() if number <= self._reached()]
        epochs = [epoch for epoch in self.recorder.epochs if epoch.fit <= self._reached()]
        found = self.recorder.meta.get("lineage")
        return History(
            fits,
            epochs,
            [event for event in self.recorder.events if event.fit is None or event.fit <= self._reached()],
            closed=self.recorder.closed_fits,
            lineage=Lineage.from_json(found) if found else None,
            directory=self.directory,
        )

    def load(self, fit: int | None = None, *, best: str | None = None) -> int:
        """Bring back a kept state: weights, optimizer, rate, metrics and random generators.

        It counts as a start state set by hand: the next fit is a new phase.

        Args:
            fit: Number of the fit; None for the newest as of the script's place.
            best: A logged metric; the kept fit whose last epoch has its best value.

        Returns:
            The number of the fit whose result the model now holds.

        Raises:
            StateNotKept: That state was thinned out, or never was.
        """
        from keepfit.kept_states import load

        self.check_idle("load")
        return load(self, fit, best=best)

    def fork(self, directory: str | Path, *, at: int | None = None, model: Any = None) -> Run:
        """Begin a run of its own after fit ``at``, or open it if an earlier execution made it.

        Args:
            directory: Folder of the fork.
            at: Number of the fit after which it goes its own way; None for the script's place.
            model: The fork's model. None gives it this run's model and closes this run.

        Returns:
            The fork.

        Raises:
            StateNotKept: The result of fit ``at`` is not kept.
        """
        from keepfit.kept_states import fork

        self.check_idle("fork")
        return fork(self, Path(directory), at=at, model=model)

    def replace_model(self, model: Any) -> Any:
        """Go on with another model, such as one with a new head on the layers of this one.

        Variables that both have keep all that is known of them: what the optimizer
        has of them too, if the new model's is of the same class. What is new begins
        fresh, what is gone is forgotten. The model that was there is let go.

        Args:
            model: A compiled model; it may be unbuilt.

        Returns:
            The model, which is attached where the last one was.

        Raises:
            InvalidArgument: It is no model.
            NotCompiled: It is not compiled.
            CannotAttach: Another live run has its variables, or its class has a ``fit`` of its own.
        """
        from keepfit.replacing import replace_model

        self.check_idle("replace_model")
        return replace_model(self, model)

    def plot(self, path: str | Path | None = None) -> Any:
        """Draw the history: metrics, learning rate, fits as bands, kills and resumes; needs matplotlib."""
        return self.history.plot(path)

    def close(self) -> None:
        """Write what is left, let the folder go, and give the model its own ``fit`` back."""
        live.release(self)
        if self.closed is None:
            self.closed = "it was closed"
        self._loads.close()
        self.recorder.close()

    def is_the_same(self, directory: str | Path | None, settings: dict[str, Any]) -> bool:
        """Return whether attaching to a folder with these settings would change nothing."""
        where = None if directory is None else Path(directory).resolve()
        if settings.get("seed") is None:
            settings = {**settings, "seed": self.seed}  # a seed that is not given is the one that was settled
        return where == self.folder and replace(self.settings, seed=self.seed).agree_with(settings)

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        where = "in memory" if self.directory is None else str(self.directory)
        counts = {"fit": self.place.fits, "epoch": self.position.epoch, "step": self.position.step}
        told = ", ".join(f"{count} {unit}{'' if count == 1 else 's'}" for unit, count in counts.items())
        return f"Run({where}: {told})"

    # What a call of fit needs

    def notice(self, message: str, *, kind: str = "notice", fit: int | None = None, data: Any = None) -> None:
        """Warn, and record it."""
        self.recorder.event(kind, message, fit=fit, **({"facts": data} if data else {}))
        warn(message)

    def say_once(self, key: str, message: str, *, kind: str = "notice", fit: int | None = None) -> None:
        """Warn about one thing once."""
        if key not in self._said:
            self._said.add(key)
            self.notice(message, kind=kind, fit=fit)

    # Checks

    def check_open(self) -> None:
        """Raise `RunClosed` where the run is closed."""
        if self.closed is not None:
            raise RunClosed(
                f"This run is closed: {self.closed}. Nothing was changed. "
                "Open it again with keepfit.Run or keepfit.attach."
            )

    def check_idle(self, verb: str) -> None:
        """Raise `RunClosed` where the run is closed, `FitUnderWay` where one of its fits is under way."""
        self.check_open()
        if self.is_fitting:
            raise FitUnderWay(
                f"{verb}() was called while fit {self.place.fits + 1} of {self!r} is under way, by one of its "
                "callbacks or from another thread. Nothing was changed. Call it after fit() has returned."
            )

    def check_state(self, verb: str) -> None:
        """Raise `StateNotKept` where the model does not hold the state the script is at."""
        self.check_open()
        if self.place.missing is not None:
            raise state_not_kept(self, verb)

    def _reached(self) -> int:
        return self.place.fits + (1 if self.place.open is not None else 0)
