"""The frozen prefix of a model: the layers from the inputs on that give the same output for the same sample.

A model's graph, those of the models nested in it included, is divided at a
cut. What lies before it is a function of the sample alone as long as no weight
in it changes, so that it need not be computed in every epoch; what lies behind
it can be run from the tensors that cross.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import keras

from keepfit import _keras
from keepfit.phases.purity import impurity

_MOST_BLOCKERS = 3


@dataclass(frozen=True)
class Blocker:
    """A layer at which the prefix ends.

    Args:
        layer: Its path in the model, ``"backbone/block5"``.
        reason: Why it does not belong to the prefix, in words that follow the name.
    """

    layer: str
    reason: str

    def __str__(self) -> str:
        return f"{self.layer} {self.reason}"


@dataclass
class Part:
    """One graph, divided.

    Args:
        graph: The functional graph.
        path: Of the model whose graph it is; empty for the outermost.
        nodes: All its calls, in order.
        before: Ids of the calls before the cut.
        inner: Id of a call of a nested model that the cut runs through -> its part.
        known: Ids of the tensors that are there before the cut.
        crossing: Those of them that are needed behind it.
    """

    graph: Any
    path: str
    nodes: list[Any]
    before: set[int] = field(default_factory=set)
    inner: dict[int, Part] = field(default_factory=dict)
    known: set[int] = field(default_factory=set)
    crossing: list[Any] = field(default_factory=list)

    def parts(self) -> Iterator[Part]:
        """Yield this part and those in it, in an order that is always the same."""
        yield self
        for node in self.nodes:
            if id(node) in self.inner:
                yield from self.inner[id(node)].parts()

    def run_before(self, values: dict[int, Any], found: list[Any], **context: Any) -> None:
        """Run what lies before the cut, and append to ``found`` what crosses it.

        Args:
            values: Id of each input that is there -> its value.
            found: The tensors that cross, in the order of `parts`.
            context: ``training`` and the like.
        """
        below: list[Any] = []
        for node in self.nodes:
            if id(node) in self.before:
                values.update(zip(map(id, node.outputs), _keras.call_node(node, values, **context), strict=True))
            elif id(node) in self.inner:
                part = self.inner[id(node)]
                part.run_before(_inner_inputs(node, part, values), below, **context)
        found += [values[id(tensor)] for tensor in self.crossing]
        found += below

    def run_after(self, values: dict[int, Any], features: Iterator[Any], **context: Any) -> list[Any]:
        """Run what lies behind the cut; returns the graph's outputs.

        Args:
            values: Id of each input that is not before the cut -> its value.
            features: What `run_before` found, from this part on.
            context: ``training`` and the like.
        """
        given = {id(tensor): next(features) for tensor in self.crossing}
        values = {**values, **given}
        # Each inner part takes its own features, before any of them is run.
        below = {id(node): self.inner[id(node)].take(features) for node in self.nodes if id(node) in self.inner}
        for node in self.nodes:
            if id(node) in self.before:
                continue
            if id(node) in self.inner:
                part = self.inner[id(node)]
                outputs = part.run_after(_inner_inputs(node, part, values), iter(below[id(node)]), **context)
            else:
                outputs = _keras.call_node(node, values, **context)
            values.update(zip(map(id, node.outputs), outputs, strict=True))
        return [values[id(tensor)] for tensor in self.graph.outputs]

    def take(self, features: Iterator[Any]) -> list[Any]:
        """Take the features of this part and those in it."""
        return [next(features) for part in self.parts() for _ in part.crossing]


class Prefix:
    """A model divided into a prefix that need not be computed again, and the rest.

    Args:
        part: The model's graph, divided.
        blockers: The layers at which the prefix ends.
    """

    def __init__(self, part: Part, blockers: list[Blocker]) -> None:
        self._part = part
        self.blockers = blockers
        self.tensors: list[Any] = [tensor for each in part.parts() for tensor in each.crossing]
        self.layers: list[Any] = list(_layers_before(part))
        self.variables: list[Any] = list({id(v): v for layer in self.layers for v in layer.variables}.values())
        #: What tells one cut of one model from another within a process.
        self.identity = (id(part.graph), tuple(map(id, self.tensors)))

    def call(self, inputs: Any, training: Any = None, mask: Any = None, **context: Any) -> Any:
        """Return the tensors that cross the cut: what a model runs in the place of its ``call`` to compute them."""
        del mask
        graph = self._part.graph
        given = _keras.graph_inputs(graph, inputs)
        found: list[Any] = []
        self._part.run_before(dict(zip(map(id, graph.inputs), given, strict=True)), found, training=training, **context)
        return found if len(found) > 1 else found[0]

    def call_rest(self, features: Any, training: Any = None, mask: Any = None, **context: Any) -> Any:
        """Return the model's outputs: what a model runs in the place of its ``call`` on what crosses the cut."""
        del mask
        flat = keras.tree.flatten(features)
        given = [keras.ops.convert_to_tensor(x, t.dtype) for x, t in zip(flat, self.tensors, strict=True)]
        outputs = self._part.run_after({}, iter(given), training=training, **context)
        return _keras.pack_outputs(self._part.graph, outputs)

    def description(self) -> list[Any]:
        """Return which layers are in the prefix, how they are set and wired, and what crosses: plain data."""
        return [*_described(self._part, {}), [[list(t.shape[1:]), str(t.dtype)] for t in self.tensors]]


def has_frozen_weights(model: Any) -> bool:
    """Return whether any weight of a model is kept from training."""
    return any(not variable.trainable for layer in _keras.all_layers(model) for variable in _keras.own_weights(layer))


def find_prefix(model: Any) -> Prefix | str:
    """Return the frozen prefix of a built model, or why there is none of use.

    It is the largest set of calls from the inputs on whose layers have no
    weights that train and depend on nothing but the sample.
    """
    graph = _keras.graph_of(model)
    if graph is None:
        return "the model runs code of its own instead of a graph of layers"
    if any(tensor.shape[0] is not None for tensor in graph.inputs):
        return "the model was made for batches of one size"
    banned: set[int] = set()
    while True:
        blockers: list[Blocker] = []
        part = _divided(graph, "", set(map(id, graph.inputs)), banned, blockers)
        masked = [id(node) for each in part.parts() for node in _masked_before(each)]
        if not masked:
            break
        # A mask is no array that could be kept beside the features.
        banned.update(masked)
    prefix = Prefix(part, blockers)
    if not any(layer.weights for layer in prefix.layers):
        why = "; ".join(map(str, blockers[:_MOST_BLOCKERS]))
        return f"no frozen weights before the first layer that must run in every step: {why}"
    if any(None in tensor.shape[1:] for tensor in prefix.tensors):
        return "what the frozen layers give has no fixed shape"
    return prefix


def _divided(graph: Any, path: str, known: set[int], banned: set[int], blockers: list[Blocker]) -> Part:
    part = Part(graph, path, _keras.graph_nodes(graph), known=set(known))
    for node in part.nodes:
        ready = all(id(tensor) in part.known for tensor in node.input_tensors)
        name = f"{path}{node.operation.name}"
        inner_graph = _keras.graph_of(node.operation) if isinstance(node.operation, keras.layers.Layer) else None
        below: list[Blocker] = []
        if not ready:
            reason: str | None = ""
        elif id(node) in banned:
            reason = "gives a mask"
        elif inner_graph is None:
            reason = impurity(node)
        else:
            reason = _model_impurity(node, inner_graph, f"{name}/", banned, below)
        if reason is None:
            part.before.add(id(node))
            part.known.update(map(id, node.outputs))
            continue
        blockers += below or ([Blocker(name, reason)] if ready else [])
        if inner_graph is not None and _may_be_divided(node, inner_graph):
            pairs = zip(_outer_inputs(node), inner_graph.inputs, strict=True)
            there = {id(inner) for outer, inner in pairs if id(outer) in part.known}
            inner = _divided(inner_graph, f"{name}/", there, banned, [])
            if any(layer.weights for layer in _layers_before(inner)):
                part.inner[id(node)] = inner
    part.crossing = _crossing(part)
    return part


def _model_impurity(node: Any, graph: Any, path: str, banned: set[int], below: list[Blocker]) -> str | None:
    """Return why a nested model does not belong to the prefix as a whole; what in it is not appended to ``below``."""
    model = node.operation
    if model.activity_regularizer is not None:
        reason = "adds to the loss"
    elif getattr(model.dtype_policy, "quantization_mode", None) is not None:
        reason = "is quantized"
    elif any(_is_masked(tensor) for tensor in node.input_tensors):
        reason = "is given a mask"
    else:
        whole = _divided(graph, path, set(map(id, graph.inputs)), banned, below)
        return None if len(whole.before) == len(whole.nodes) else "has layers that must run in every step"
    below.append(Blocker(path.rstrip("/"), reason))
    return reason


def _may_be_divided(node: Any, graph: Any) -> bool:
    args, kwargs = _keras.node_arguments(node)
    outer = _outer_inputs(node)
    if len(args) != 1 or any(value is not None for name, value in kwargs.items() if name != "training"):
        return False
    if len(outer) != len(graph.inputs) or node.operation.activity_regularizer is not None:
        return False
    return not isinstance(args[0], dict) and all(
        len(mine.shape) == len(theirs.shape) and not _is_masked(mine)
        for mine, theirs in zip(outer, graph.inputs, strict=True)
    )


def _outer_inputs(node: Any) -> list[Any]:
    return list(keras.tree.flatten(_keras.node_arguments(node)[0][0]))


def _inner_inputs(node: Any, part: Part, values: dict[int, Any]) -> dict[int, Any]:
    """Return the inputs of a nested model that are there, as it takes them."""
    pairs = zip(_outer_inputs(node), part.graph.inputs, strict=True)
    return {
        id(inner): keras.ops.convert_to_tensor(values[id(outer)], dtype=inner.dtype)
        for outer, inner in pairs
        if id(outer) in values
    }


def _crossing(part: Part) -> list[Any]:
    """Return the tensors that are there before the cut and needed behind it, each once."""
    behind = [node for node in part.nodes if id(node) not in part.before and id(node) not in part.inner]
    needed = [tensor for node in behind for tensor in node.input_tensors] + list(part.graph.outputs)
    return list({id(tensor): tensor for tensor in needed if id(tensor) in part.known}.values())


def _masked_before(part: Part) -> Iterator[Any]:
    """Yield the calls whose outputs cross the cut with a mask."""
    crossing = set(map(id, part.crossing))
    for node in part.nodes:
        if id(node) in part.before and any(id(t) in crossing and _is_masked(t) for t in node.outputs):
            yield node


def _is_masked(tensor: Any) -> bool:
    """Return whether a tensor carries a mask, one that a nested model attaches included."""
    if _keras.is_masked(tensor):
        return True
    operation, index = _keras.maker_of(tensor)
    graph = _keras.graph_of(operation) if isinstance(operation, keras.layers.Layer) else None
    return graph is not None and _is_masked(graph.outputs[index])


def _layers_before(part: Part) -> Iterator[Any]:
    for node in part.nodes:
        if id(node) in part.before and isinstance(node.operation, keras.layers.Layer):
            yield node.operation
        elif id(node) in part.inner:
            yield from _layers_before(part.inner[id(node)])


def _described(part: Part, numbers: dict[int, int]) -> Iterator[Any]:
    """Yield a line for each call before the cut; names are left aside, which differ from process to process."""
    for tensor in part.graph.inputs:
        numbers.setdefault(id(tensor), len(numbers))
    for node in part.nodes:
        inner = part.inner.get(id(node))
        graph = None
        if inner is None and id(node) not in part.before:
            continue
        if inner is None and isinstance(node.operation, keras.layers.Layer):
            graph = _keras.graph_of(node.operation)
        if graph is not None:
            inner = _divided(graph, "", set(map(id, graph.inputs)), set(), [])
        taken = [numbers.get(id(tensor), -1) for tensor in node.input_tensors]
        yield [*_described_call(node, is_model=inner is not None), taken]
        if inner is not None:
            yield list(_described(inner, numbers))
        for tensor in node.outputs:
            numbers[id(tensor)] = len(numbers)
    yield [numbers[id(tensor)] for tensor in part.crossing]


def _described_call(node: Any, *, is_model: bool) -> list[Any]:
    operation = node.operation
    kind = f"{type(operation).__module__}.{type(operation).__qualname__}"
    args, kwargs = _keras.node_arguments(node)
    settings = {} if is_model else _settings(operation)
    return [kind, settings, repr(_plain([list(args), kwargs]))]


def _settings(operation: Any) -> Any:
    """Return what an operation was made with, but for its name, which counts the objects of a process."""
    found = operation.get_config() if isinstance(operation, keras.layers.Layer) else vars(operation)
    kept = {name: value for name, value in found.items() if name != "name" and not name.startswith("_")}
    return json.loads(json.dumps(kept, default=repr, sort_keys=True))


def _plain(value: Any) -> Any:
    """Return arguments of a call without the tensors, which are told by their numbers."""
    if isinstance(value, keras.KerasTensor):
        return "tensor"
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value
