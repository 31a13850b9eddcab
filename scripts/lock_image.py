"""Pins what goes into the container image: every package with its version and the hashes of its files.

pyproject.toml ─► uv ─► requirements.lock (torch with CUDA) ─► requirements-cpu.lock; its group `build` ─► build.lock

`--check` does not resolve: it says whether the locks still are what pyproject.toml asks for, without the network.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER = REPOSITORY / "deploy" / "docker"
PYTHON = "3.11"
PLATFORM = "x86_64-manylinux_2_28"
# pyg trains other people's models; a server needs none of it.
LEFT_OUT_EXTRAS = {"pyg"}
# The figures of this repository are measured with it.
TORCH = "2.13.0"
# The files of its CPU build for Python 3.11, x86-64 and arm64, as the project's own index lists them.
TORCH_CPU_HASHES = (
    "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",
    "84453b69508ec79902f899c5ed9495acb9e2bbe9fda5f1d5d6f19e3c3842e1a7",
)
# What torch needs for a GPU, and its CPU build does not ask for.
CUDA = re.compile(r"^(nvidia-|cuda-|triton$)")
ENTRY = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s\\]+)(?P<rest>[^\\\n]*(?:\\\n[^\\\n]*)*)$", re.MULTILINE
)
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
HEADER = "# Made by scripts/lock_image.py (make lock). {what}\n"


@dataclass(frozen=True)
class Locked:
    """One package of a lock: its version, and the hashes that its file may have."""

    name: str
    version: str
    hashes: tuple[str, ...]

    def text(self) -> str:
        """As it stands in the lock."""
        return (
            " \\\n".join([f"{self.name}=={self.version}", *(f"    --hash=sha256:{one}" for one in self.hashes)]) + "\n"
        )


def read_lock(path: Path) -> dict[str, Locked]:
    """The packages of a lock by canonical name."""
    entries = ENTRY.finditer(path.read_text(encoding="utf-8"))
    found = [Locked(one["name"], one["version"], tuple(HASH.findall(one["rest"]))) for one in entries]
    return {canonicalize_name(one.name): one for one in found}


def requirements(*, build: bool) -> list[Requirement]:
    """What the image asks for: the product with its extras, or what builds its wheel."""
    pyproject = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    if build:
        return [Requirement(text) for text in pyproject["dependency-groups"]["build"]]
    project = pyproject["project"]
    extras = [
        text
        for name, group in project["optional-dependencies"].items()
        if name not in LEFT_OUT_EXTRAS
        for text in group
    ]
    return [Requirement(text) for text in [*project["dependencies"], *extras]]


def for_cpu(locked: Iterable[Locked]) -> list[Locked]:
    """The same packages with torch's CPU build, without what only its CUDA build needs."""
    kept = [one for one in locked if not CUDA.match(one.name)]
    return [Locked("torch", f"{TORCH}+cpu", TORCH_CPU_HASHES) if one.name == "torch" else one for one in kept]


def resolve(wanted: Iterable[Requirement], output: Path, *, upgrade: bool) -> None:
    """Asks the package index for versions that go together, and writes them with the hashes of all their files.

    What the output pins already stays, unless everything is to be upgraded.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "requirements.in"
        source.write_text("".join(f"{one}\n" for one in wanted), encoding="utf-8")
        command = [sys.executable, "-m", "uv", "pip", "compile", str(source), "--output-file", str(output)]
        command += ["--generate-hashes", "--python-version", PYTHON, "--python-platform", PLATFORM, "--no-config"]
        command += [
            "--only-binary",
            ":all:",
            "--no-header",
            "--no-annotate",
            "--quiet",
            *(["--upgrade"] if upgrade else []),
        ]
        subprocess.run(command, check=True)


def write(path: Path, what: str, locked: Iterable[Locked]) -> None:
    """Writes a lock, packages by name."""
    text = "".join(one.text() for one in sorted(locked, key=lambda one: canonicalize_name(one.name)))
    path.write_text(HEADER.format(what=what) + text, encoding="utf-8")


def lock(*, upgrade: bool) -> None:
    """Resolves and writes the three locks."""
    full = FOLDER / "requirements.lock"
    resolve([*requirements(build=False), Requirement(f"torch=={TORCH}")], full, upgrade=upgrade)
    packages = read_lock(full)
    write(full, f"Python {PYTHON}, torch with CUDA.", packages.values())
    write(FOLDER / "requirements-cpu.lock", f"Python {PYTHON}, torch for CPUs.", for_cpu(packages.values()))
    builds = FOLDER / "build.lock"
    resolve(requirements(build=True), builds, upgrade=upgrade)
    write(builds, "What builds the wheel.", read_lock(builds).values())


def problems() -> list[str]:
    """What keeps the locks from being what pyproject.toml asks for; empty when nothing does."""
    found = []
    for name, build in (("requirements.lock", False), ("requirements-cpu.lock", False), ("build.lock", True)):
        packages = read_lock(FOLDER / name)
        for wanted in requirements(build=build):
            if wanted.marker is not None and not wanted.marker.evaluate({"python_version": PYTHON}):
                continue
            have = packages.get(canonicalize_name(wanted.name))
            if have is None:
                found.append(f"{name}: {wanted} is missing")
            elif not wanted.specifier.contains(Version(have.version).public):
                found.append(f"{name}: has {have.name} {have.version}, and pyproject.toml asks for {wanted}")
        found += [f"{name}: {one.name} has no hash" for one in packages.values() if not one.hashes]
    full, cpu = (read_lock(FOLDER / name) for name in ("requirements.lock", "requirements-cpu.lock"))
    if cpu != {canonicalize_name(one.name): one for one in for_cpu(full.values())}:
        found.append("requirements-cpu.lock: is not requirements.lock with torch's CPU build")
    return found


def main() -> int:
    """Locks anew, or checks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions, not those that are pinned")
    arguments = parser.parse_args()
    if not arguments.check:
        lock(upgrade=arguments.upgrade)
    found = problems()
    for line in found:
        print(line, file=sys.stderr)
    if found:
        print("mend it with: make lock", file=sys.stderr)
    return bool(found)


if __name__ == "__main__":
    raise SystemExit(main())
