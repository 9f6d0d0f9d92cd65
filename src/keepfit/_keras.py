"""The one place where private names of Keras are used.

Everything else in keepfit speaks to Keras through its public API or through
this module. `probe` names what a Keras lacks, before anything starts.
"""

from __future__ import annotations

import copy
import functools
import importlib
import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras

from keepfit.errors import EngineError

# --- core ---

# The minor versions that `make compat` tests.
SUPPORTED = ("3.13", "3.14", "3.15")

_MODULE_NAMES = {
    "backend.common.global_state": ("get_global_attribute", "set_global_attribute"),
    "models.functional": ("Functional", "operation_fn"),
    "random.seed_generator": ("GLOBAL_SEED_GENERATOR", "draw_seed"),
    "trainers.data_adapters": ("get_data_adapter", "is_tf_dataset", "is_torch_dataloader", "is_grain_dataset"),
    "trainers.data_adapters.array_slicing": ("can_slice_array", "convert_to_sliceable"),
    "trainers.data_adapters.data_adapter": ("DataAdapter",),
    "trainers.data_adapters.data_adapter_utils": (
        "get_jax_iterator",
        "get_numpy_iterator",
        "is_jax_sparse",
        "is_scipy_sparse",
        "is_tensorflow_ragged",
        "is_tensorflow_sparse",
        "is_torch_tensor",
        "jax_sparse_to_tf_sparse",
    ),
    "trainers.data_adapters.tf_dataset_adapter": ("TFDatasetAdapter",),
    "trainers.trainer": ("Trainer",),
    "utils.naming": ("to_snake_case",),
    "utils.rng_utils": ("GLOBAL_RANDOM_SEED",),
}
_BACKEND_MODULE_NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "jax": {"backend.jax.trainer": ("JAXTrainer", "_distribute_data")},
    "torch": {"backend.torch.core": ("cond", "get_device"), "backend.torch.random": ("torch_seed_generator",)},
}
_TRAINER_NAMES = (
    "_symbolic_build",
    "_should_eval",
    "_flatten_metrics_in_order",
    "_flatten_layers",
    "train_step",
    "test_step",
    "predict_step",
    "reset_metrics",
)
_LAYER_NAMES = ("_layers", "_trainable_variables", "_non_trainable_variables", "_seed_generators", "_metrics")
_OPTIMIZER_NAMES = ("_trainable_variables", "_iterations", "finalize_variable_values")


def probe(model: Any) -> None:
    """Check that this Keras has the private names that keepfit uses.

    Raises:
        EngineError: Names the missing ones and the installed version.
    """
    missing = list(_missing_in_modules())
    missing += [f"Trainer.{name}" for name in _TRAINER_NAMES if not hasattr(model, name)]
    missing += [f"Layer.{name}" for name in _LAYER_NAMES if not hasattr(model, name)]
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None:
        missing += [f"Optimizer.{name}" for name in _OPTIMIZER_NAMES if not hasattr(optimizer, name)]
    if missing:
        raise EngineError(
            f"Keras {keras.__version__} lacks what keepfit builds on: {', '.join(missing)}. Nothing was changed. "
            f"This keepfit supports Keras {SUPPORTED[0]} to {SUPPORTED[-1]}: install one of these, or a newer keepfit.",
            missing=missing,
        )


@functools.cache
def _missing_in_modules() -> tuple[str, ...]:
    """Return the names of functions and classes that this Keras lacks."""
    missing = []
    for module, names in {**_MODULE_NAMES, **_BACKEND_MODULE_NAMES.get(keras.backend.backend(), {})}.items():
        try:
            found = importlib.import_module(f"keras.src.{module}")
        except ImportError:
            missing.append(module)
            continue
        missing += [f"{module}.{name}" for name in names if not hasattr(found, name)]
    return tuple(missing)


def is_model(value: Any) -> bool:
    """Return whether a value is something that Keras trains: a model, or a layer with Keras's trainer mixed in."""
    from keras.src.trainers.trainer import Trainer

    return isinstance(value, keras.Model) or (isinstance(value, Trainer) and isinstance(value, keras.layers.Layer))


def trains_itself(model: Any) -> bool:
    """Return whether the model's class has a ``fit`` of its own in the place of Keras's."""
    return type(model).fit is not keras.Model.fit


def is_compiled(model: Any) -> bool:
    """Return whether the model has been compiled."""
    return bool(getattr(model, "compiled", False))


def is_built(model: Any) -> bool:
    """Return whether every layer has its variables; a subclassed model with none counts as not built."""
    return all(layer.built for layer in model._flatten_layers()) and bool(model.variables)


def build(model: Any, batch: Any, *, optimizer: bool = True) -> None:
    """Create every variable of model, loss, metrics and optimizer that training on ``batch`` needs.

    Args:
        model: The model.
        batch: What it will be trained on.
        optimizer: Whether the optimizer is built too, for what trains now.
    """
    if optimizer or not can_be_built(model.optimizer):
        if not _has_all_variables(model):
            model._symbolic_build(data_batch=batch)
        return
    attributes = vars(model.optimizer)
    attributes["built"] = True  # so that Keras leaves it alone
    try:
        model._symbolic_build(data_batch=batch)
    finally:
        attributes["built"] = False


def _has_all_variables(model: Any) -> bool:
    """Return whether Keras would find nothing to build; what it does to PyTorch's list of parameters is done too."""
    parts = (model.optimizer, model._compile_metrics, model._compile_loss, *model._flatten_layers())
    if not all(part is None or part.built for part in parts):
        return False
    if keras.backend.backend() != "torch":
        return True
    listed: Any = getattr(model, "_torch_params", {})
    return {id(parameter) for parameter in listed.values()} == {id(value(variable)) for variable in model.variables}


def can_be_built(optimizer: Any) -> bool:
    """Return whether something is an optimizer of Keras's that has no variables for a model's yet."""
    return isinstance(optimizer, keras.optimizers.Optimizer) and not optimizer.built


def build_optimizer(model: Any, variables: list[Any]) -> None:
    """Create what an optimizer keeps for variables of a built model."""
    model.optimizer.build(variables)


def call_symbolically(model: Any, batch: Any) -> None:
    """Create the variables of an unbuilt model by calling it on a batch without targets."""
    x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
    with keras.StatelessScope():
        model(x)


def value(variable: Any) -> Any:
    """Return the backend's array in a variable, without a copy."""
    return variable._value


def set_value(variable: Any, array: Any) -> None:
    """Put an array of the right shape and dtype into a variable, without a copy."""
    variable._value = array


def layer_parts(layer: Any) -> tuple[list[Any], list[Any], list[Any], list[Any]]:
    """Return a layer's own variables, seed generators, metrics and sublayers, in creation order."""
    variables = [*layer._trainable_variables, *layer._non_trainable_variables]
    return variables, list(layer._seed_generators), list(layer._metrics), list(layer._layers)


def compile_arguments(model: Any) -> dict[str, Any]:
    """Return what ``compile()`` was given: loss, loss weights, metrics, weighted metrics."""
    config = getattr(getattr(model, "_compile_config", None), "config", {})
    names = ("loss", "loss_weights", "metrics", "weighted_metrics")
    return {name: config.get(name, getattr(model, name, None) if name == "loss" else None) for name in names}


def compile_marker(model: Any) -> Any:
    """Return an object that every call of ``compile()`` replaces."""
    return model._loss_tracker


def rate_holder(optimizer: Any) -> Any:
    """Return what holds an optimizer's rate: a variable, a schedule or a callable."""
    return getattr(optimizer, "_learning_rate", None)


def set_trainable(layer: Any, value: bool) -> None:
    """Set ``layer.trainable``, in the layers inside it too.

    On TensorFlow, Keras's layers ignore the assignment of what an attribute
    already is. So ``model.trainable = True`` is lost on a model whose own flag
    is True, while the layers inside it were frozen one by one.
    """
    if bool(layer.trainable) == value:
        layer.trainable = not value
    layer.trainable = value


def lora_base(layer: Any) -> Any | None:
    """Return the weight that LoRA stands beside in a layer, which must stay frozen; None where there is no LoRA."""
    if not getattr(layer, "lora_enabled", False):
        return None
    return getattr(layer, "_kernel", None) if hasattr(layer, "_kernel") else getattr(layer, "_embeddings", None)


def all_layers(model: Any) -> list[Any]:
    """Return the model and every layer in it."""
    return list(model._flatten_layers())


def optimizer_variables(optimizer: Any) -> list[Any]:
    """Return the model's variables that an optimizer was built for, in its order."""
    return list(getattr(optimizer, "_trainable_variables", []))


def is_weight(layer: Any, variable: Any) -> bool:
    """Return whether a layer's variable is one that training may change."""
    return any(variable is weight for weight in layer._trainable_variables)


def is_schedule(rate: Any) -> bool:
    """Return whether a rate is a schedule of Keras's kind."""
    return isinstance(rate, keras.optimizers.schedules.LearningRateSchedule)


_is_free: Callable[[Any, Any], bool] | None = None


def free_rates(is_free: Callable[[Any, Any], bool]) -> None:
    """Let ``optimizer.learning_rate = …`` take numbers and schedules in any order, which Keras refuses.

    For an optimizer that is not free, Keras's own property decides.

    Args:
        is_free: Whether an optimizer may be given a rate; it may raise.
    """
    global _is_free
    installed, _is_free = _is_free is not None, is_free
    if installed:
        return
    owner = next(kind for kind in keras.optimizers.Optimizer.__mro__ if "learning_rate" in vars(kind))
    own = vars(owner)["learning_rate"]

    def set_or_ask(optimizer: Any, rate: Any) -> None:
        mixed = is_schedule(rate) or not isinstance(rate_holder(optimizer), keras.Variable)
        known = is_schedule(rate) or not callable(rate) or isinstance(rate, keras.Variable)
        if mixed and known and _is_free is not None and _is_free(optimizer, rate):
            set_rate(optimizer, rate)
        else:
            own.fset(optimizer, rate)

    owner.learning_rate = property(own.fget, set_or_ask, own.fdel, own.__doc__)


def set_rate(optimizer: Any, rate: Any) -> None:
    """Give an optimizer a number or a schedule as its rate, whatever it had before: Keras does not always allow it."""
    attributes = vars(optimizer)
    holder = attributes.get("_learning_rate")
    if is_schedule(rate):
        attributes["_learning_rate"] = rate
        if isinstance(holder, keras.Variable):
            attributes["_keepfit_rate"] = holder  # programs know it, if a number comes again
            list_optimizer_variables(optimizer, (v for v in attributes["_variables"] if v is not holder))
        return
    if not isinstance(holder, keras.Variable):
        holder = attributes.get("_keepfit_rate")
        if holder is None:
            holder = keras.Variable(0.0, name="learning_rate", dtype=keras.config.floatx(), trainable=False)
        attributes["_learning_rate"] = holder
        first, *others = attributes["_variables"]
        list_optimizer_variables(optimizer, (first, holder, *others))
    holder.assign(float(rate))


def list_optimizer_variables(optimizer: Any, variables: Iterable[Any]) -> None:
    """Let ``optimizer.variables`` be these, in this order, of which it does not make any."""
    listed, tracker = list(variables), optimizer._tracker
    vars(optimizer)["_variables"] = listed
    tracker.config["variables"] = (tracker.config["variables"][0], listed)
    tracker.stored_ids["variables"] = set(map(id, listed))


def automatic_name(part: Any) -> str:
    """Return the name that Keras gives to the first object of this class which nobody named."""
    from keras.src.utils import naming

    return str(naming.to_snake_case(type(part).__name__))


def metric_variables(metric: Any) -> list[Any]:
    """Return every variable of a metric."""
    return list(metric.variables)


def should_validate(model: Any, epoch: int, validation_freq: Any) -> bool:
    """Return whether Keras validates at the end of epoch ``epoch``, counted from 0."""
    if not isinstance(validation_freq, list):
        validation_freq = operator.index(validation_freq)
    return bool(model._should_eval(epoch, validation_freq))


def has_standard_logs(model: Any) -> bool:
    """Return whether a step's logs are the metric results, so that they need not be computed twice."""
    trainer = keras.Model
    return all(
        getattr(type(model), name, None) is getattr(trainer, name, None)
        for name in ("train_step", "test_step", "compute_metrics", "get_metrics_result")
    )


def has_own_train_step(model: Any) -> bool:
    """Return whether the model's class has a training step of its own."""
    return getattr(type(model), "train_step", None) is not getattr(keras.Model, "train_step", None)


def is_only_stepped(model: Any) -> bool:
    """Return whether a model has a training step of its own and no ``call``: nothing but its step tells what it is."""
    return type(model).call is keras.Model.call and has_own_train_step(model)


def is_built_within(model: Any) -> bool:
    """Return whether every layer in a model has its variables, whatever is said of the model itself."""
    return all(layer.built for layer in model._flatten_layers(include_self=False))


def has_stock_metrics(model: Any) -> bool:
    """Return whether every metric, and the way they begin anew, is Keras's own."""
    if type(model).reset_metrics is not keras.Model.reset_metrics:
        return False
    own = [kind for kind in vars(keras.metrics).values() if isinstance(kind, type)]
    own += [type(model._compile_metrics), type(model._compile_loss)]
    return all(type(part) in own for metric in model.metrics for part in (metric, *getattr(metric, "metrics", ())))


def flat_logs(model: Any, logs: dict[str, Any]) -> Any:
    """Return logs as Keras's ``evaluate`` gives them without ``return_dict``."""
    return model._flatten_metrics_in_order(logs)


def finalize_weights(model: Any) -> bool:
    """Do what Keras does to weights at the end of ``fit``: EMA is written into them.

    Returns:
        Whether that may have written anything.
    """
    optimizer = model.optimizer
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        return False
    optimizer.finalize_variable_values(model.trainable_weights)
    own = type(optimizer).finalize_variable_values is keras.optimizers.Optimizer.finalize_variable_values
    return bool(optimizer.use_ema) or not own


def call_without_threads(callbacks: Any) -> None:
    """Let a callback list call its members itself; it makes an executor for each fit else, even where nobody uses it.

    Members that ask for a thread (``async_safe``) keep it.
    """
    if not any(getattr(callback, "async_safe", False) for callback in callbacks.callbacks):
        callbacks._async_train = callbacks._async_test = callbacks._async_predict = False


def prepare_for_callbacks(model: Any) -> None:
    """Tell Keras's JAX trainer that the variables hold the state, so that callbacks find it there."""
    model._jax_state_synced = True
    model._jax_state = None


_owned: Callable[[], Collection[int]] | None = None


def donate_copies(owned: Callable[[], Collection[int]]) -> None:
    """Let Keras's JAX trainer have copies of arrays that others hold, too: it donates what is in a model's variables.

    Args:
        owned: Gives the ids of variables whose arrays must outlive a fit, evaluation or prediction of a model that
            shares them.
    """
    global _owned
    installed, _owned = _owned is not None, owned
    if installed:
        return
    trainer: Any = importlib.import_module("keras.src.backend.jax.trainer").JAXTrainer
    own = trainer._get_jax_state

    @functools.wraps(own)
    def state_of(model: Any, *args: Any, **arguments: Any) -> Any:
        ids = _owned() if _owned is not None else ()
        for variable in (*model.variables, *model.metrics_variables) if ids else ():
            if id(variable) in ids and variable._value is not None:
                variable._value = keras.ops.copy(variable._value)
        return own(model, *args, **arguments)

    trainer._get_jax_state = state_of


def distribute(batch: Any) -> Any:
    """Return a batch placed as Keras's distribution asks, or unchanged where there is none."""
    if keras.distribution.distribution() is None:
        return batch
    from keras.src.backend.jax.trainer import _distribute_data

    return _distribute_data(batch)


def torch_device() -> str:
    """Return the name of the device on which Keras makes PyTorch's tensors."""
    from keras.src.backend.torch.core import get_device

    return str(get_device())


@contextmanager
def drawing_from(generator: Callable[[Any], Any], cond: Callable[[Any, Any, Any], Any]) -> Iterator[None]:
    """Let ``generator(seed)`` give the generators with which Keras draws on PyTorch, and ``cond`` be ``ops.cond``."""
    from keras.src.backend.torch import core, random

    before = random.torch_seed_generator, core.cond
    random.torch_seed_generator, core.cond = generator, cond
    try:
        yield
    finally:
        random.torch_seed_generator, core.cond = before


def draw_seed(seed: Any) -> Any:
    """Return the two numbers that Keras draws next from a seed or a seed generator."""
    from keras.src.random import seed_generator

    return seed_generator.draw_seed(seed)


def losses(model: Any) -> list[Any]:
    """Return the object that holds a model's compiled losses, if there is one."""
    found = getattr(model, "_compile_loss", None)
    return [] if found is None else [found]


def is_functional(layer: Any) -> bool:
    """Return whether a layer's sublayers are a graph or a list, rather than attributes."""
    from keras.src.models.functional import Functional

    return isinstance(layer, (Functional, keras.Sequential))


def flatten(structure: Any) -> Sequence[Any]:
    """Return the leaves of a nested structure; None is a leaf."""
    return list(keras.tree.flatten(structure))


# --- recipe ---

# What `compile` and `fit` leave in a model, beside what its class and its user put there.
COMPILED_ATTRIBUTES = frozenset(
    {
        "loss",
        "optimizer",
        "train_function",
        "test_function",
        "predict_function",
        "_compile_loss",
        "_compile_metrics",
        "_loss_tracker",
    }
)


def inner_optimizers(optimizer: Any) -> list[Any]:
    """Return the optimizers that an optimizer hands its work to; none for a plain one."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return [optimizer.inner_optimizer]
    return list(getattr(optimizer, "_inner_optimizers", ()))


def learning_rate_source(optimizer: Any) -> Any:
    """Return what an optimizer takes its rate from: a variable, number, schedule or function."""
    return getattr(optimizer, "_learning_rate", None)


def optimizer_config(optimizer: Any) -> dict[str, Any]:
    """Return an optimizer's ``get_config``, whose learning rate means nothing.

    Keras reads the rate from the device for it, and warns under NumPy 2, and a
    schedule of the user's own may have no config; the rate is told apart, so a
    number stands in its place meanwhile.
    """
    nested = [optimizer]
    for each in nested:  # grows as it goes
        nested.extend(inner_optimizers(each))
    held = [(vars(each), each._learning_rate) for each in nested if "_learning_rate" in vars(each)]
    try:
        for attributes, _ in held:
            attributes["_learning_rate"] = 0.0
        return dict(optimizer.get_config())
    finally:
        for attributes, rate in held:
            attributes["_learning_rate"] = rate


def wrapped_function(value: Any) -> tuple[Any, dict[str, Any]]:
    """Return the function in a loss or metric made around one, and the arguments it is called with."""
    function = getattr(value, "_fn", None) or getattr(value, "fn", None)
    arguments = getattr(value, "_fn_kwargs", None)
    return function, dict(arguments) if isinstance(arguments, dict) else {}


# --- randomness ---


def _global_state() -> Any:
    from keras.src.backend.common import global_state

    return global_state


def global_seed() -> int | None:
    """Return the seed of the last ``keras.utils.set_random_seed`` in this thread, if there was one."""
    from keras.src.utils import rng_utils

    seed = _global_state().get_global_attribute(rng_utils.GLOBAL_RANDOM_SEED)
    return None if seed is None else int(seed)


def set_global_seed(seed: int | None) -> None:
    """Put back the seed that `global_seed` gave, without seeding anything."""
    from keras.src.utils import rng_utils

    _global_state().set_global_attribute(rng_utils.GLOBAL_RANDOM_SEED, seed)


def global_seed_generator() -> Any | None:
    """Return Keras's global seed generator, or None where none was needed yet."""
    from keras.src.random import seed_generator

    return _global_state().get_global_attribute(seed_generator.GLOBAL_SEED_GENERATOR)


def set_global_seed_generator(generator: Any | None) -> None:
    """Put a seed generator in the global place; None lets Keras make one when it needs it."""
    from keras.src.random import seed_generator

    _global_state().set_global_attribute(seed_generator.GLOBAL_SEED_GENERATOR, generator)


# --- data ---


def _adapter_tools() -> Any:
    from keras.src.trainers.data_adapters import data_adapter_utils

    return data_adapter_utils


def _slicing() -> Any:
    from keras.src.trainers.data_adapters import array_slicing

    return array_slicing


def _adapters() -> Any:
    from keras.src.trainers import data_adapters

    return data_adapters


def is_sparse_or_ragged(value: Any) -> bool:
    """Return whether an array is a sparse or ragged kind that Keras slices on the host."""
    return bool(
        _adapter_tools().is_scipy_sparse(value)
        or _adapter_tools().is_jax_sparse(value)
        or _adapter_tools().is_tensorflow_sparse(value)
        or _adapter_tools().is_tensorflow_ragged(value)
    )


def is_torch_tensor(value: Any) -> bool:
    """Return whether a value is a PyTorch tensor; does not import PyTorch."""
    return bool(_adapter_tools().is_torch_tensor(value))


def is_array_like(value: Any) -> bool:
    """Return whether Keras takes a value as an array; None counts."""
    return bool(_slicing().can_slice_array(value))


def host_slicer(array: Any) -> Callable[[Any], Any]:
    """Return a function from rows (a slice or indices) to what the backend in force is fed for them."""
    backend = keras.backend.backend()
    if backend == "tensorflow" and _adapter_tools().is_jax_sparse(array):
        # Rows of a JAX one keep their number of stored values, which TensorFlow does not understand.
        array = _adapter_tools().jax_sparse_to_tf_sparse(array)
    elif backend == "tensorflow" and getattr(getattr(array, "dtype", None), "kind", "") == "O":
        array = keras.ops.convert_to_tensor(array, dtype="string")
    # "tensorflow" as a target would convert the whole array; its slices are converted below instead.
    sliceable = _slicing().convert_to_sliceable(array, target_backend=None if backend == "tensorflow" else backend)
    convert = {
        "jax": "convert_to_jax_compatible",
        "torch": "convert_to_torch_compatible",
        "tensorflow": "convert_to_tf_dataset_compatible",
    }.get(backend, "convert_to_numpy")

    def rows_of(rows: Any) -> Any:
        part = getattr(sliceable, convert)(sliceable[rows])
        return getattr(part, "sparse", part) if backend == "tensorflow" else part

    return rows_of


def backend_batch(batch: Any) -> Any:
    """Return a batch that a data set made, its leaves converted as Keras does for the backend in force."""
    tools = _adapter_tools()
    if keras.backend.backend() == "tensorflow":
        batch = keras.tree.map_structure(_sparse_for_tensorflow, batch, none_is_leaf=False)
    convert = tools.get_jax_iterator if keras.backend.backend() == "jax" else tools.get_numpy_iterator
    return next(iter(convert([batch])))


def _sparse_for_tensorflow(leaf: Any) -> Any:
    # Keras's slicing of sparse arrays needs both bounds.
    return host_slicer(leaf)(slice(0, leaf.shape[0])) if is_sparse_or_ragged(leaf) else leaf


def is_foreign_data(value: Any) -> bool:
    """Return whether only Keras's own adapters can read a value: tf.data, torch loaders, Grain, custom adapters."""
    return bool(
        isinstance(value, _adapters().data_adapter.DataAdapter)
        or _adapters().is_tf_dataset(value)
        or _adapters().is_torch_dataloader(value)
        or _adapters().is_grain_dataset(value)
    )


def is_tf_dataset(value: Any) -> bool:
    """Return whether a value is a tf.data dataset; does not import TensorFlow."""
    return bool(_adapters().is_tf_dataset(value))


def foreign_adapter(value: Any, class_weight: Mapping[int, float] | None) -> Any:
    """Return Keras's adapter for a value that `is_foreign_data` accepts."""
    return _adapters().get_data_adapter(value, class_weight=class_weight, shuffle=False)


def reads_tensorflow(adapter: Any) -> bool:
    """Return whether an adapter is Keras's own for a ``tf.data.Dataset`` on one device."""
    ours = type(adapter) is _adapters().tf_dataset_adapter.TFDatasetAdapter
    return ours and hasattr(adapter.get_tf_dataset(), "options")


def is_custom_adapter(adapter: Any) -> bool:
    """Return whether an adapter is a class of the user's."""
    return not type(adapter).__module__.startswith("keras.")


def adapter_over(adapter: Any, batches: Iterator[Any]) -> Any:
    """Return an adapter of a ``tf.data.Dataset`` that reads an iterator over it."""
    other = copy.copy(adapter)
    other._dataset = batches
    return other


def foreign_iterator(adapter: Any) -> Iterator[Any]:
    """Return a new iterator over the batches of Keras's adapter, fit for the backend in force."""
    if keras.backend.backend() == "jax":
        return iter(adapter.get_jax_iterator())
    if keras.backend.backend() == "tensorflow":
        return _tensorflow_iterator(adapter)
    given = type(adapter).get_numpy_iterator is not _adapters().data_adapter.DataAdapter.get_numpy_iterator
    if keras.backend.backend() == "torch" and not given:
        return iter(adapter.get_torch_dataloader())
    return iter(adapter.get_numpy_iterator())


def _tensorflow_iterator(adapter: Any) -> Iterator[Any]:
    # As NumPy what a data set of TensorFlow holds sparse would become dense.
    if not isinstance(adapter, _adapters().tf_dataset_adapter.TFDatasetAdapter):
        try:
            return iter(adapter.get_numpy_iterator())
        except NotImplementedError:
            pass  # a custom adapter needs no more than its backend asks for
    return (
        # Nor is text as NumPy something of which Keras makes an input.
        keras.tree.map_structure(
            lambda leaf: leaf.numpy() if hasattr(leaf, "numpy") and leaf.dtype.name != "string" else leaf, batch
        )
        for batch in adapter.get_tf_dataset()
    )


def native_rows(array: Any, rows: Any) -> Any:
    """Return rows (a slice or indices) of a sparse or ragged array as an array of its own kind (scipy's become CSR)."""
    return _slicing().convert_to_sliceable(array)[rows]


# --- callbacks ---


def is_default_hook(hook: Any) -> bool:
    """Return whether a callback's hook is the one that Keras's base class has, which does nothing."""
    return hook is None or bool(getattr(hook, "_is_default", False))


def holds_averages(callback: Any) -> bool:
    """Return whether a SwapEMAWeights has put the averages into the model's weights."""
    return bool(callback._ema_weights_in_model)


def finalize_averages(callback: Any) -> None:
    """Let a SwapEMAWeights replace what it put aside by the averages, as in the last epoch of a fit."""
    callback._finalize_ema_values()


def point_summaries(callback: Any) -> None:
    """Let a TensorBoard's summaries go by the step that it has now, rather than by that of its ``on_train_begin``."""
    if callback._prev_summary_state:
        callback._pop_writer()
        callback._push_writer(callback._train_writer, callback._global_train_batch)


# --- prefix ---


# What must be Keras's own for a step to see no more of a batch than what the model's `call` does with it.
_STEPS = (
    "__call__",
    "_compute_loss",
    "compute_loss",
    "compute_loss_and_updates",
    "compute_metrics",
    "predict_step",
    "stateless_call",
    "stateless_compute_loss",
    "test_step",
    "train_step",
)


def own_step(model: Any) -> str | None:
    """Return the name of a method through which a model's own code may see the inputs; None where all are Keras's."""
    kind = type(model)
    for name in _STEPS:
        if name in vars(model) or getattr(kind, name, None) is not getattr(keras.Model, name, None):
            return name
    return None


def graph_of(layer: Any) -> Any | None:
    """Return the functional graph that a layer runs when it is called; None where its class runs other code."""
    from keras.src.models.functional import Functional

    kind = type(layer)
    if "call" in vars(layer) or kind.__call__ is not keras.layers.Layer.__call__:
        return None
    if isinstance(layer, keras.Sequential):
        found = getattr(layer, "_functional", None) if kind.call is keras.Sequential.call else None
        return found or None
    return layer if isinstance(layer, Functional) and kind.call is Functional.call else None


def graph_nodes(graph: Any) -> list[Any]:
    """Return the calls of a functional graph in the order in which Keras makes them."""
    depths = sorted(graph._nodes_by_depth, reverse=True)
    return [node for depth in depths for node in graph._nodes_by_depth[depth] if node.operation and not node.is_input]


def node_arguments(node: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what a layer is called with in a graph, symbolic tensors among it."""
    return node.arguments.args, node.arguments.kwargs


def call_node(node: Any, values: dict[int, Any], **context: Any) -> list[Any]:
    """Make a call of a graph as Keras does.

    Args:
        node: The call.
        values: Id of a symbolic tensor -> its value.
        context: ``training`` and the like.

    Returns:
        The values of ``node.outputs``.
    """
    from keras.src.models.functional import operation_fn

    args, kwargs = node.arguments.fill_in(values)
    return list(keras.tree.flatten(operation_fn(node.operation, **context)(*args, **kwargs)))


def pack_outputs(graph: Any, values: list[Any]) -> Any:
    """Return a graph's outputs in the structure in which its model gives them."""
    packed = keras.tree.pack_sequence_as(graph._outputs_struct, values)
    return packed[0] if isinstance(packed, (list, tuple)) and len(packed) == 1 else packed


def graph_inputs(graph: Any, inputs: Any) -> list[Any]:
    """Return what a graph is given as it takes it: flat, of the right dtypes and ranks."""
    return list(graph._standardize_inputs(inputs))


def maker_of(tensor: Any) -> tuple[Any, int]:
    """Return the operation that gave a symbolic tensor, and which of its outputs it is."""
    operation, _, index = tensor._keras_history
    return operation, int(index)


def own_weights(layer: Any) -> list[Any]:
    """Return the weights that a layer itself was made with as ones to train, whether they do or not."""
    found: list[Any] = layer._trainable_variables
    return found


def dtype_bytes(dtype: Any) -> int:
    """Return the bytes of a number of one of Keras's dtypes."""
    bits = "".join(letter for letter in keras.backend.standardize_dtype(dtype).split("_")[0] if letter.isdigit())
    return max(int(bits or 8) // 8, 1)


def is_masked(tensor: Any) -> bool:
    """Return whether a symbolic tensor carries a mask."""
    return getattr(tensor, "_keras_mask", None) is not None


@contextmanager
def calling(model: Any, function: Callable[..., Any]) -> Iterator[None]:
    """Let a model run another function in the place of its own ``call``, on whatever that takes."""
    attributes = vars(model)
    names = {"call": function, "_manual_input_spec": None}
    before = {name: attributes[name] for name in names if name in attributes}
    attributes.update(names)
    try:
        yield
    finally:
        for name in names:
            attributes.pop(name, None)
        attributes.update(before)
