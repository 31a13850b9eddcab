"""What the server's fault tests share: `nowgraph serve` as a process of its own, and what it holds of the machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import row_event_pb2

MINUTE_US = 60_000_000
PAYMENTS, ITEMS = 60, 20


@dataclass
class Served:
    """A running server: where it answers, and its process."""

    process: subprocess.Popen[str]
    target: str
    kafka: str
    metrics_port: int
    start_us: int

    @property
    def resident_bytes(self) -> int:
        """Memory that is the process's own; the arena's pages that are used are among it."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    @property
    def descriptors(self) -> int:
        return int(psutil.Process(self.process.pid).num_fds())

    def metric(self, name: str) -> dict[str, float]:
        """The values of a metric by its labels, as they are written."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=20) as answer:
            lines = answer.read().decode().splitlines()
        rows = (line.rpartition(" ") for line in lines if line.startswith((f"{name} ", f"{name}{{")))
        return {labels.removeprefix(name): float(value) for labels, _, value in rows}

    def payment(self, number: int = 1_000_000) -> service_pb2.ScoreRequest:
        """A payment to score, an hour after the newest of the graph."""
        asked = service_pb2.ScoreRequest(request_id=f"r{number}")
        row = asked.row
        row.table, row.operation = "transactions", row_event_pb2.OPERATION_INSERT
        row.event_time_us = self.start_us + (PAYMENTS + 60) * MINUTE_US
        row.key.parts.add(integer=number)
        row.cells.add(column="tx_amount", number=12.5)
        row.cells.add(column="channel", text="web")
        row.cells.add(column="tags", texts=row_event_pb2.TextList(values=["a", "b"]))
        row.cells.add(column="note", text="a note")
        row.cells.add(column="seen_at", timestamp_us=self.start_us)
        row.cells.add(column="online", boolean=True)
        row.cells.add(column="face", vector=row_event_pb2.Vector(values=[1, -2]))
        row.cells.add(column="card_number", text="4000")
        row.cells.add(column="customer_id", integer=number % 5)
        row.cells.add(column="terminal_id", integer=number % 7)
        shop = row.cells.add(column="shop_region+shop_number")
        shop.key.parts.add(text="north")
        shop.key.parts.add(integer=4)
        return asked

    def list_for(self, user: int) -> service_pb2.RankRequest:
        """A list of everything that a request can ask for."""
        asked = service_pb2.RankRequest(k=5, request_id=f"l{user}", event_time_us=self.start_us + 40 * 1440 * MINUTE_US)
        asked.user.parts.add(integer=user)
        click = asked.session.add(table="clicks", event_time_us=asked.event_time_us - MINUTE_US)
        click.cells.add(column="item_id", integer=user % ITEMS)
        asked.exclude.add().parts.add(integer=3)
        shown = asked.filters.add(column="color", negate=True)
        shown.values.add(text="green")
        asked.diversity.weight, asked.diversity.column = 0.3, "tags"
        asked.rules.deny.add().parts.add(integer=4)
        asked.rules.caps.add(column="color", limit=2)
        asked.rules.new_share_min = 0.2
        return asked


def transactions(start_us: int) -> Iterator[dict[str, Any]]:
    """Payments of five customers at seven terminals, a minute apart."""
    for number in range(PAYMENTS):
        yield {
            "transaction_id": number,
            "tx_datetime": start_us + number * MINUTE_US,
            "tx_amount": 5.0 + number % 7,
            "channel": "web",
            "customer_id": number % 5,
            "terminal_id": number % 7,
        }


def write_lines(path: Path, rows: Iterator[dict[str, Any]] | Sequence[dict[str, Any]]) -> None:
    """A JSONL file."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="session")
def fraud_model(
    served_checkpoints: Callable[[str], Path], pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A checkpoint's folder with its schema, and its history beside it."""
    world = pytestconfig.pluginmanager.get_plugin("served_world")
    folder = tmp_path_factory.mktemp("fraud") / "model"
    shutil.copytree(served_checkpoints("fraud"), folder)
    (folder / "schema.yaml").write_text(world.SCHEMA)
    write_lines(folder / "history" / "transactions.jsonl", transactions(world.START_US))
    return folder


@pytest.fixture(scope="session")
def shop_model(ranking_checkpoint: Path, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of a ranking."""
    shop = pytestconfig.pluginmanager.get_plugin("ranked_world")
    folder = tmp_path_factory.mktemp("shop") / "model"
    shutil.copytree(ranking_checkpoint, folder)
    (folder / "schema.yaml").write_text(shop.SCHEMA)
    days = [shop.START_US + number * shop.DAY_US for number in range(ITEMS)]
    items = [
        {"item_id": n, "listed_at": at, "color": shop.COLORS[n % 3], "tags": ["a"], "price": n % 4, "in_stock": True}
        for n, at in enumerate(days)
    ]
    clicks = [{"click_id": n, "clicked_at": at + 1, "user_id": n % 3, "item_id": n} for n, at in enumerate(days)]
    write_lines(folder / "history" / "items.jsonl", items)
    write_lines(folder / "history" / "clicks.jsonl", clicks)
    return folder


@contextmanager
def serving(
    folder: Path, secret: str, start_us: int, environment: Mapping[str, str], *options: str
) -> Iterator[Served]:
    """A server of a model's folder, until the block ends; then it must end by itself, and without a word of trouble."""
    given = ["--checkpoint", folder, "--history", folder / "history", *options]
    command = [sys.executable, "-m", "nowgraph.cli", "serve", *map(str, given), "--port", "0", "--metrics-port", "0"]
    errors = folder.parent / "stderr.log"
    with errors.open("w") as log:
        process = subprocess.Popen(
            [*command, "--json"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={
                **os.environ,
                "NOWGRAPH_PRIVACY_SECRET": secret,
                "OMP_NUM_THREADS": "1",
                "NOWGRAPH_SERVER_DEADLINE_DEFAULT_MS": "30000",
                **environment,
            },
        )
        try:
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                lines.append(line)
                if line.startswith("}"):
                    break
            assert lines, errors.read_text()[-3000:]
            where = json.loads("".join(lines))
            yield Served(process, where["grpc"], where["kafka"], where["metrics_port"], start_us)
            assert process.poll() is None, errors.read_text()[-3000:]
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0, errors.read_text()[-3000:]
            assert "Traceback" not in errors.read_text()
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def start_server(pytestconfig: pytest.Config) -> Callable[..., Any]:
    """`start_server(folder, **settings)`: a context manager that serves it; settings are those of ServerSettings."""
    world = pytestconfig.pluginmanager.get_plugin("served_world")

    def start(
        folder: Path,
        *options: str,
        bootstrap: str = "embedded",
        variables: Mapping[str, str] | None = None,
        **more: Any,
    ) -> Any:
        named = {f"NOWGRAPH_SERVER_{name.upper()}": str(value) for name, value in more.items()}
        kafka = ("--bootstrap-servers", bootstrap)
        return serving(folder, world.SECRET, world.START_US, {**named, **(variables or {})}, *kafka, *options)

    return start


@pytest.fixture(scope="session")
def fraud_server(start_server: Callable[..., Any], fraud_model: Path) -> Iterator[Served]:
    """A server of scores that looks after its connections every second, and waits three for a token."""
    settings = {"keepalive_time_ms": 1_000, "keepalive_timeout_ms": 1_000, "deadline_default_ms": 3_000}
    with start_server(fraud_model, "--fixed-shape", **settings) as served:
        yield served


@pytest.fixture(scope="session")
def shop_server(start_server: Callable[..., Any], shop_model: Path) -> Iterator[Served]:
    """A server of lists."""
    with start_server(shop_model) as served:
        yield served
