"""What the image promises of its processes: a root file system that cannot be written, no rights, /arena and /tmp."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nowgraph.client import Client

START_TIMEOUT_S = 60
# In a mount namespace of its own: the two folders stay writable, the rest of the root does not; then no capability.
CONFINED = """
set -e
mount --bind "$1" "$1"; mount --bind "$2" "$2"; mount -o remount,bind,ro /
shift 2
exec setpriv --no-new-privs --inh-caps=-all --bounding-set=-all -- "$@"
"""


def confined(arena: Path, scratch: Path, *command: str) -> list[str]:
    """The command as a container would run it; needs root, and the right to make a namespace."""
    return ["unshare", "--mount", "--propagation", "private", "bash", "-c", CONFINED, "confined",
            str(arena), str(scratch), *command]  # fmt: skip


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """arena and tmp; skips where this machine does not let us make a namespace."""
    if shutil.which("unshare") is None or shutil.which("setpriv") is None:
        pytest.skip("unshare and setpriv (util-linux) are not installed")
    arena, scratch = tmp_path / "arena", tmp_path / "tmp"
    arena.mkdir()
    scratch.mkdir()
    outside = tmp_path / "outside"
    tried = confined(arena, scratch, "bash", "-c", f"touch {arena}/x {scratch}/x && rm {arena}/x && ! touch {outside}")
    done = subprocess.run(tried, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode != 0 and not outside.exists():
        pytest.skip(f"no mount namespace here: {done.stderr.strip()[-200:]}")
    assert not outside.exists(), "the root can be written: this test would show nothing"
    return arena, scratch


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextmanager
def running(folders: tuple[Path, Path], secret: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """nowgraph with the image's environment, until the block ends; then SIGTERM, and it must end well."""
    arena, scratch = folders
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(scratch), "TMPDIR": str(scratch), "XDG_CACHE_HOME": str(scratch),
        "MPLCONFIGDIR": str(scratch), "PYTHONDONTWRITEBYTECODE": "1", "NOWGRAPH_PRIVACY_SECRET": secret,
        "NOWGRAPH_LOG_LEVEL": "info", "OMP_NUM_THREADS": "1",
        **({"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}),
    }  # fmt: skip
    command = [sys.executable, "-P", "-m", "nowgraph.cli", *map(str, arguments)]
    process = subprocess.Popen(
        confined(arena, scratch, *command), stderr=subprocess.PIPE, text=True, env=environment, cwd="/"
    )
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 0, said
        assert "Read-only file system" not in said
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def wait_until_well(process: subprocess.Popen[str], *words: str) -> None:
    """Returns once `nowgraph health` says so."""
    until_s = time.monotonic() + START_TIMEOUT_S
    command = [sys.executable, "-P", "-m", "nowgraph.cli", "health", "--quiet", *words]
    while subprocess.run(command, check=False, timeout=30).returncode != 0:
        if process.poll() is not None or time.monotonic() > until_s:
            process.kill()
            pytest.fail(f"{words} never became well: {process.communicate()[1][-3000:]}")
        time.sleep(0.3)


def test_updater_and_server_write_nothing_but_the_arena_and_tmp(
    folders: tuple[Path, Path], world: Any, served_checkpoints: Callable[[str], Path], tmp_path: Path
) -> None:
    """Both start, answer and stop with a root that cannot be written and no capability, as they do in the image."""
    arena, _ = folders
    model = tmp_path / "model"
    shutil.copytree(served_checkpoints("fraud"), model)
    (model / "schema.yaml").write_text(world.schema_text)
    port, metrics, updater_metrics = free_ports(3)
    update = ("update", "--schema", model / "schema.yaml", "--arena", arena, "--arena-bytes", 64 << 20)
    update += ("--bootstrap-servers", "embedded", "--metrics-port", updater_metrics, "--quiet")
    serve = ("serve", "--checkpoint", model, "--arena", arena, "--port", port, "--metrics-port", metrics)
    with running(folders, world.secret, *update) as updater, running(folders, world.secret, *serve) as server:
        wait_until_well(updater, "--updater", f"127.0.0.1:{updater_metrics}")
        wait_until_well(server, f"127.0.0.1:{port}")
        with Client(f"127.0.0.1:{port}", timeout_s=20) as client:
            score = client.score("transactions", 1, {"tx_amount": 5.0, "customer_id": 1})
        assert 0.0 <= score.probability <= 1.0
    assert list(arena.iterdir()), "the graph was kept in the arena"
