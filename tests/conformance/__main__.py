"""Run Keras's own tests twice, with its loop and with keepfit's, and compare.

``python -m tests.conformance [--backend jax] [--sample]``: the tests are those
in the installed Keras; nothing of them is copied here. Exit status 1 where a
test passes with Keras, does not with keepfit, and is not among the exceptions.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from xml.etree import ElementTree as ET

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SUITES = (
    "trainers/trainer_test.py",
    "trainers/epoch_iterator_test.py",
    "trainers/compile_utils_test.py",
    "trainers/data_adapters",
    "callbacks",
    "models/model_test.py",
    "models/sequential_test.py",
    "models/functional_test.py",
    "distillation/distiller_test.py",
    "optimizers/optimizer_test.py",
    "optimizers/schedules/learning_rate_schedule_test.py",
    "metrics/metric_test.py",
    "layers/layer_test.py",
    "saving/saving_lib_test.py",
)
SAMPLE = (
    "callbacks/early_stopping_test.py",
    "callbacks/reduce_lr_on_plateau_test.py",
    "callbacks/lambda_callback_test.py",
)
BACKENDS = ("jax", "tensorflow", "torch")
HEADER = f"{'backend':<12} {'tests':>8} {'Keras':>8} {'keepfit':>8} {'excepted':>8} {'lost':>8} {'share':>9}"


def installed_tests() -> Path:
    """Return the folder of the installed Keras's sources, which holds its tests.

    Raises:
        SystemExit: This release carries none.
    """
    found = importlib.util.find_spec("keras")
    assert found is not None
    assert found.origin is not None
    source = Path(found.origin).parent / "src"
    if not (source / SUITES[0]).exists():
        version = importlib.metadata.version("keras")
        raise SystemExit(f"Keras {version} was released without its tests. Install one that has them, such as 3.15.1.")
    return source


def outcomes(
    backend: str, suites: tuple[str, ...], *, with_keepfit: bool, python: str = sys.executable, tests: Path
) -> dict[str, str]:
    """Return test -> ``"passed"``, ``"failed"`` or ``"skipped"``, in a process of its own.

    Args:
        backend: Keras's backend.
        suites: Files or folders in ``tests``.
        with_keepfit: Whether keepfit's loop takes the place of Keras's.
        python: The interpreter, whose Keras is tested.
        tests: Where the tests are; what tests them may be another Keras.
    """
    with tempfile.TemporaryDirectory() as place:
        source = _alone(tests, suites, Path(place) / "tests")
        report, ini = Path(place) / "report.xml", Path(place) / "pytest.ini"
        ini.write_text("[pytest]\npython_files = *_test.py\n")
        command = [python, "-m", "pytest", "-q", "-c", str(ini), "--rootdir", place, "--import-mode=importlib"]
        command += ["-p", "no:cacheprovider", "-W", "ignore", f"--junitxml={report}", f"--basetemp={place}/tmp"]
        command += ["--continue-on-collection-errors", "-p", "tests.conformance.harness"]
        command += ["-p", "tests.conformance.plugin"] if with_keepfit else []
        command += [str(path) for suite in suites if (path := source / suite).exists()]
        paths = [str(ROOT / "src"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        settings = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": os.pathsep.join(paths)}
        subprocess.run(command, env=settings, cwd=place, check=False, stdout=subprocess.DEVNULL, stderr=None)
        cases = ET.parse(report).iter("testcase")
        return {_name(case): _outcome(case) for case in cases}


def exceptions(backend: str) -> dict[str, str]:
    """Return test -> reason for those that keepfit does not pass on purpose."""
    listed = tomllib.loads((HERE / "exceptions.toml").read_text())
    return {test: reason for group in ("all", backend) for test, reason in listed.get(group, {}).items()}


def compare(
    backend: str, suites: tuple[str, ...], *, python: str = sys.executable, tests: Path | None = None
) -> tuple[str, list[str]]:
    """Return a line of the table, and what went wrong."""
    tests = tests or installed_tests()
    theirs = outcomes(backend, suites, with_keepfit=False, python=python, tests=tests)
    ours = outcomes(backend, suites, with_keepfit=True, python=python, tests=tests)
    excused = exceptions(backend)
    passed = [test for test, outcome in theirs.items() if outcome == "passed"]
    lost = [test for test in passed if ours.get(test) != "passed"]
    wrong = [test for test in lost if test.partition("[")[0] not in excused]
    kept = len(passed) - len(lost)
    counts = (len(theirs), len(passed), kept, len(lost) - len(wrong), len(wrong))
    cells = "".join(f" {count:>8}" for count in counts)
    return f"{backend:<12}{cells} {100 * kept / max(len(passed), 1):>7.1f} %", wrong


def main() -> int:
    """Print the table and the tests that were lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=BACKENDS, action="append")
    parser.add_argument("--sample", action="store_true", help="a few suites only")
    parser.add_argument("suites", nargs="*", help="files or folders under keras/src; by default all that matter")
    given = parser.parse_args()
    suites = tuple(given.suites) or (SAMPLE if given.sample else SUITES)
    print(HEADER)
    all_wrong = []
    for backend in given.backend or [name for name in BACKENDS if importlib.util.find_spec(name)]:
        line, wrong = compare(backend, suites)
        print(line, flush=True)
        for test in wrong:
            print(f"  lost: {test}", flush=True)
        all_wrong += wrong
    return 1 if all_wrong else 0


def _alone(tests: Path, suites: tuple[str, ...], place: Path) -> Path:
    """Copy tests out of their package, so that they import the Keras that is installed; return where to."""
    for suite in suites:
        given = tests / suite
        for path in [given] if given.is_file() else given.rglob("*_test.py"):
            copy = place / path.relative_to(tests)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    return place


def _name(case: ET.Element) -> str:
    # Outside of the root folder pytest gives a class no module: its file is what tells tests apart.
    return f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"


def _outcome(case: ET.Element) -> str:
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    return "skipped" if case.find("skipped") is not None else "passed"


if __name__ == "__main__":
    sys.exit(main())
