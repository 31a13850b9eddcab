from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

PACKAGES = (
    "protos",
    "stream",
    "graph_updater",
    "online_sampler",
    "model_server",
    "temporal_graph",
    "graph_transformer",
    "nowgraph",
)
NAMESPACES = ("google",)  # shared by several distributions: the second name tells them apart

# Imported only where the caller already has them: declared as an extra.
EXTRAS = {"torch-geometric"}


def normalized(name: str) -> str:
    """A distribution's name as the index spells it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def imported_modules(path: Path) -> set[str]:
    """Every absolute module name that a Python file imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    return names


def declared(repository: Path) -> set[str]:
    """The distributions that pyproject.toml depends on, the extras included."""
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    extras = [requirement for group in project["optional-dependencies"].values() for requirement in group]
    return {normalized(re.split(r"[<>=!~\[; ]", requirement)[0]) for requirement in [*project["dependencies"], *extras]}


def owners(module: str, distributions: dict[str, set[str]]) -> set[str]:
    """The distributions that provide a module's files."""
    parts = module.split(".")
    depth = 2 if parts[0] in NAMESPACES else 1
    return distributions.get(".".join(parts[:depth]), set())


def provided() -> dict[str, set[str]]:
    """Top-level module (two parts in a namespace) -> the distributions that install files of it."""
    found: dict[str, set[str]] = {}
    for distribution in importlib.metadata.distributions():
        name = normalized(distribution.metadata["Name"])
        for path in distribution.files or []:
            parts = [part.split(".")[0] for part in path.parts]
            depth = 2 if parts[0] in NAMESPACES else 1
            found.setdefault(".".join(parts[:depth]), set()).add(name)
    return found


def used(repository: Path) -> dict[str, set[str]]:
    """Third-party module -> the files of the product that import it."""
    files: dict[str, set[str]] = {}
    for package in PACKAGES:
        for path in (repository / package).rglob("*.py"):
            for module in imported_modules(path):
                if module.split(".")[0] not in {*PACKAGES, *sys.stdlib_module_names}:
                    files.setdefault(module, set()).add(str(path.relative_to(repository)))
    return files


def test_every_import_is_a_declared_dependency(repository: Path) -> None:
    """What the product imports, it depends on by name; nothing works only because something else installed it."""
    names, distributions = declared(repository), provided()
    undeclared = {
        module: sorted(files) for module, files in used(repository).items() if not owners(module, distributions) & names
    }
    assert undeclared == {}


def test_every_dependency_is_used(repository: Path) -> None:
    """No dependency is declared that the product does not import."""
    distributions = provided()
    imported = {owner for module in used(repository) for owner in owners(module, distributions)}
    assert declared(repository) - EXTRAS - imported == set()
