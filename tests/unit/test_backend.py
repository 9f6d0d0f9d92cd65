"""Which backend Keras gets where nobody has said; each case in a process that does not find some of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[2] / "src"

# What is hidden is neither found nor imported, as where it is not installed.
HIDE = """
import importlib.abc, importlib.util, sys
hidden = {hidden!r}
class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hide())
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in hidden else found(name, *rest)
"""
CHOSEN = "import keepfit, os; print(os.environ.get('KERAS_BACKEND'))"


def python(
    home: Path, code: str, *, hidden: tuple[str, ...] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run code in a process with a home of its own."""
    given = {name: value for name, value in os.environ.items() if name not in ("KERAS_BACKEND", "KERAS_HOME")}
    return subprocess.run(
        [sys.executable, "-c", HIDE.format(hidden=hidden) + code],
        env={**given, "HOME": str(home), "PYTHONPATH": str(SRC), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(autouse=True)
def _needs_all_backends() -> None:
    """Skip where there is no choice to make."""
    for name in ("jax", "tensorflow", "torch"):
        pytest.importorskip(name)


@pytest.mark.parametrize(
    ("hidden", "chosen"),
    [((), None), (("tensorflow",), "jax"), (("tensorflow", "jax"), "torch"), (("tensorflow", "jax", "torch"), None)],
)
def test_backend_is_chosen_where_that_of_keras_is_not_installed(
    hidden: tuple[str, ...], chosen: str | None, tmp_path: Path
) -> None:
    """TensorFlow stays where it is; else JAX comes first, then PyTorch, and where there is none nothing is set."""
    assert python(tmp_path, CHOSEN, hidden=hidden).stdout.strip() == str(chosen)


def test_what_was_said_stays(tmp_path: Path) -> None:
    """The environment and Keras's config file win; what Keras writes into that file by itself is nobody's choice."""
    assert python(tmp_path, CHOSEN, hidden=("tensorflow",), KERAS_BACKEND="torch").stdout.strip() == "torch"
    config = tmp_path / ".keras" / "keras.json"
    config.parent.mkdir()
    for backend, chosen in (("torch", None), ("tensorflow", "jax")):
        config.write_text(json.dumps({"backend": backend}))
        assert python(tmp_path, CHOSEN, hidden=("tensorflow",)).stdout.strip() == str(chosen)


def test_choice_is_said_once_when_keras_is_needed(tmp_path: Path) -> None:
    """Not at the import, which reading a run needs too, and not twice."""
    ran = python(tmp_path, "import keepfit; keepfit.Run; keepfit.attach; keepfit.Run", hidden=("tensorflow",))
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("TensorFlow is not installed, so Keras uses jax. Set KERAS_BACKEND") == 1
    assert "keepfit:" not in python(tmp_path, "import keepfit", hidden=("tensorflow",)).stderr


def test_keras_that_cannot_be_imported_is_an_error_that_tells_what_to_do(tmp_path: Path) -> None:
    """Which backend it was, why, and both ways on: the order of imports and the variable."""
    ran = python(tmp_path, "import keepfit; keepfit.attach", hidden=("tensorflow", "jax", "torch"))
    assert ran.returncode == 1
    for word in (
        "backend 'tensorflow'",
        'pip install "keepfit[',
        "Then import keepfit before keras",
        "KERAS_BACKEND=jax",
    ):
        assert word in ran.stderr


def test_import_of_keras_that_failed_stands_in_nobodys_way(tmp_path: Path) -> None:
    """Keras alone fails where its default is not installed; a notebook then imports keepfit and goes on."""
    code = "\ntry:\n    import keras\nexcept ImportError as error:\n    print(error)\n"
    then = "import keepfit, keras; keepfit.attach; print(keras.backend.backend())"
    ran = python(tmp_path, code + then, hidden=("tensorflow",))
    assert ran.stdout.split("\n")[:2] == ["No module named 'tensorflow'", "jax"], ran.stderr
