"""Examples are run as a user runs them: as scripts, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PATIENCE_S = 100


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start an example, its standard output a pipe and its errors a file ``errors.log``."""

    def started(name: str, *arguments: object) -> subprocess.Popen[str]:
        # A cache that the tests share among themselves only: the second process of an example compiles nothing.
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "KEEPFIT_CACHE": str(tmp_path / "cache")}
        with (tmp_path / "errors.log").open("a") as errors:
            return subprocess.Popen(
                [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, arguments)],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=tmp_path,
                env=environment,
            )

    return started


@pytest.fixture
def run(start: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> Callable[..., list[str]]:
    """Run an example to its end and return the lines of its output."""

    def ran(name: str, *arguments: object) -> list[str]:
        process = start(name, *arguments)
        output, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, (tmp_path / "errors.log").read_text()
        return output.splitlines()

    return ran
