"""Every block of code in the docs runs, every example in a docstring too, and every link leads somewhere."""

from __future__ import annotations

import ast
import contextlib
import doctest
import importlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUN = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = [path for path in sorted((ROOT / "src" / "keepfit").rglob("*.py")) if ">>>" in path.read_text()]
# Languages whose blocks show something and are not code of Python.
NOT_RUN = {"console", "text", "sh"}

_FENCE = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_VALUE = re.compile(r"  # -> (.*)$")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_NUMBER = re.compile(r"\d+\.\d+|\d{4}-\d\d-\d\d \d\d:\d\d")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def fences(page: Path) -> Iterator[tuple[str, str, int]]:
    """Yield language, code and number of the first line of each fence."""
    text = page.read_text()
    for found in _FENCE.finditer(text):
        yield found[1], found[2], text.count("\n", 0, found.start(2)) + 1


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of one's own, as a new user does."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_block(code: str, names: dict[str, Any], *, place: str, line: int) -> None:
    """Run a block; a line ``value  # -> text`` must give what it says."""
    tree = ast.parse(code)
    ast.increment_lineno(tree, line - 1)
    lines = ["", *[""] * (line - 1), *code.splitlines()]
    told = {node: found[1] for node in ast.walk(tree) if (found := told_value(node, lines))}
    checks = _Checks(told)
    names["__told__"] = checks.check
    exec(compile(ast.fix_missing_locations(checks.visit(tree)), place, "exec"), names)
    promised = {number for number, text in enumerate(lines) if _VALUE.search(text)}
    assert checks.checked == promised, f"{place}: values in these lines were not given: {promised - checks.checked}"


def told_value(node: ast.AST, lines: list[str]) -> re.Match[str] | None:
    return _VALUE.search(lines[node.end_lineno]) if isinstance(node, ast.Expr) and node.end_lineno else None


class _Checks(ast.NodeTransformer):
    """Pass the value of each line that tells one to a check."""

    def __init__(self, told: dict[ast.AST, str]) -> None:
        self.told = told
        self.checked: set[int] = set()

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        if node not in self.told:
            return node
        given = [node.value, ast.Constant(self.told[node]), ast.Constant(node.end_lineno)]
        call = ast.Call(ast.Name("__told__", ast.Load()), given, [])
        return ast.copy_location(ast.Expr(call), node)

    def check(self, value: object, told: str, line: int) -> None:
        assert repr(value) == told, f"line {line} gives {value!r}, the page says {told}"
        self.checked.add(line)


@pytest.mark.parametrize("page", RUN, ids=name_of)
@pytest.mark.filterwarnings("default::keepfit.errors.KeepfitWarning")
@pytest.mark.usefixtures("empty_folder")
def test_code_on_a_page_runs(page: Path) -> None:
    """The Python blocks of a page run from top to bottom in one namespace, and give the values that stand there."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for language, code, line in fences(page):
        assert language == "python" or language in NOT_RUN, f"{name_of(page)}:{line} is a block of no known language"
        if language == "python":
            with contextlib.redirect_stdout(io.StringIO()):
                run_block(code, names, place=str(page), line=line)


@pytest.mark.filterwarnings("default::keepfit.errors.KeepfitWarning")
@pytest.mark.usefixtures("empty_folder")
def test_readme_shows_what_its_first_script_prints() -> None:
    """Each ``$ python train.py`` on the first screen is followed by what the script prints, numbers left aside."""
    blocks = list(fences(ROOT / "README.md"))
    script = next(code for language, code, _ in blocks if language == "python")
    shown = next(code for language, code, _ in blocks if language == "console" and "train.py" in code)
    calls = re.split(r"^\$ python train\.py.*\n", shown, flags=re.MULTILINE)[1:]
    assert len(calls) == 2
    for expected in calls:
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(script, "train.py", "exec"), {"__name__": "__main__"})
        assert _NUMBER.sub("#", output.getvalue()).strip() == _NUMBER.sub("#", expected).strip()


@pytest.mark.parametrize("path", EXAMPLES, ids=name_of)
@pytest.mark.usefixtures("empty_folder")
def test_examples_in_docstrings_run(path: Path) -> None:
    """The examples of a module give what they say, and none of them is skipped."""
    assert "+SKIP" not in path.read_text()
    parts = path.relative_to(ROOT / "src").with_suffix("").parts
    failed, tried = doctest.testmod(importlib.import_module(".".join(parts)), raise_on_error=False)
    assert tried > 0
    assert failed == 0


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    """A link within the repository leads to a file that is there, and to a heading in it."""
    for target in _LINK.findall(page.read_text()):
        if target.startswith(("https://", "mailto:")):
            continue
        path, _, heading = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{name_of(page)} links to {target}"
        if heading:
            assert heading in headings(file), f"{name_of(page)} links to {target}"


def headings(page: Path) -> set[str]:
    """Return the anchors that a page's headings have where Markdown is shown."""
    titles = re.findall(r"^#+ (.*)$", _FENCE.sub("", page.read_text()), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_pages_have_one_sentence_per_line() -> None:
    """A line of prose ends where its sentence ends, so that a change shows as one line."""
    for page in PAGES:
        for line in _FENCE.sub("", page.read_text()).splitlines():
            if not line.startswith("|"):
                assert not re.search(r"[a-z)`*]\. [A-Z`*]", line), f"{name_of(page)}: {line}"
