"""Identities of functions and classes change with code and plain values, and with nothing else."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import keras
import numpy as np

from keepfit.recipe import callable_identity, class_identity

MAKER = """
def make(alpha, label={"a", "b", "c"}):
    def loss(y, p, *, weight=0.5):
        return alpha * weight * (y - p), label
    return loss
"""


def test_callable_identity_holds_closure_and_default_values(cell):
    """A function's closure and defaults are told by name, sets in an order of their own."""
    identity = callable_identity(cell(MAKER)["make"](0.25))
    assert identity["name"] == "loss"
    assert identity["closure"] == {"alpha": 0.25, "label": ["a", "b", "c"], "weight": 0.5}


def test_callable_identity_changes_with_a_closure_value(cell):
    """Another value in the closure gives another identity of the same code."""
    make = cell(MAKER)["make"]
    one, other = callable_identity(make(0.25)), callable_identity(make(0.5))
    assert one["code"] == other["code"]
    assert one["closure"]["alpha"] != other["closure"]["alpha"]


def test_callable_identity_holds_the_module_values_it_reads(cell):
    """In a script without functions around it, a module's variable is what a closure's would be."""
    source = "alpha = 0.3\nunused = 1\ndef loss(y, p):\n    return alpha * (y - p)\n"
    assert callable_identity(cell(source)["loss"])["closure"] == {"alpha": 0.3}


def test_callable_identity_follows_own_functions_that_are_called(cell):
    """A change in a function that the loss calls is a change of the loss."""
    source = "def part(x):\n    return {}\ndef loss(y, p):\n    return part(y) + loss(p, y)\n"
    one, other = (callable_identity(cell(source.format(text))["loss"]) for text in ("x + 1", "x + 2"))
    assert one["code"] == other["code"]
    assert one["uses"]["part"]["code"] != other["uses"]["part"]["code"]
    assert "uses" not in one["uses"]["loss"]  # it calls itself


def test_callable_identity_has_no_address_in_it_whatever_the_closure_holds(cell):
    """Values that are not plain are left out."""
    make = cell("def make(a, b, c):\n    return lambda: (a, b, c, keras)\n", keras=keras)["make"]
    identity = callable_identity(make(object(), open, {"k": object()}))
    assert identity["closure"] == {"b": {"function": "io.open"}} or "closure" not in identity
    assert " at 0x" not in json.dumps(identity)


def test_callable_identity_hashes_arrays_in_the_closure(cell):
    """An array's identity is its content, shape and dtype."""
    make = cell("def make(a):\n    return lambda: a\n")["make"]
    told = [callable_identity(make(np.arange(6, dtype=kind)))["closure"]["a"] for kind in ("int32", "int32", "int64")]
    assert told[0] == told[1] != told[2]
    assert told[0]["shape"] == [6]


def test_callable_identity_of_large_arrays_reads_fixed_places(cell):
    """A large array costs no full hash, and a change at its ends is seen."""
    make = cell("def make(a):\n    return lambda: a\n")["make"]
    large = np.zeros((1000, 1000))
    before = callable_identity(make(large))
    large[-1, -1] = 1
    assert callable_identity(make(large)) != before


def test_callable_identity_keeps_only_names_for_library_functions():
    """A library's code is not hashed: its version is recorded elsewhere."""
    assert callable_identity(keras.losses.mean_squared_error) == {"name": "keras.mean_squared_error"}
    assert callable_identity(np.mean) == {"name": "numpy.mean"}
    assert callable_identity(len) == {"name": "len"}
    assert callable_identity(json.dumps) == {"name": "json.dumps"}


def test_callable_identity_unfolds_partials_methods_and_jitted_functions(cell):
    """Own code is found behind what a library wraps around it."""
    module = cell("def f(x, y=1):\n    return x\nclass C:\n    def m(self):\n        return 1\n")
    plain = callable_identity(module["f"])
    assert callable_identity(jax.jit(module["f"])) == plain
    partial = callable_identity(functools.partial(module["f"], 2, y=3))
    assert partial["of"] == plain
    assert partial["arguments"] == {"0": 2, "y": 3}
    assert "code" in callable_identity(module["C"]().m)
    assert callable_identity(module["C"]())["name"] == "C"


def test_callable_identity_reads_dataclass_settings(cell):
    """A dataclass of settings in the closure is told field by field."""

    @dataclasses.dataclass
    class Settings:
        rate: float = 0.1
        kind: str = "a"

    make = cell("def make(s):\n    return lambda: s\n")["make"]
    assert callable_identity(make(Settings()))["closure"] == {"s": {"rate": 0.1, "kind": "a"}}


CLASS = '''
class Base:
    scale = 2
    def size(self):
        return self.scale

class Mine(Base):
    """A class."""
    kinds = {"x", "y"}
    def train_step(self, data):
        return super().train_step(data)
    @property
    def width(self):
        return 3
    @staticmethod
    def half(x):
        return x / 2
'''


def test_class_identity_holds_methods_values_and_own_bases(cell):
    """A class is told by its methods' code, its plain attributes, and its own bases."""
    identity = class_identity(cell(CLASS)["Mine"])
    assert identity["name"] == "Mine"
    assert set(identity["code"]) == {"train_step", "width", "half"}
    assert identity["closure"] == {"kinds": ["x", "y"]}
    assert identity["bases"][0]["closure"] == {"scale": 2}


def test_class_identity_changes_only_with_the_program(cell):
    """Docstring and comments don't count; a method, also of a base, does."""
    one = class_identity(cell(CLASS)["Mine"])
    assert class_identity(cell("# moved\n" + CLASS.replace('    """A class."""\n', ""))["Mine"]) == one
    for old, new in (("x / 2", "x / 3"), ("self.scale", "self.scale + 1"), ("scale = 2", "scale = 4")):
        assert class_identity(cell(CLASS.replace(old, new))["Mine"]) != one


def test_class_identity_sees_a_method_that_was_replaced(cell):
    """A method put into a class later is told as it is now."""
    module = cell(CLASS + "def other(self, data):\n    return data\n")
    before = class_identity(module["Mine"])
    module["Mine"].train_step = module["other"]
    assert class_identity(module["Mine"]) != before


def test_class_identity_keeps_only_the_name_of_library_classes():
    """Keras's own classes are told by name."""
    assert class_identity(keras.layers.Dense) == {"name": "keras.Dense"}
    assert class_identity(dict) == {"name": "dict"}


def test_identities_are_the_same_in_another_process_with_another_hash_seed(tmp_path: Path):
    """No set order, address, counter or path gets into an identity."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import json, sys
            from keepfit.recipe import callable_identity, class_identity

            names = {"a", "b", "c", "d", "e"}
            def helper(x, kinds=frozenset({"u", "v", "w"})):
                return x in {"p", "q", "r", "s"}
            def make(values):
                return lambda y: helper(y) and y in values and names
            class Mine:
                def f(self):
                    return helper(self)
            made = eval(compile("lambda x: x in {'i', 'j', 'k', 'l'}", "<string>", "eval"))
            print(json.dumps([callable_identity(make({"k", "l", "m"})), class_identity(Mine), callable_identity(made)]))
            """
        )
    )
    env = os.environ
    outputs = [
        subprocess.run(
            [sys.executable, str(script)],
            env={**env, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert '"bytecode:' in outputs[0]
    assert outputs[0].count('"bytecode:') == 1
