"""Generates temporal_graph/_native.pyi from a built module: _native.so -> nanobind's stubgen -> _native.pyi.

The folder is where the module was built or installed. With --check nothing is written: the committed stub must be
what the module says of itself.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

STUB = Path(__file__).resolve().parent.parent / "temporal_graph" / "_native.pyi"


def generate(folder: Path) -> str:
    """The stub of the module in a folder; the module is imported alone, without the package around it."""
    with tempfile.TemporaryDirectory() as name:
        output = Path(name) / "_native.pyi"
        command = [sys.executable, "-P", "-m", "nanobind.stubgen", "-q", "-i", str(folder), "-m", "_native"]
        subprocess.run([*command, "-o", str(output)], check=True)
        return output.read_text()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the folder that holds _native.*.so")
    parser.add_argument("--check", action="store_true", help="fail if the committed stub differs")
    arguments = parser.parse_args()
    if not list(arguments.folder.glob("_native.*.so")):
        parser.error(f"{arguments.folder} holds no _native.*.so")
    text = generate(arguments.folder)
    if STUB.exists() and STUB.read_text() == text:
        return 0
    if arguments.check:
        print("temporal_graph/_native.pyi is not what the module says: run `make develop`", file=sys.stderr)
        return 1
    STUB.write_text(text)
    print("temporal_graph/_native.pyi")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
