from __future__ import annotations

import importlib
import importlib.metadata
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

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


def installed_files() -> set[str]:
    """The paths, relative to site-packages, that the installed distribution says it owns."""
    files = importlib.metadata.files("nowgraph")
    assert files is not None
    return {str(path) for path in files}


@pytest.mark.parametrize("package", PACKAGES)
def test_tests_run_on_the_installed_wheel(package: str, repository: Path) -> None:
    """Every package that a test imports is the one in site-packages, never the folder of the repository."""
    module = importlib.import_module(package)
    assert module.__file__ is not None
    path = Path(module.__file__).resolve()
    assert path.is_relative_to(Path(sysconfig.get_path("purelib")).resolve())
    assert str(repository) not in sys.path
    assert f"{package}/__init__.py" in installed_files()


@pytest.mark.parametrize("package", PACKAGES)
def test_one_distribution_owns_each_top_level_name(package: str) -> None:
    """No other installed distribution provides our top-level names: it would overwrite our files without a word."""
    owners = importlib.metadata.packages_distributions()[package]
    assert set(owners) == {"nowgraph"}


def test_wheel_packages_are_the_ones_listed(repository: Path) -> None:
    """What pyproject.toml lists by hand, what the wheel holds and what this test checks are the same eight names."""
    project = tomllib.loads((repository / "pyproject.toml").read_text())
    assert tuple(project["tool"]["scikit-build"]["wheel"]["packages"]) == PACKAGES
    names = {path.split("/")[0] for path in installed_files() if "/" in path and not path.startswith("..")}
    assert {name for name in names if not name.endswith(".dist-info")} == set(PACKAGES)


def test_wheel_holds_every_committed_module(repository: Path) -> None:
    """Every committed Python file, stub and data file of a package is in the wheel, so that no ignored one vanished."""
    tracked = subprocess.run(
        ["git", "-C", str(repository), "ls-files", *PACKAGES], check=True, capture_output=True, text=True
    ).stdout.split()
    left_out = ("temporal_graph/native/", "protos/baseline.binpb")
    wanted: set[str] = set()
    for name in tracked:
        path = repository / name
        if path.is_dir():  # a link to a folder: the wheel holds what is behind it
            wanted |= {str(file.relative_to(repository)) for file in path.rglob("*.*") if file.suffix != ".pyc"}
        elif path.exists() and not name.startswith(left_out):
            wanted.add(name)
    assert wanted
    assert wanted - installed_files() == set()


def test_wheel_holds_generated_files() -> None:
    """The generated protobuf code, the native module and its stub, and the typing markers are in the wheel."""
    files = installed_files()
    for name in ("row_event_pb2", "prediction_service_pb2", "prediction_service_pb2_grpc"):
        assert f"protos/nowgraph/v1/{name}.py" in files
        assert f"protos/nowgraph/v1/{name}.pyi" in files
    assert "temporal_graph/_native.pyi" in files
    assert any(path.startswith("temporal_graph/_native.") and path.endswith(".so") for path in files)
    assert {f"{package}/py.typed" for package in PACKAGES} <= files


def test_wheel_leaves_the_build_behind() -> None:
    """No C++ source, no build folder and no cache is installed."""
    sources = (".cpp", ".hpp", ".h", ".o", ".a")
    leftovers = [path for path in installed_files() if path.endswith(sources) or path.startswith("build")]
    assert leftovers == []


def test_import_does_nothing_heavy() -> None:
    """Importing the packages below the model loads neither torch nor grpc nor the plotting library."""
    code = (
        "import sys, temporal_graph, online_sampler, graph_updater, stream, nowgraph;"
        "print([name for name in ('torch', 'grpc', 'matplotlib') if name in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True).stdout
    assert output.strip() == "[]"
