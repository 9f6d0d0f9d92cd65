"""What keepfit knows about the attributes of Keras's own callbacks, and of callbacks derived from them."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import keras

from keepfit import _keras

# The memory of a task: it means nothing where loss, metrics or validation data are others.
BEST = frozenset({"best", "best_weights", "best_epoch"})


@dataclass(frozen=True)
class Knowledge:
    """What one class's attributes mean.

    Args:
        not_memory: Set up anew by each fit or by the constructor, or the business of `keepfit.callbacks.files`.
        of_run: Counters of the run, and facts about the model, which go on whatever the task is.
    """

    not_memory: frozenset[str] = frozenset()
    of_run: frozenset[str] = frozenset()


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_EVERY = _names("_model model params validation_data")
# What decides in Keras what counts as an improvement is set, and its sign turned, at the first epoch's end.
_MONITOR = _names("monitor_op min_delta")
_KNOWN: dict[str, Knowledge] = {
    "EarlyStopping": Knowledge(_MONITOR),
    "ReduceLROnPlateau": Knowledge(_MONITOR),
    "ModelCheckpoint": Knowledge(_MONITOR, _names("_batches_seen_since_last_saving _last_batch_seen _current_epoch")),
    "OrbaxCheckpoint": Knowledge(
        _MONITOR | _names("checkpointer _async_futures _multihost_initialized"),
        _names("_batches_seen_since_last_saving _last_batch_seen _total_batches_seen"),
    ),
    "CSVLogger": Knowledge(_names("csv_file writer keys append append_header sep")),
    # Whether the averages are in the model now is a fact about the model.
    "SwapEMAWeights": Knowledge(of_run=_names("_ema_weights_in_model")),
    "TensorBoard": Knowledge(
        _names(
            "_log_write_dir _train_dir _val_dir _writers _summary_module _prev_summary_state _should_write_train_graph "
            "_start_batch _stop_batch _should_trace _is_tracing _profiler_started _batch_trace_context update_freq"
        ),
        _names(
            "_global_train_batch _global_test_batch _previous_epoch_iterations _train_accumulated_time "
            "_batch_start_time _epoch_start_time"
        ),
    ),
}


def knowledge_of(callback: Any) -> Knowledge:
    """Return what is known about a callback's attributes, by all of Keras's classes that it is one of."""
    kind: Any = type(callback)
    return _knowledge(kind)


@functools.lru_cache(maxsize=256)
def _knowledge(kind: Any) -> Knowledge:
    found = [known for name, known in _KNOWN.items() if issubclass(kind, getattr(keras.callbacks, name, ()))]
    not_memory = _EVERY.union(*(known.not_memory for known in found))
    return Knowledge(not_memory, frozenset().union(*(known.of_run for known in found)))


def depends_on_epoch_numbers(callback: Any) -> bool:
    """Return whether a callback of Keras acts by the epoch's number itself, so that it matters that numbers go on."""
    if isinstance(callback, keras.callbacks.LearningRateScheduler):
        return True
    return bool(getattr(callback, "start_from_epoch", 0))


def hold_averages_back(callbacks: Iterable[Any]) -> None:
    """Keep SwapEMAWeights from giving up the weights behind the averages at the end of a fit's last epoch.

    Keras lets it do so within ``on_epoch_end``, before it is known whether
    training goes on; here it is done by `finalize_averages`, after the resume
    point was taken.
    """
    for callback in _swapping(callbacks):
        callback.set_params({**(callback.params or {}), "epochs": math.inf})


def finalize_averages(callbacks: Iterable[Any], *, params: Any, whole: bool) -> list[Any]:
    """Do what SwapEMAWeights does at the end of the last epoch.

    Args:
        callbacks: The callbacks of the fit.
        params: What callbacks are told of the fit.
        whole: The fit reached its last epoch.

    Returns:
        The callbacks for which that was done.
    """
    done = []
    for callback in _swapping(callbacks):
        callback.set_params(params)
        if whole and _keras.holds_averages(callback):
            _keras.finalize_averages(callback)
            done.append(callback)
    return done


def _swapping(callbacks: Iterable[Any]) -> list[Any]:
    return [c for c in callbacks if isinstance(c, keras.callbacks.SwapEMAWeights) and c.swap_on_epoch]
