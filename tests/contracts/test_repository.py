from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PACKAGES = (
    "stream",
    "graph_updater",
    "online_sampler",
    "model_server",
    "temporal_graph",
    "graph_transformer",
    "nowgraph",
)
FOLDERS = tuple(f"{package}/" for package in PACKAGES)
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70

# Files that may be longer, and how long they are: the number may only fall.
LONGER_FILES: dict[str, int] = {}

# Functions that may be longer than a screen, and how long they are: the number may only fall.
LONGER_FUNCTIONS: dict[str, int] = {}

# Modules without a mirror test, and why.
WITHOUT_MIRROR: dict[str, str] = {}

# Joined here, so that this file does not contain what it forbids.
FORBIDDEN_WORDS = (
    "/" + "work/",
    "shared" + "/data",
    "shared" + "/research",
    "shared" + "/prototype",
    "pypi" + ".org",
    "/opt/" + "wheels",
)

# Where a forbidden word is right, and why.
ALLOWED_WORDS = {
    ".ci/run": "CI's machine may have real data beside the clone; the script is the only place that knows where",
}

GENERATED = re.compile(r"_pb2(_grpc)?\.pyi?$|/_native\.pyi$|\.binpb$")


@pytest.fixture(scope="module")
def tracked(repository: Path) -> list[str]:
    """The committed files that exist, relative to the root."""
    output = subprocess.run(
        ["git", "-C", str(repository), "ls-files"], check=True, capture_output=True, text=True
    ).stdout
    return [path for path in output.splitlines() if (repository / path).is_file()]


def functions_of(path: Path) -> list[tuple[str, int]]:
    """Each function of a Python file with its length in lines, decorators not counted."""
    tree = ast.parse(path.read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [(node.name, (node.end_lineno or 0) - node.lineno + 1) for node in ast.walk(tree) if isinstance(node, kinds)]


def test_files_are_read_in_one_sitting(repository: Path, tracked: list[str]) -> None:
    """No source file has more than 400 lines, except those listed, which may only get shorter."""
    suffixes = (".py", ".cpp", ".hpp", ".proto", ".sh", ".md")
    lengths = {
        path: len((repository / path).read_text().splitlines())
        for path in tracked
        if path.endswith(suffixes) and not GENERATED.search(path)
    }
    too_long = {path: count for path, count in lengths.items() if count > LONGER_FILES.get(path, FILE_LINES_MAX)}
    assert too_long == {}
    slack = {path: lengths.get(path, 0) for path, count in LONGER_FILES.items() if lengths.get(path, 0) < count}
    assert slack == {}, "shorter than the list says: lower the list"


def test_functions_fit_on_a_screen(repository: Path, tracked: list[str]) -> None:
    """No Python function of the product has more than 70 lines, except those listed, which may only get shorter."""
    lengths = {
        f"{path}:{name}": count
        for path in tracked
        if path.endswith(".py") and path.startswith(FOLDERS) and not GENERATED.search(path)
        for name, count in functions_of(repository / path)
    }
    too_long = {
        name: count for name, count in lengths.items() if count > LONGER_FUNCTIONS.get(name, FUNCTION_LINES_MAX)
    }
    assert too_long == {}
    slack = {name: lengths.get(name, 0) for name, count in LONGER_FUNCTIONS.items() if lengths.get(name, 0) < count}
    assert slack == {}, "shorter than the list says: lower the list"


def test_every_test_states_its_promise(repository: Path, tracked: list[str]) -> None:
    """Every test function has a docstring: the promise that it checks."""
    tests = [path for path in tracked if path.startswith("tests/") and path.rpartition("/")[2].startswith("test_")]
    silent = [
        f"{path}:{node.name}"
        for path in tests
        if path.endswith(".py")
        for node in ast.walk(ast.parse((repository / path).read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert tests
    assert silent == []


def test_every_module_has_its_mirror_test(tracked: list[str]) -> None:
    """package/folder/module.py is tested by tests/package/folder/test_module.py; exceptions say why."""
    modules = [path for path in tracked if path.startswith(FOLDERS) and path.endswith(".py") and "__init__" not in path]
    missing = []
    for path in modules:
        folder, _, name = path.rpartition("/")
        if f"tests/{folder}/test_{name}" not in tracked and path not in WITHOUT_MIRROR:
            missing.append(path)
    assert modules
    assert missing == []


def test_exceptions_are_still_needed(tracked: list[str]) -> None:
    """A module that got its mirror test, or is gone, leaves the list of exceptions."""
    stale = [
        path
        for path in WITHOUT_MIRROR
        if path not in tracked or f"tests/{path.rpartition('/')[0]}/test_{path.rpartition('/')[2]}" in tracked
    ]
    assert stale == []


def test_tests_are_not_packages(tracked: list[str]) -> None:
    """No __init__.py under tests/: tests/stream would otherwise be importable as `stream`."""
    assert [path for path in tracked if path.startswith("tests/") and path.endswith("__init__.py")] == []


def test_nothing_names_a_workplace(repository: Path, tracked: list[str]) -> None:
    """No committed file contains a path of somebody's machine or the host of a package registry."""
    found = []
    for path in tracked:
        if path in ALLOWED_WORDS:
            continue
        text = (repository / path).read_bytes().decode("utf-8", errors="replace")
        found += [(path, word) for word in FORBIDDEN_WORDS if word in text]
    assert found == []


def test_documented_commands_exist(repository: Path) -> None:
    """Every `make` target that a document names is in the Makefile, and every command of the README is one of ours."""
    targets = set(re.findall(r"^([a-z][a-z-]*):", (repository / "Makefile").read_text(), re.MULTILINE))
    documents = [repository / name for name in ("README.md", "CONTRIBUTING.md")] + sorted(
        (repository / "docs").rglob("*.md")
    )
    named = {word for path in documents for word in re.findall(r"\bmake ([a-z][a-z-]*)\b(?=[`\s])", commands(path))}
    assert {"demo", "test"} <= named
    assert named <= targets
    used = set(re.findall(r"\bnowgraph ([a-z][a-z-]+)\b", commands(repository / "README.md")))
    output = subprocess.run(
        [sys.executable, "-P", "-m", "nowgraph.cli", "--help"], check=True, capture_output=True, text=True
    ).stdout
    assert [word for word in sorted(used) if not re.search(rf"\b{re.escape(word)}\b", output)] == []


def commands(path: Path) -> str:
    """What a document sets as code, inline or in blocks, comments left out."""
    text = path.read_text()
    blocks = re.findall(r"```(?:bash|sh|console)\n(.*?)```", text, re.DOTALL)
    outside = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    spans = re.findall(r"`[^`\n]+`", outside)
    return "\n".join([re.sub(r"#.*", "", block) for block in blocks] + spans)


def test_one_version(repository: Path) -> None:
    """pyproject.toml, the installed distribution and the newest entry of the changelog say the same version."""
    version = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["version"]
    assert importlib.metadata.version("nowgraph") == version
    entries = re.findall(r"^## \[?(\d+\.\d+\.\d+)", (repository / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert entries[0] == version


def test_links_of_the_documents_lead_somewhere(repository: Path) -> None:
    """Every relative link of a document points to a file of the repository."""
    dead = []
    for path in [*repository.glob("*.md"), *(repository / "docs").rglob("*.md")]:
        text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if "://" not in target and not (path.parent / target).exists():
                dead.append((path.name, target))
    assert dead == []
