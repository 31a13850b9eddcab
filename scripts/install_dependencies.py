"""Installs what pyproject.toml says nowgraph depends on, without building nowgraph itself; options go to pip."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def main() -> int:
    dependencies: list[str] = tomllib.loads(PROJECT.read_text())["project"]["dependencies"]
    return subprocess.run(
        [sys.executable, "-P", "-m", "pip", "install", "--quiet", *sys.argv[1:], *dependencies], check=False
    ).returncode


if __name__ == "__main__":
    raise SystemExit(main())
