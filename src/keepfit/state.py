"""The variables of a model under names that mean the same in every process.

Automatic names (``dense_7``) count what a process has made so far, and an
optimizer's own paths repeat. Structural names do neither: a model's variable
is named by its way through the layer tree, counted per class, and a slot of an
optimizer by the variable it serves and the attribute that holds it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from keepfit import _keras, held

Variable = Any


@dataclass(frozen=True)
class Variables:
    """All variables that decide a model's future, in the order a training step takes them.

    Args:
        trainable: The model's trainable variables.
        non_trainable: The model's other variables, seed generators included.
        optimizer: Variables of ``model.optimizer``.
        metrics: Variables of the metrics.
        others: Variables of further optimizers reachable from the model, and those that layers hold without Keras
            counting them, such as the states of a stateful recurrent layer.
        names: Structural name of each, in the order of the lists above.
        known: What they hold, where that is known without a look.
    """

    trainable: list[Variable]
    non_trainable: list[Variable]
    optimizer: list[Variable]
    metrics: list[Variable]
    others: list[Variable]
    names: list[str] = field(repr=False)
    known: held.Known = field(default_factory=held.Known, repr=False, compare=False)

    def all(self) -> list[Variable]:
        """Return every variable, in the order of `names`."""
        return [*self.trainable, *self.non_trainable, *self.optimizer, *self.metrics, *self.others]

    def items(self) -> Iterator[tuple[str, Variable]]:
        """Yield name and variable."""
        return zip(self.names, self.all(), strict=True)

    def values(self) -> dict[str, Any]:
        """Return name -> the array the variable holds now; see `keepfit.held`."""
        return dict(zip(self.names, self.known.values(self.all()), strict=True))

    def signature(self) -> dict[str, list[Any]]:
        """Return name -> shape and dtype of the model's own variables: what makes two models alike."""
        return {
            name: [list(variable.shape), _lasting_dtype(name, str(variable.dtype))]
            for name, variable in self.items()
            if name.startswith("model/")
        }

    def assign(self, values: Mapping[str, Any], *, skip: Callable[[str], bool] = lambda _: False) -> list[str]:
        """Give variables the values stored under their names.

        Args:
            values: Name -> array. Names that no variable has are left aside.
            skip: Names to leave as they are.

        Returns:
            The names of variables that ``values`` lacks or holds in another shape.
        """
        missing = []
        for name, variable in self.items():
            if skip(name):
                continue
            value = values.get(name)
            if value is None or not _fits(value, variable):
                missing.append(name)
            else:
                held.assign(variable, value)
        self.known.forget()
        return missing


@dataclass(frozen=True)
class Slot:
    """A variable in which an optimizer keeps something for one that it trains, or has trained.

    Args:
        owner: The trained variable.
        name: What is kept: the optimizer's attribute without its underscores.
        variable: Where it is kept.
    """

    owner: Variable
    name: str
    variable: Variable


# Where an optimizer holds the slots of what was frozen since; see `keepfit.phases.seat`.
SLOTS = "_keepfit_slots"


def slots(optimizer: Any) -> dict[tuple[int, str], Slot]:
    """Return what `keepfit.phases` keeps in an optimizer: (id of the owner, name) -> slot."""
    found: dict[tuple[int, str], Slot] = vars(optimizer).get(SLOTS, {})
    return found


def variables_of(model: Any) -> Variables:
    """Return the variables of a built model under structural names.

    Every variable gets a name: what the walk does not reach is named by its
    place in Keras's own list, so that nothing is lost.
    """
    names: dict[int, str] = {}
    paths: dict[int, str] = {}
    _add(names, _layer_names(model, "model", paths))
    optimizer = getattr(model, "optimizer", None)
    optimizer_list = list(optimizer.variables) if optimizer is not None else []
    others = []
    if optimizer is not None:
        _add(names, _optimizer_names(optimizer, "optimizer", names))
        served = {id(variable) for variable in optimizer_list}
        others += [slot.variable for slot in _all_slots(optimizer) if id(slot.variable) not in served]
    for path, other in other_optimizers(model):
        _add(names, _optimizer_names(other, path, names))
        others += list(other.variables)
    _add(names, _metric_names(model))
    counted = {id(v) for v in (*model.variables, *optimizer_list, *model.metrics_variables, *others)}
    for name, variable in _uncounted(model, paths):
        if id(variable) not in counted:
            counted.add(id(variable))
            names.setdefault(id(variable), name)
            others.append(variable)
    lists = {
        "model/trainable": list(model.trainable_variables),
        "model/non_trainable": list(model.non_trainable_variables),
        "optimizer": optimizer_list,
        "metrics": list(model.metrics_variables),
        "optimizers": others,
    }
    ordered = [
        names.get(id(variable), f"{kind}/unnamed_{index}")
        for kind, members in lists.items()
        for index, variable in enumerate(members)
    ]
    trainable, non_trainable, slots, metrics, further = lists.values()
    return Variables(trainable, non_trainable, slots, metrics, further, names=ordered)


def other_optimizers(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield the optimizers that a model holds beside the compiled one, each with the path of its names."""
    main = getattr(model, "optimizer", None)
    for attribute, value in _attributes(model):
        members: Iterable[tuple[Any, Any]]
        if isinstance(value, dict):
            members = value.items()
        elif isinstance(value, (list, tuple)):
            members = enumerate(value)
        else:
            members = [("", value)]
        for key, member in members:
            if isinstance(member, keras.optimizers.Optimizer) and member is not main:
                yield f"optimizers/{attribute}/{key}".rstrip("/"), member


def unbuilt_optimizers(model: Any) -> list[Any]:
    """Return the optimizers that a training step of the model's own is going to build when it first runs."""
    if not _keras.has_own_train_step(model):
        return []
    return [each for _, each in other_optimizers(model) if _keras.can_be_built(each)]


def are_alike(one: Any, other: Any) -> bool:
    """Compare what `Variables.signature` says of a variable, None where there is none: shape and dtype.

    Whole numbers of any width are alike: those of seed generators have another one on each backend.
    """
    if one == other or one is None or other is None:
        return bool(one == other)
    return one[0] == other[0] and "int" in one[1] and "int" in other[1]


def _lasting_dtype(name: str, dtype: str) -> str:
    """Return a dtype as every backend would have it."""
    return "int" if name.rpartition("/")[2].startswith("seed_generator") else dtype


def _fits(value: Any, variable: Variable) -> bool:
    """Return whether a variable can take a value: whole numbers are no weights, whatever their shape."""
    if tuple(np.shape(value)) != tuple(variable.shape):
        return False
    return ("int" in str(value.dtype)) == ("int" in str(variable.dtype))


def _add(names: dict[int, str], more: Iterable[tuple[int, str]]) -> None:
    for key, name in more:
        names.setdefault(key, name)


def _uncounted(model: Any, paths: Mapping[int, str]) -> Iterator[tuple[str, Variable]]:
    for layer in _keras.all_layers(model):
        path = paths.get(id(layer), "model/unnamed")
        for attribute, value in _attributes(layer):
            members = enumerate(value) if isinstance(value, (list, tuple)) else [("", value)]
            for index, member in members:
                if isinstance(member, keras.Variable):
                    yield f"{path}/{attribute}/{index}".rstrip("/"), member


def _attributes(part: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a part holds: without the books that TensorFlow keeps in it, with layers where PyTorch has them."""
    held = vars(part)
    for attribute, value in held.items():
        if not attribute.startswith("_self_"):
            yield attribute, value
    if keras.backend.backend() == "torch" and isinstance(part, keras.layers.Layer):
        yield from held["_modules"].items()


def _layer_names(layer: Any, path: str, paths: dict[int, str]) -> Iterator[tuple[int, str]]:
    if id(layer) in paths:
        return
    paths[id(layer)] = path
    variables, seed_generators, metrics, sublayers = _keras.layer_parts(layer)
    count = _Counter()
    for variable in variables:
        yield id(variable), f"{path}/{count(_lasting_name(variable))}"
    for generator in seed_generators:
        yield id(generator.state), f"{path}/{count('seed_generator')}"
    for metric in metrics:
        for variable in _keras.metric_variables(metric):
            yield id(variable), f"metrics/{path}/{count(f'{_lasting_name(metric)}/{_lasting_name(variable)}')}"
    attributes = {} if _keras.is_functional(layer) else _attribute_names(layer)
    for sublayer in sublayers:
        name = attributes.get(id(sublayer)) or _snake(type(sublayer).__name__)
        yield from _layer_names(sublayer, f"{path}/{count(name)}", paths)


def _attribute_names(layer: Any) -> dict[int, str]:
    return {id(value): name for name, value in _attributes(layer) if isinstance(value, keras.layers.Layer)}


def _optimizer_names(optimizer: Any, path: str, names: Mapping[int, str]) -> Iterator[tuple[int, str]]:
    served = [names.get(id(v), f"unnamed_{i}") for i, v in enumerate(_keras.optimizer_variables(optimizer))]
    for found in slots(optimizer).values():
        yield id(found.variable), f"{path}/{names.get(id(found.owner), 'unnamed')}/{found.name}"
    for attribute, value in _attributes(optimizer):
        if attribute in ("_variables", "_trainable_variables", "_tracker", SLOTS):
            continue
        slot = attribute.lstrip("_")
        if isinstance(value, keras.Variable):
            yield id(value), f"{path}/{slot}"
        elif isinstance(value, keras.optimizers.Optimizer):
            yield from _optimizer_names(value, f"{path}/{slot}", names)
        elif isinstance(value, (list, tuple)):
            for index, member in enumerate(value):
                if isinstance(member, keras.Variable):
                    owner = served[index] if len(value) == len(served) else str(index)
                    yield id(member), f"{path}/{owner}/{slot}"
                elif isinstance(member, keras.optimizers.Optimizer):
                    yield from _optimizer_names(member, f"{path}/{slot}/{index}", names)
        elif isinstance(value, dict):
            for key, member in value.items():
                if isinstance(member, keras.Variable):
                    yield id(member), f"{path}/{slot}/{key}"


def _all_slots(optimizer: Any) -> Iterator[Slot]:
    yield from slots(optimizer).values()
    for _, value in _attributes(optimizer):
        for member in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(member, keras.optimizers.Optimizer):
                yield from _all_slots(member)


def _metric_names(model: Any) -> Iterator[tuple[int, str]]:
    count = _Counter()
    for metric in model.metrics:
        name = count(_lasting_name(metric))
        inner = _Counter()
        for variable in _keras.metric_variables(metric):
            yield id(variable), f"metrics/{name}/{inner(_lasting_name(variable))}"


class _Counter:
    """Give each name once: the second ``dense`` becomes ``dense_1``."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def __call__(self, name: str) -> str:
        number = self._seen.get(name, 0)
        self._seen[name] = number + 1
        return name if number == 0 else f"{name}_{number}"


def _lasting_name(part: Any) -> str:
    """Return the name of a variable or metric, without the number that Keras gives to what nobody named."""
    kind = "variable" if isinstance(part, keras.Variable) else _keras.automatic_name(part)
    return kind if re.fullmatch(rf"{re.escape(kind)}(_\d+)?", part.name) else str(part.name)


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
