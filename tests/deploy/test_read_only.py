"""Compose's commands as the image runs them: a root that cannot be written, no rights, only the volumes to write."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from nowgraph.client import Client
from stream.embedded_broker import EmbeddedBroker

COMPOSE = yaml.safe_load((Path(__file__).resolve().parents[2] / "deploy" / "compose" / "compose.yaml").read_text())
VOLUMES = ("arena", "snapshots", "state", "tmp")
REDIS = ("NOWGRAPH_SERVER_REDIS", "NOWGRAPH_SERVER_IDEMPOTENCY")

START_TIMEOUT_S = 120
# In a mount namespace of its own: one folder stays writable, the rest of the root does not; then no capability.
CONFINED = """
set -e
mount --bind "$1" "$1"; mount -o remount,bind,ro /
shift
exec setpriv --no-new-privs --inh-caps=-all --bounding-set=-all -- "$@"
"""


def confined(writable: Path, *command: str) -> list[str]:
    """The command as a container would run it; needs root, and the right to make a namespace."""
    return [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "bash",
        "-c",
        CONFINED,
        "confined",
        str(writable),
        *command,
    ]


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """The folder of what may be written; skips where no namespace can be made."""
    if shutil.which("unshare") is None or shutil.which("setpriv") is None:
        pytest.skip("unshare and setpriv (util-linux) are not installed")
    writable, outside = tmp_path / "volumes", tmp_path / "outside"
    for name in VOLUMES:
        (writable / name).mkdir(parents=True)
    tried = confined(writable, "bash", "-c", f"touch {writable}/x && ! touch {outside}")
    done = subprocess.run(tried, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode != 0 and not outside.exists():
        pytest.skip(f"no mount namespace here: {done.stderr.strip()[-200:]}")
    assert not outside.exists(), "the root can be written: this test would show nothing"
    return writable


@dataclass
class Composed:
    """What compose would start, with this test's places in place of its containers'."""

    volumes: Path
    model: Path
    kafka: str
    secret: str

    def words(self, service: str) -> list[str]:
        """A service's command."""
        places = {"/model": self.model, **{f"/{name}": self.volumes / name for name in VOLUMES}}
        words = []
        for word in COMPOSE["services"][service]["command"]:
            place = re.match(r"/\w+", word)
            moved = word if place is None else f"{places[place[0]]}{word[place.end() :]}"
            words.append("67108864" if word.startswith("${NOWGRAPH_ARENA_BYTES") else moved)
        return [self.kafka if word == "kafka:9092" else word for word in words]

    def environment(self, service: str) -> dict[str, str]:
        """A service's variables and the image's; without Redis, which its own tests have."""
        given = COMPOSE["services"][service]["environment"]
        kept = {name: value for name, value in given.items() if value is not None and not name.startswith(REDIS)}
        image = {name: str(self.volumes / "tmp") for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "MPLCONFIGDIR")}
        path = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        return {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", **image, **path, **kept,
                "NOWGRAPH_PRIVACY_SECRET": self.secret}  # fmt: skip

    @contextmanager
    def running(self, service: str, *ports: object) -> Iterator[subprocess.Popen[str]]:
        """The service until the block ends; then SIGTERM, and it must end well within its grace."""
        command = [sys.executable, "-P", "-m", "nowgraph.cli", *self.words(service), *map(str, ports)]
        process = subprocess.Popen(
            confined(self.volumes, *command), stderr=subprocess.PIPE, text=True, env=self.environment(service), cwd="/"
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


def test_compose_s_commands_run_on_a_root_that_cannot_be_written(
    volumes: Path,
    world: Any,
    served_checkpoints: Callable[[str], Path],
    free_ports: Callable[[int], list[int]],
    tmp_path: Path,
) -> None:
    """Updater, server and quality app start, an ingested event is in the next answer, and each ends well."""
    model = tmp_path / "model"
    shutil.copytree(served_checkpoints("fraud"), model)
    (model / "schema.yaml").write_text(world.schema_text)
    topics = ("transactions", "transaction_events", "nowgraph.events", "nowgraph.predictions", "nowgraph.dead-letters")
    port, metrics, updater_metrics, quality_metrics = free_ports(4)
    with ExitStack() as stack:
        broker = stack.enter_context(EmbeddedBroker(dict.fromkeys(topics, 2)))
        composed = Composed(volumes, model, broker.bootstrap, world.secret)
        updater = stack.enter_context(composed.running("updater", "--metrics-port", updater_metrics))
        delay = ("--label-delay", "7d")  # this world's splits leave no gap
        ports = ("--port", port, "--metrics-port", metrics)
        server = stack.enter_context(composed.running("server", *ports))
        quality = stack.enter_context(composed.running("quality", "--metrics-port", quality_metrics, *delay))
        wait_until_well(updater, "--updater", f"127.0.0.1:{updater_metrics}")
        wait_until_well(server, f"127.0.0.1:{port}")
        with Client(f"127.0.0.1:{port}", timeout_s=20) as client:
            cells = {"tx_amount": 5.0, "customer_id": 1}
            token = client.ingest("transactions", 1, cells, event_time=time.time_ns() // 1000 - 1_000_000)
            score = client.score("transactions", 2, cells, freshness_token=token)
        assert score.history_count == 1, "the event that was ingested"
        assert quality.poll() is None, quality.communicate()[1]
        with urllib.request.urlopen(f"http://127.0.0.1:{quality_metrics}/metrics", timeout=10) as answer:
            assert b"nowgraph_quality_" in answer.read()
    assert list((volumes / "arena").iterdir()), "the graph was kept in the arena"
