"""`nowgraph serve` before it serves: it waits for what it needs, and a stop ends it cleanly at every step."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration


@pytest.fixture
def unread_checkpoint(example: Path, tmp_path: Path) -> Path:
    """A checkpoint's folder of which a start reads the schema before it comes to the model, which is not there."""
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copy(example / "schema.yaml", folder)
    return folder


@contextmanager
def starting(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A server that starts, with patience; killed where the test leaves it running."""
    patience = {"NOWGRAPH_BROKER_TIMEOUT_S": "0.5", "NOWGRAPH_SERVER_ATTACH_TIMEOUT_S": "300"}
    command = [sys.executable, "-m", "nowgraph.cli", "--log-level", "info", "serve", "--port", "0",
               "--metrics-port", "0", *map(str, arguments)]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **patience}
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until_said(process: subprocess.Popen[str], words: str) -> None:
    """Returns once a line of the log has the words."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if words in line:
            return
    raise AssertionError("".join(said))


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code and the rest of its log."""
    _, err = process.communicate(timeout=60)
    return process.returncode, err


def until_it_listens_to_signals(process: subprocess.Popen[str]) -> None:
    """Returns once it has a handler for SIGTERM."""
    deadline_s = time.monotonic() + 60
    while True:
        assert process.poll() is None, process.communicate()
        status = Path(f"/proc/{process.pid}/status").read_text()
        (caught,) = (int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt:"))
        if caught >> (signal.SIGTERM - 1) & 1:
            return
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.faults)])
def test_a_stop_before_there_is_a_graph_ends_it(unread_checkpoint: Path, tmp_path: Path, workers: int) -> None:
    """Beside an updater that has published nothing yet: exit code 0, and all workers end with it."""
    with starting("--checkpoint", unread_checkpoint, "--arena", tmp_path / "arena", "--workers", workers) as process:
        until_said(process, "waiting_for_graph")
        process.send_signal(signal.SIGTERM)
        code, err = ended(process)
    assert code == 0, err
    assert "Traceback" not in err


@pytest.mark.parametrize("beside", [True, False], ids=["beside an updater", "one process"])
def test_a_stop_while_libraries_are_loaded_ends_it(unread_checkpoint: Path, tmp_path: Path, beside: bool) -> None:
    """From the command's first step on: exit code 0, no traceback."""
    more = ("--arena", tmp_path / "arena") if beside else ("--bootstrap-servers", "127.0.0.1:1")
    with starting("--checkpoint", unread_checkpoint, *more) as process:
        until_it_listens_to_signals(process)
        process.send_signal(signal.SIGTERM)
        code, err = ended(process)
    assert code == 0, err
    assert "Traceback" not in err


@pytest.mark.faults
def test_one_process_waits_for_its_broker_until_it_is_told_to_stop(unread_checkpoint: Path) -> None:
    """It says that it waits; a stop ends it with exit code 0, before it comes to its model."""
    with starting("--checkpoint", unread_checkpoint, "--bootstrap-servers", "127.0.0.1:1") as process:
        until_said(process, "waiting_for_kafka")
        process.send_signal(signal.SIGTERM)
        code, err = ended(process)
    assert code == 0, err
    assert "Traceback" not in err
