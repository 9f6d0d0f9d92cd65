"""Hashes of code stand for what a program does, not for where and how it is written."""

from __future__ import annotations

import pytest

from keepfit.recipe.code import code_hash, global_names

BODY = '''
def loss(y, p):
    """Say one thing."""
    # and another
    return abs(y - p)
'''


def hash_of(module, name="loss"):
    return code_hash(module[name].__code__, module)


@pytest.mark.parametrize(
    "other",
    [
        BODY.replace("one thing", "nothing"),
        BODY.replace("    # and another\n", ""),
        BODY.replace('    """Say one thing."""\n', ""),
        "import math\n\n\n" + BODY,
        BODY.replace("abs(y - p)", "(abs( y-p ))"),
    ],
)
def test_code_hash_stays_when_only_comments_docstring_or_place_change(cell, other):
    """What does not change the program does not change its hash."""
    assert hash_of(cell(BODY)) == hash_of(cell(other))
    assert not hash_of(cell(BODY)).startswith("bytecode")


@pytest.mark.parametrize(
    "other",
    [
        BODY.replace("y - p", "p - y"),
        BODY.replace("(y, p)", "(y, p, w=None)"),
        BODY.replace("abs(y - p)", "abs(y - p) * 1.0"),
        BODY.replace("def loss", "@(lambda f: f)\ndef loss"),
    ],
)
def test_code_hash_changes_when_the_program_changes(cell, other):
    """What changes the program changes its hash."""
    assert hash_of(cell(BODY)) != hash_of(cell(other))


def test_code_hash_tells_lambdas_on_one_line_apart(cell):
    """Each of several lambdas on a line has the hash of its own text."""
    module = cell("a, b, c = (lambda x: x + 1), (lambda x: x + 2), (lambda x: x + 1)\n")
    single = cell("\nb = lambda x: x + 2\n")
    assert hash_of(module, "a") == hash_of(module, "c") != hash_of(module, "b")
    assert hash_of(module, "b") == hash_of(single, "b")
    assert not hash_of(module, "a").startswith("bytecode")


def test_code_hash_tells_a_lambda_from_the_one_inside_it(cell):
    """A lambda that gives a lambda with the same argument has a hash of its own."""
    module = cell("outer = lambda x: lambda x: x\ninner = outer(1)\n")
    alone = cell("inner = lambda x: x\n")
    assert hash_of(module, "inner") == hash_of(alone, "inner") != hash_of(module, "outer")
    assert not hash_of(module, "outer").startswith("bytecode")


def test_code_hash_reads_generators_closures_and_decorated_functions(cell):
    """Functions with a prologue of their own are found in their source."""
    module = cell(
        "import functools\n"
        "def make(scale):\n"
        "    def steps(n):\n"
        "        for i in range(n):\n"
        "            yield i * scale\n"
        "    return steps\n"
        "steps = make(2)\n"
        "@functools.wraps(make)\n"
        "def wrapped(a, /, b=1, *args, c, **more):\n"
        "    try:\n"
        "        return [a for a in args if b]\n"
        "    finally:\n"
        "        del c\n"
        "async def later(x):\n"
        "    async with x as y:\n"
        "        return await y\n"
    )
    for name in ("steps", "wrapped", "later", "make"):
        assert not hash_of(module, name).startswith("bytecode"), name


def test_code_hash_takes_bytecode_when_there_is_no_source(cell):
    """Without source a hash is there all the same, and says what it is of."""
    first, again, moved = (cell(source, keep_source=False) for source in (BODY, BODY, "\n\n" + BODY))
    assert hash_of(first).startswith("bytecode:")
    assert hash_of(first) == hash_of(again) == hash_of(moved)
    documented = cell(BODY.replace("one thing", "nothing"), keep_source=False)
    assert hash_of(documented) == hash_of(first)
    assert hash_of(cell(BODY.replace("y - p", "p - y"), keep_source=False)) != hash_of(first)
    assert hash_of(cell(BODY.replace("abs(y - p)", "abs(y - 2)"), keep_source=False)) != hash_of(first)


def test_code_hash_takes_bytecode_when_the_file_was_edited_after_the_import(tmp_path, cell):
    """Source that is not what the function was compiled from is not used."""
    path = tmp_path / "edited.py"
    path.write_text(BODY)
    module: dict = {}
    exec(compile(BODY, str(path), "exec"), module)
    path.write_text("# a new first line\n" + BODY)
    assert hash_of(module).startswith("bytecode:")


def test_global_names_include_those_of_inner_functions(cell):
    """Names read from the module are found at every depth, attributes are not among them."""
    module = cell("def f():\n    return [alpha.beta for _ in range(gamma)], lambda: delta\n")
    assert global_names(module["f"].__code__) == ("alpha", "delta", "gamma", "range")
