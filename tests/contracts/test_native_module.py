from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import temporal_graph._native


@pytest.fixture(scope="module")
def disassembly() -> str:
    """The machine code of the installed native module, as objdump prints it."""
    objdump = shutil.which("objdump")
    assert objdump is not None, "objdump is missing: install binutils"
    return subprocess.run(
        [objdump, "--disassemble", "--no-show-raw-insn", temporal_graph._native.__file__],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def test_prefetches_survive_the_compiler(disassembly: str, repository: Path) -> None:
    """gcc 12 deletes a helper that only prefetches when it does not inline it; the built module still prefetches."""
    prefetches = re.findall(r"\bprefetch(?:t0|t1|t2|nta|w)\b", disassembly)
    call = re.compile(r"^\s+prefetch(?:_write)?\(", re.MULTILINE)
    native = repository / "temporal_graph" / "native"
    calls = sum(len(call.findall(path.read_text())) for path in native.glob("*.?pp"))
    assert calls > 0
    assert len(prefetches) >= calls


def test_module_is_compiled_for_speed(disassembly: str) -> None:
    """The module uses the vector instructions of x86-64-v3: it was not built for size or for a machine of 2003."""
    if "file format elf64-x86-64" not in disassembly:
        pytest.skip("only x86-64 builds name an architecture")
    assert re.search(r"%ymm\d", disassembly)


def test_core_knows_no_python(repository: Path) -> None:
    """Only module*.cpp includes nanobind or Python, so that the core runs under the sanitizers without them."""
    native = repository / "temporal_graph" / "native"
    offenders = [
        path.name
        for path in sorted([*native.glob("*.hpp"), *native.glob("*.cpp")])
        if not path.name.startswith("module") and re.search(r"#include\s*<(nanobind|Python)", path.read_text())
    ]
    assert offenders == []
