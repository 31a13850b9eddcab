"""Generates the Python code of protos/: .proto -> _pb2.py, _pb2.pyi, _pb2_grpc.py, _pb2_grpc.pyi beside it.

protoc runs with protos/ as its root, as buf does, so that the wire's names are `nowgraph.v1`. Python imports the same
modules as `protos.nowgraph.v1`, so the import lines between generated modules are rewritten here, in one place.
With --check nothing is written: the committed files must be what would be generated.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
GENERATED_PATTERNS = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")
BETWEEN_MODULES = re.compile(r"^(from|import) (nowgraph\.)", re.MULTILINE)
PLAIN_USE = re.compile(r"(?<![\w.\"'/])nowgraph\.(v\d+)\.(\w+_pb2)")


def generate(output: Path) -> None:
    """Runs protoc with the mypy plugins on every .proto; raises CalledProcessError with protoc's own message."""
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    plugins = Path(sys.executable).parent
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"--proto_path={PROTOS}",
        f"--plugin=protoc-gen-mypy={plugins / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={plugins / 'protoc-gen-mypy_grpc'}",
        f"--python_out={output}",
        f"--grpc_python_out={output}",
        f"--mypy_out=quiet:{output}",
        f"--mypy_grpc_out=quiet:{output}",
        *sources,
    ]
    subprocess.run(command, check=True)
    for path in generated_files(output):
        text = path.read_text()
        if "_grpc" in path.name and "Stub" not in text:  # a file without a service has nothing to serve
            path.unlink()
            continue
        text = BETWEEN_MODULES.sub(r"\1 protos.\2", text)
        path.write_text(PLAIN_USE.sub(r"protos.nowgraph.\1.\2", text))


def generated_files(folder: Path) -> list[Path]:
    """The generated files under a folder, in a stable order."""
    return sorted({path for pattern in GENERATED_PATTERNS for path in folder.rglob(pattern)})


def contents(folder: Path) -> dict[str, str]:
    """Relative path -> text of every generated file under a folder."""
    return {str(path.relative_to(folder)): path.read_text() for path in generated_files(folder)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the committed files differ")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as name:
        output = Path(name)
        generate(output)
        wanted, present = contents(output), contents(PROTOS)
    stale = sorted(path for path in wanted.keys() | present.keys() if wanted.get(path) != present.get(path))
    if check:
        for path in stale:
            print(f"protos/{path} is not what its .proto generates: run `make protos`", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        target = PROTOS / path
        if path in wanted:
            target.write_text(wanted[path])
        else:
            target.unlink()
        print(f"protos/{path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
