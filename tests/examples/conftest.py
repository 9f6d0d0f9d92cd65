"""Examples are run as a user runs them: as scripts, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PATIENCE_S = 100


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start an example, its standard output a pipe and its errors a file ``errors.log``."""
    children: list[subprocess.Popen[str]] = []

    def started(name: str, *arguments: object) -> subprocess.Popen[str]:
        # A cache of the test's own: the second process of an example compiles little.
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "KEEPFIT_CACHE": str(tmp_path / "cache")}
        with (tmp_path / "errors.log").open("a") as errors:
            child = subprocess.Popen(
                [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, arguments)],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=tmp_path,
                env=environment,
            )
        children.append(child)
        return child

    yield started
    for child in children:
        if child.poll() is None:
            child.kill()
            child.communicate()


@pytest.fixture
def run(start: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> Callable[..., list[str]]:
    """Run an example to its end and return the lines of its output."""

    def ran(name: str, *arguments: object) -> list[str]:
        process = start(name, *arguments)
        output, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, (tmp_path / "errors.log").read_text()
        return output.splitlines()

    return ran
