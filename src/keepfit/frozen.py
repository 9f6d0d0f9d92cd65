"""What a fit runs on: the whole model and its data, or the rest behind a frozen prefix and the features it gave."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keepfit import _keras, features, nested
from keepfit.data import IndexedSource, RehearsedSource
from keepfit.engine import Engine, SeatedEngine, make_engine
from keepfit.errors import EngineError
from keepfit.features import Features, inputs_of, key_of, weights_hash
from keepfit.phases import Prefix, find_prefix, has_frozen_weights

if TYPE_CHECKING:
    from keepfit.data import Source
    from keepfit.request import FitRequest
    from keepfit.run import Run

# Features that do not fit the memory may take so many times the bytes of the inputs; above it reading costs too much.
MOST_TIMES = 4
# A script that freezes and thaws layers in turns goes back and forth between a few cuts.
_KEPT_CUTS = 4


@dataclass(frozen=True)
class Ground:
    """What a fit runs on.

    Args:
        engine: Runs its training steps.
        source: Its training data.
        validation_engine: Runs its test steps.
        validation: Its validation data, if any.
        facts: What the plan says about a frozen prefix; empty where no weight is frozen.
    """

    engine: Engine
    source: Source
    validation_engine: Engine
    validation: Source | None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Engines:
    """The engines of one cut: what gives features, and what trains on them."""

    before: SeatedEngine
    rest: SeatedEngine


class Frozen:
    """The frozen prefixes of one run's model: engines and features are kept from fit to fit.

    Args:
        run: The run.
    """

    def __init__(self, run: Run) -> None:
        self._model = run.model
        self._features = Features(run.recorder, run.folder)
        self._engines: OrderedDict[Any, _Engines] = OrderedDict()

    def ground(
        self,
        run: Run,
        request: FitRequest,
        source: Source,
        validation: Source | None,
        *,
        told: Callable[[int, int], None],
    ) -> Ground:
        """Return what a fit runs on; whether features are used depends on model, data and arguments alone.

        Args:
            run: The run, its model as the fit begins.
            request: The call.
            source: Its training data.
            validation: Its validation data, if any.
            told: Is told of how many samples, of all, features were computed while that goes on.

        Raises:
            StoreFull, StoreFailed, RunReadOnly: Features could not be written.
        """
        whole = Ground(run.engine, source, run.engine, validation)
        if not has_frozen_weights(self._model):
            return whole
        found = _usable(self._model, request, source)
        if isinstance(found, str):
            return Ground(run.engine, source, run.engine, validation, {"prefix": {"used": False, "why": found}})
        assert isinstance(source, IndexedSource)
        sources = [source]
        if _is_dense(validation) and not _is_cut_short(request.validation_steps, validation):
            sources.append(validation)  # type: ignore[arg-type]
        on_disk = sum(_size_bytes(found, each) for each in sources) > features.MEMORY_BYTES
        engines = self._seated(found, run)
        engines.rest.guard = self._guard(found, request)
        keys = [key_of(found, each, facts=run.engine.facts()) for each in sources]
        given: dict[str, Any] = {"count": len(found.tensors), "on_disk": on_disk, "told": told}
        served = [
            each.with_inputs(self._features.of(engines.before, each, key, **given))
            for each, key in zip(sources, keys, strict=True)
        ]
        self._features.thin_out(keys)
        facts = _told(found, served, on_disk=on_disk)
        if len(served) == 1:
            return Ground(engines.rest, served[0], run.engine, validation, facts)
        return Ground(engines.rest, served[0], engines.rest, served[1], facts)

    def _seated(self, prefix: Prefix, run: Run) -> _Engines:
        found = self._engines.get(prefix.identity)
        if found is None:
            found = _Engines(
                SeatedEngine(make_engine(self._model), prefix.call),
                SeatedEngine(make_engine(self._model), prefix.call_rest),
            )
            self._engines[prefix.identity] = found
        self._engines.move_to_end(prefix.identity)
        while len(self._engines) > _KEPT_CUTS:
            self._engines.popitem(last=False)
        for engine in (found.before, found.rest):
            engine.serve(run.engine.variables)
        return found

    def _guard(self, prefix: Prefix, request: FitRequest) -> Callable[[], None] | None:
        """Return what finds out that a callback of the user's changed frozen weights amid the fit, if there is any."""
        if all(_is_stock(each) for each in _callbacks(request)):
            return None
        before = weights_hash(prefix)

        def check() -> None:
            if weights_hash(prefix) != before:
                raise EngineError(
                    "A callback changed weights of frozen layers amid a fit that trains on what these layers gave "
                    "before. Change them between fits, or give cache_frozen=False."
                )

        return check


def _is_stock(callback: Any) -> bool:
    return type(callback).__module__.startswith("keras.") and not isinstance(callback, keras.callbacks.LambdaCallback)


def _callbacks(request: FitRequest) -> Iterable[Any]:
    return nested.flatten(request.callbacks) if request.callbacks else ()


def _usable(model: Any, request: FitRequest, source: Source) -> Prefix | str:
    """Return the prefix to use features of, or why none are used, in words."""
    if not request.cache_frozen:
        return "cache_frozen=False"
    if keras.distribution.distribution() is not None:
        return "a distribution is set"
    own = _keras.own_step(model)
    if own is not None:
        return f"the model has a {own} of its own, which may look at the inputs"
    if isinstance(source, RehearsedSource):
        return "samples of earlier fits are mixed in"
    if not _is_dense(source):
        return "the data is not given as dense arrays"
    prefix = find_prefix(model)
    if isinstance(prefix, str):
        return prefix
    assert isinstance(source, IndexedSource)
    size, given = _size_bytes(prefix, source), source.num_samples * _row_bytes(inputs_of(source.peek()))
    if size > max(features.MEMORY_BYTES, MOST_TIMES * given):
        return f"what the frozen layers give is {size / max(given, 1):.1f} times as large as the inputs"
    return prefix


def _is_dense(source: Source | None) -> bool:
    """Return whether a source is rows of dense arrays of numbers, whose inputs can be replaced."""
    if not isinstance(source, IndexedSource) or not source.takes_inputs:
        return False
    leaves = [leaf for leaf in nested.flatten(inputs_of(source.peek())) if leaf is not None]
    return bool(leaves) and all(isinstance(leaf, np.ndarray) and leaf.dtype.kind in "fiubV" for leaf in leaves)


def _is_cut_short(steps: int | None, source: Source | None) -> bool:
    return source is not None and steps is not None and source.num_batches is not None and steps < source.num_batches


def _row_bytes(batch: Any) -> int:
    leaves = [leaf for leaf in nested.flatten(batch) if leaf is not None]
    return sum(math.prod(leaf.shape[1:]) * int(leaf.dtype.itemsize) for leaf in leaves)


def _size_bytes(prefix: Prefix, source: IndexedSource) -> int:
    row: int = sum(math.prod(t.shape[1:]) * _keras.dtype_bytes(t.dtype) for t in prefix.tensors)
    return source.num_samples * row


def _told(prefix: Prefix, sources: list[IndexedSource], *, on_disk: bool) -> dict[str, Any]:
    """Return what the plan says about the prefix."""
    return {
        "prefix": {
            "used": True,
            "layers": len(prefix.layers),
            "ends": [str(blocker) for blocker in prefix.blockers],
            "kept": "on disk" if on_disk else "in memory",
            "samples": [source.num_samples for source in sources],
        }
    }
