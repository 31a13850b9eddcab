"""Makes `loadtests` importable by its path: the repository's root is never on sys.path."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

if "loadtests" not in sys.modules:
    spec = importlib.machinery.ModuleSpec("loadtests", None, is_package=True)
    spec.submodule_search_locations = [str(ROOT / "loadtests")]
    sys.modules["loadtests"] = importlib.util.module_from_spec(spec)


@pytest.fixture(scope="module")
def echo() -> Iterator[Callable[..., str]]:
    """Starts a server that echoes, and stalls once when asked to; gives its address."""
    import subprocess

    with ExitStack() as stack:

        def start(*, stall_after_s: float = 0.0, stall_s: float = 0.0, work_s: float = 0.0) -> str:
            script = Path(__file__).parent / "echo_server.py"
            process: Any = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, str(script), str(stall_after_s), str(stall_s), str(work_s)],
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(process.kill)
            return f"127.0.0.1:{int(process.stdout.readline())}"

        yield start
