"""The global random generators of a process: take their state, and put it back.

Python's ``random``, NumPy's legacy generator, Keras's global seed generator,
and those of TensorFlow and PyTorch where these are imported. JAX has none.
"""

from __future__ import annotations

import base64
import random
import secrets
import sys
from typing import Any

import keras
import numpy as np

from keepfit import _keras

State = dict[str, Any]

# Both Mersenne Twisters hold 624 words, and mostly nothing has drawn since the last time:
# (state as the generator gives it, state as JSON).
_last_python: tuple[Any, Any] = (None, None)
_last_numpy: tuple[Any, Any] = (None, None)
_last_operations: tuple[Any, Any] = (None, None)


def take(*, untouched: bool = False) -> State:
    """Return the state of every global generator as JSON; nothing is drawn.

    TensorFlow's and PyTorch's are in it only where they are imported already.

    Args:
        untouched: Take PyTorch's also where nobody has touched it.
    """
    state: State = {"python": _take_python(), "numpy": _take_numpy(), "keras": _take_keras()}
    # Whether a library is imported yet is chance under another backend: what nobody has touched is no state.
    if _imported("tensorflow") is not None and any((found := _take_tensorflow()).values()):
        state["tensorflow"] = found
    if (torch := _imported("torch")) is not None and (untouched or not _is_untouched(torch)):
        state["torch"] = _take_torch(torch)
    return state


def restore(state: State) -> None:
    """Put back what `take` gave; generators that ``state`` does not tell of stay as they are.

    A generator of Keras that did not exist is removed, so that Keras makes it
    when it needs it, as it would have.
    """
    # Keras first: making a seed generator may draw from Python's.
    if "keras" in state:
        _restore_keras(state["keras"])
    if "tensorflow" in state and (tensorflow := _imported("tensorflow")) is not None:
        _restore_tensorflow(tensorflow, state["tensorflow"])
    if "torch" in state and (torch := _imported("torch")) is not None:
        _restore_torch(torch, state["torch"])
    if "numpy" in state:
        _restore_numpy(state["numpy"])
    if "python" in state:
        _restore_python(state["python"])


def fresh_seed() -> int:
    """Return a seed in [0, 2**31) from the operating system; no generator is drawn from."""
    return secrets.randbits(31)


def keras_seed() -> int | None:
    """Return the seed of ``keras.utils.set_random_seed`` if that was called."""
    return _keras.global_seed()


def tensorflow_variables() -> list[Any]:
    """Return TensorFlow's variables that `take` reads: those of the global generators."""
    found = []
    generator = _keras.global_seed_generator()
    if generator is not None:
        found.append(_keras.value(generator.state))
    if (generator := _tensorflow_generator()) is not None:
        found.append(generator.state)
    return found


def _imported(name: str) -> Any:
    """Return a module that is imported whole already, else None."""
    module = sys.modules.get(name)
    return module if hasattr(module, "random") else None


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text.encode("ascii"))


# --- Python ---


def _take_python() -> list[Any]:
    global _last_python
    state = random.getstate()
    last, told = _last_python
    if state != last:
        version, words, following = state
        told = [version, _text(np.array(words, dtype="<u4").tobytes()), following]
        _last_python = (state, told)
    return list(told)


def _restore_python(state: list[Any]) -> None:
    version, words, following = state
    random.setstate((version, tuple(np.frombuffer(_bytes(words), dtype="<u4").tolist()), following))


# --- NumPy ---


def _take_numpy() -> State:
    global _last_numpy
    state: Any = np.random.get_state(legacy=False)
    key = state["state"].get("key")
    if key is None:  # another bit generator than the Mersenne Twister: a few integers
        return {**state, "state": dict(state["state"])}
    words = key.tobytes()
    last, text = _last_numpy
    if words != last:
        text = _text(key.astype("<u4").tobytes())
        _last_numpy = (words, text)
    return {**state, "state": {**state["state"], "key": text}}


def _restore_numpy(state: State) -> None:
    name = state["bit_generator"]
    if np.random.get_state(legacy=False)["bit_generator"] != name:
        getattr(np.random, "set_bit_generator")(getattr(np.random, name)())  # noqa: B009 - NumPy's stubs lack it
    inner = dict(state["state"])
    if "key" in inner:
        inner["key"] = np.frombuffer(_bytes(inner["key"]), dtype="<u4").astype(np.uint32)
    np.random.set_state({**state, "state": inner})


# --- Keras ---


def _take_keras() -> State:
    generator = _keras.global_seed_generator()
    words = None if generator is None else keras.ops.convert_to_numpy(generator.state).tolist()
    return {"seed": _keras.global_seed(), "generator": words}


def _restore_keras(state: State) -> None:
    _keras.set_global_seed(state["seed"])
    words = state["generator"]
    if words is None:
        _keras.set_global_seed_generator(None)
        return
    generator = _keras.global_seed_generator()
    if generator is None:
        # A seed and a name of its own, so that neither is taken from a global counter.
        make: Any = keras.random.SeedGenerator
        generator = make(seed=0, name="global_seed_generator")
        _keras.set_global_seed_generator(generator)
    generator.state.assign(np.array(words, dtype=generator.state.dtype))


# --- TensorFlow ---


def _tensorflow_generator() -> Any:
    """Return the global generator, or None where nobody has asked for it: TensorFlow would seed it by chance."""
    module = sys.modules.get("tensorflow.python.ops.stateful_random_ops")
    return getattr(module, "global_generator", None)


def _take_tensorflow() -> State:
    state: State = {"operations": _take_operation_seeds()}
    if (generator := _tensorflow_generator()) is not None:
        state["algorithm"] = int(generator.algorithm)
        state["words"] = [int(word) for word in generator.state.numpy()]
    return state


def _restore_tensorflow(tensorflow: Any, state: State) -> None:
    _restore_operation_seeds(state["operations"])
    if "words" not in state:
        return
    generator = tensorflow.random.get_global_generator()
    if int(generator.algorithm) == state["algorithm"]:
        generator.reset(state["words"])  # the same object: compiled functions hold on to it
    else:
        generator = tensorflow.random.Generator.from_state(state=state["words"], alg=state["algorithm"])
        tensorflow.random.set_global_generator(generator)


def _operation_context() -> Any:
    """Return what draws the seeds of TensorFlow's stateful operations (``tf.random.uniform``), where there is one."""
    module = sys.modules.get("tensorflow.python.eager.context")
    context = module.context() if module is not None else None
    return context if isinstance(getattr(context, "_rng", None), random.Random) else None


def _take_operation_seeds() -> list[Any] | None:
    context = _operation_context()
    # Without a seed they come from the operating system, whatever the generator is at.
    if context is None or context._seed is None:
        return None
    global _last_operations
    state = context._rng.getstate()
    last, told = _last_operations
    if state != last:
        version, words, following = state
        told = [version, _text(np.array(words, dtype="<u4").tobytes()), following]
        _last_operations = (state, told)
    return [context._seed, *told]


def _restore_operation_seeds(state: list[Any] | None) -> None:
    context = _operation_context()
    if state is None or context is None:
        return
    seed, version, words, following = state
    context._seed = seed
    context._rng.setstate((version, tuple(np.frombuffer(_bytes(words), dtype="<u4").tolist()), following))


# --- PyTorch ---


def _is_untouched(torch: Any) -> bool:
    """Return whether PyTorch, under another backend, has its generator as every process begins with it."""
    if keras.backend.backend() == "torch":
        return False
    fresh, now = torch.Generator().get_state(), torch.get_rng_state()
    return bool(fresh.numpy().tobytes() == now.numpy().tobytes())


def _take_torch(torch: Any) -> State:
    state: State = {"cpu": _text(torch.get_rng_state().numpy().tobytes())}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = [_text(each.numpy().tobytes()) for each in torch.cuda.get_rng_state_all()]
    return state


def _restore_torch(torch: Any, state: State) -> None:
    def tensor(text: str) -> Any:
        return torch.frombuffer(bytearray(_bytes(text)), dtype=torch.uint8)

    torch.set_rng_state(tensor(state["cpu"]))
    if "cuda" in state and torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([tensor(each) for each in state["cuda"]])
