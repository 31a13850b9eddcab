"""The image: a Dockerfile without a complaint, packages pinned by hash, commands that exist, a bill of materials."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "deploy" / "docker"
SCRIPTS = REPOSITORY / "scripts"
DOCKERFILE = (FOLDER / "Dockerfile").read_text(encoding="utf-8")


def tool(name: str) -> str:
    """A command of this environment."""
    found = shutil.which(name, path=str(Path(sys.executable).parent))
    assert found is not None, f"{name}: the test group of pyproject.toml has it"
    return found


def instructions() -> list[str]:
    """The Dockerfile's instructions, each on one line."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.MULTILINE)
    return [line for line in re.sub(r"\\\n\s*", " ", text).splitlines() if line.strip()]


def test_hadolint_finds_nothing() -> None:
    """The linter of Dockerfiles is silent, its exceptions are those that the file gives a reason for."""
    done = subprocess.run(
        [tool("hadolint"), str(FOLDER / "Dockerfile")], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
    for line, after in zip(DOCKERFILE.splitlines(), DOCKERFILE.splitlines()[1:], strict=False):
        assert not after.startswith("# hadolint ignore") or line.startswith("# "), "an exception needs its reason"


def test_the_image_runs_as_nobody_from_a_base_that_cannot_change() -> None:
    """The base is pinned by digest, the last user is a number other than root's, and stages use the same base."""
    lines = instructions()
    base = next(line for line in lines if line.startswith("ARG BASE="))
    assert re.search(r"@sha256:[0-9a-f]{64}$", base)
    assert {line.split()[1] for line in lines if line.startswith("FROM ")} == {"${BASE}"}
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users == ["10001:10001"]
    assert lines.index("USER 10001:10001") > max(at for at, line in enumerate(lines) if line.startswith("COPY "))


def test_the_locks_are_what_pyproject_asks_for() -> None:
    """Every dependency is in the lock in a version that is allowed, and every package has the hashes of its files."""
    done = subprocess.run(
        [sys.executable, "-P", str(SCRIPTS / "lock_image.py"), "--check"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_package_that_is_missing_or_too_old_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check of the locks can fail: for a package that is missing, one that is too old, and one without a hash."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("lock_image", SCRIPTS / "lock_image.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "lock_image", module)  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    for path in FOLDER.glob("*.lock"):
        shutil.copy(path, tmp_path)
    lock = tmp_path / "requirements.lock"
    text = re.sub(r"^numpy==\S+", "numpy==1.26.0", lock.read_text(), flags=re.MULTILINE)
    text = re.sub(r"^uvloop==(?:.*\\\n)*.*\n", "", text, flags=re.MULTILINE)
    lock.write_text(text + "orphan==1.0\n")
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    found = "\n".join(module.problems())
    assert "requirements.lock: has numpy 1.26.0" in found
    assert "requirements.lock: uvloop" in found
    assert "orphan has no hash" in found
    assert "requirements-cpu.lock: is not requirements.lock with torch's CPU build" in found


def test_what_is_copied_is_there_and_let_through() -> None:
    """.dockerignore lets through the packages of the wheel and the locks, and none of the folders with data."""
    ignore = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignore
    allowed = {line[1:] for line in ignore if line.startswith("!")}
    packages = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["scikit-build"]["wheel"]["packages"]
    assert set(packages) <= allowed
    for pattern in allowed:
        assert list(REPOSITORY.glob(pattern)), pattern
    for line in instructions():
        if line.startswith("COPY deploy"):
            assert all((REPOSITORY / word).is_file() for word in line.split()[1:-1]), line
    lock = re.search(r"ARG LOCK=(\S+)", DOCKERFILE)
    assert lock is not None
    assert (FOLDER / lock[1]).is_file()


def test_the_commands_of_the_image_exist() -> None:
    """What the image starts and checks its health with are commands that nowgraph has, with these options."""
    from typer.testing import CliRunner

    from nowgraph.cli import app

    assert 'ENTRYPOINT ["nowgraph"]' in instructions()
    words = [json.loads(line[line.index("[") :]) for line in instructions() if re.search(r"CMD \[", line)]
    assert ["nowgraph", "health", "--quiet"] in words
    for command in words:
        arguments = [word for word in command if word != "nowgraph"]
        result = CliRunner().invoke(app, [*arguments, *([] if "--help" in arguments else ["--help"])])
        assert result.exit_code == 0, result.output


@pytest.mark.parametrize("name", ["requirements-cpu.lock", "requirements.lock"])
def test_the_bill_of_materials_names_every_package(tmp_path: Path, name: str) -> None:
    """CycloneDX, valid by its own schema: the packages of either image's lock, each with version and hashes."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    target = tmp_path / "sbom.cdx.json"
    make = ["make", "--no-print-directory", "-C", str(REPOSITORY), "-n", "sbom", f"SBOM={target}"]
    if name != "requirements-cpu.lock":  # which is the default
        make.append(f"SBOM_LOCK={(FOLDER / name).relative_to(REPOSITORY)}")
    recipe = subprocess.run(make, capture_output=True, text=True, check=True, timeout=60).stdout
    command = next(line for line in recipe.splitlines() if "cyclonedx" in line)
    words = command.split()[1:]  # the interpreter of make's environment: ours has the same packages
    subprocess.run([sys.executable, *words], cwd=REPOSITORY, check=True, capture_output=True, timeout=60)
    text = target.read_text(encoding="utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    document = json.loads(text)
    assert document["metadata"]["component"]["name"] == "nowgraph"
    have = {(one["name"], one["version"]) for one in document["components"]}
    lock = (FOLDER / name).read_text(encoding="utf-8")
    assert have == set(re.findall(r"^([\w.-]+)==([^\s\\]+)", lock, flags=re.MULTILINE))
    assert all(one["externalReferences"][0]["hashes"] for one in document["components"])
