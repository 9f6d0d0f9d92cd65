"""What a fit is about, as plain data: its recipe, and the facts that decide whether it continues the last one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keepfit import _keras, nested
from keepfit.data import describe_difference, fingerprint, load_code
from keepfit.ends import Ends, start_state
from keepfit.phases import multipliers, signature_changes
from keepfit.recipe import Recipe, code_identities, learning_rate_config, optimizer_config, plain_config
from keepfit.request import FitRequest
from keepfit.state import Variables

__all__ = ["describe_difference", "feed_facts", "recipe_of", "task_facts"]


def recipe_of(
    model: Any,
    request: FitRequest,
    *,
    variables: Variables,
    ends: Ends,
    batch_size: int | None,
    signature: dict[str, Any] | None,
    rehearsed: Mapping[str, Any],
) -> Recipe:
    """Return what a call of ``fit`` asks for, with the state the model is in.

    Args:
        model: The built model.
        request: The call.
        variables: The model's variables.
        ends: What the fit before left, to see what was set by hand since.
        batch_size: Samples in a batch, as the source has settled it.
        signature: Name -> shape and dtype of the variables that the run began with.
        rehearsed: What is mixed into the data of earlier fits; empty where nothing is.
    """
    compiled = _keras.compile_arguments(model)
    strict = {
        "data": fingerprint(_training_data(request)),
        "validation": _validation(request),
        "batch_size": batch_size,
        "shuffle": request.shuffle,
        "steps_per_epoch": request.steps_per_epoch,
        "initial_epoch": request.initial_epoch,
        "class_weight": plain_config(request.class_weight),
        "loss": plain_config([compiled["loss"], compiled["loss_weights"]]),
        "optimizer": optimizer_config(model.optimizer),
        "learning_rate": learning_rate_config(model.optimizer),
        "trainable": _trained(variables),
        "start": start_state(ends.changed(variables)),
    }
    if other := signature_changes(signature, variables.signature()):
        strict["variables"] = other
    if by_layer := multipliers(model, {id(variable): name for name, variable in variables.items()}):
        strict["rate_multipliers"] = by_layer
    if rehearsed:
        strict["rehearse"] = dict(rehearsed)
    warned = code_identities(
        model,
        callbacks=nested.flatten(request.callbacks) if request.callbacks else (),
        loss=compiled["loss"],
        metrics=[compiled["metrics"], compiled["weighted_metrics"]],
        optimizer=model.optimizer,
    )
    for name, data in (("load", request.x), ("validation_load", request.validation_data)):
        if code := load_code(data):
            warned[name] = code
    warned["metric_config"] = plain_config([compiled["metrics"], compiled["weighted_metrics"]])
    return Recipe(strict=strict, warned=warned, epochs=request.planned_epochs, name=request.name)


def task_facts(model: Any, request: FitRequest, *, variables: Variables) -> dict[str, Any]:
    """Return what decides whether a fit continues the one before: loss, metrics, validation and trained variables."""
    compiled = _keras.compile_arguments(model)
    return {
        "loss": plain_config([compiled["loss"], compiled["loss_weights"]]),
        "metrics": plain_config([compiled["metrics"], compiled["weighted_metrics"]]),
        "validation": _validation(request),
        "trainable": _trained(variables),
        # Read only for callbacks that hold best weights.
        "data": fingerprint(_training_data(request)) if request.callbacks and not _validates(request) else None,
        "rewriters": ["optimizer"] if _uses_average(model.optimizer) else [],
    }


def feed_facts(request: FitRequest, *, batch_size: int | None, rehearsed: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what must stay the same for the next fit to go on inside a pass; None where no pass is left unfinished."""
    if request.steps_per_epoch is None:
        return None
    data = fingerprint(_training_data(request))
    facts = {"data": data, "batch_size": batch_size, "shuffle": request.shuffle}
    return facts | {"rehearse": dict(rehearsed)} if rehearsed else facts


def _validates(request: FitRequest) -> bool:
    return request.validation_data is not None or bool(request.validation_split)


def _validation(request: FitRequest) -> dict[str, Any] | None:
    if not _validates(request):
        return None
    return {
        "split": request.validation_split if request.validation_data is None else 0.0,
        # With a split the data's own fingerprint says which samples validate; in parts they differ from call to call.
        "data": fingerprint(
            request.validation_data if request.validation_data is not None else _training_data(request)
        ),
        "steps": request.validation_steps,
        "batch_size": request.validation_batch_size,
        "frequency": plain_config(request.validation_freq),
    }


def _training_data(request: FitRequest) -> dict[str, Any]:
    return {"x": request.x, "y": request.y, "sample_weight": request.sample_weight}


def _trained(variables: Variables) -> list[str]:
    return variables.names[: len(variables.trainable)]


def _uses_average(optimizer: Any) -> bool:
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return bool(getattr(inner, "use_ema", False))
