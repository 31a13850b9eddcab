from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Sequence
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

# Compared with in benchmarks where they happen to be installed; never needed.
COMPARED = {"pyg_lib", "diskgraph", "kumo_engine"}

# Imported only where the caller already has them: declared as an extra.
EXTRAS = {"torch-geometric"}
THROUGH_OTHERS = {"tensorboard"}
"""What another dependency imports for us: torch.utils.tensorboard."""


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


def declared_for_development(repository: Path) -> set[str]:
    """The distributions that the dependency groups name."""
    groups = tomllib.loads((repository / "pyproject.toml").read_text())["dependency-groups"]
    requirements = [entry for group in groups.values() for entry in group if isinstance(entry, str)]
    return {normalized(re.split(r"[<>=!~\[; ]", requirement)[0]) for requirement in requirements}


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


def used(repository: Path, folders: Sequence[str]) -> dict[str, set[str]]:
    """Third-party module -> the files of the folders that import it."""
    files: dict[str, set[str]] = {}
    ours = {*PACKAGES, "loadtests", *sys.stdlib_module_names}
    for folder in folders:
        for path in (repository / folder).rglob("*.py"):
            siblings = {sibling.stem for sibling in path.parent.glob("*.py")}  # a script's own folder
            for module in imported_modules(path):
                if module.split(".")[0] not in ours | siblings:
                    files.setdefault(module, set()).add(str(path.relative_to(repository)))
    return files


def test_every_import_is_a_declared_dependency(repository: Path) -> None:
    """What the product imports, it depends on by name; nothing works only because something else installed it."""
    names, distributions = declared(repository), provided()
    undeclared = {
        module: sorted(files)
        for module, files in used(repository, PACKAGES).items()
        if not owners(module, distributions) & names
    }
    assert undeclared == {}


def test_every_import_of_the_tests_is_declared(repository: Path) -> None:
    """What tests, scripts and benchmarks import is a dependency of the product or of its development."""
    names = declared(repository) | declared_for_development(repository)
    distributions = provided()
    modules = used(repository, ("tests", "scripts", "loadtests"))
    undeclared = {
        module: sorted(files)
        for module, files in modules.items()
        if module.split(".")[0] not in COMPARED and not owners(module, distributions) & names
    }
    assert modules
    assert undeclared == {}


def test_every_dependency_is_used(repository: Path) -> None:
    """No dependency is declared that the product does not import."""
    distributions = provided()
    imported = {owner for module in used(repository, PACKAGES) for owner in owners(module, distributions)}
    assert declared(repository) - EXTRAS - THROUGH_OTHERS - imported == set()
