"""Every panel is what its source says, and every expression returns data from programs that run."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from opentelemetry.sdk.trace import TracerProvider
from pydantic import SecretStr

from model_server.background import BackgroundServer
from model_server.generation import Serving
from model_server.metrics import ProcessMetrics
from model_server.metrics_endpoint import MetricsEndpoint
from model_server.security.access import hash_of, new_token
from model_server.server import Server
from model_server.settings import ServerSettings
from model_server.worker_endpoints import SupervisorMetrics
from nowgraph.client import Client, ClientError
from stream.producer import EventProducer
from stream.quality.config import AnswerKind, QualitySettings, QualityTask
from stream.quality.exposition import QualityMetrics
from stream.quality.monitor import Monitor
from stream.quality.records import Answer, Interaction, Outcome, ShownList, Stream
from stream.settings import EVENTS_TOPIC

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "deploy" / "grafana"
RULES = [REPOSITORY / "deploy" / "prometheus" / name for name in ("recording_rules.yaml", "alerts.yaml")]
DASHBOARDS = sorted((FOLDER / "dashboards").glob("*.json"))
HOUR_US = 3_600_000_000
# Scrapes before the first question: rates need a few.
TRAFFIC_S = 8.0


def expressions() -> list[tuple[str, str, str]]:
    """Dashboard, panel and expression of every query."""
    found = []
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            found += [(path.stem, panel["title"], target["expr"]) for target in panel.get("targets", [])]
    return found


def test_dashboards_are_what_their_panels_say() -> None:
    """Nobody edits the JSON by hand: it is written from deploy/grafana/panels."""
    script = REPOSITORY / "scripts" / "generate_dashboards.py"
    result = subprocess.run([sys.executable, "-P", script, "--check"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_panels_do_not_overlap_and_have_their_own_ids() -> None:
    """Grafana would move a panel that lies on another; titles and ids are unique within a dashboard."""
    assert {path.stem for path in DASHBOARDS} == {"overview", "serving", "graph", "models", "ranking"}
    for path in DASHBOARDS:
        dashboard = json.loads(path.read_text(encoding="utf-8"))
        taken: set[tuple[int, int]] = set()
        for panel in dashboard["panels"]:
            at = panel["gridPos"]
            assert at["x"] + at["w"] <= 24
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            assert not cells & taken, panel["title"]
            taken |= cells
        assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
        titles = [panel["title"] for panel in dashboard["panels"] if panel["type"] != "row"]
        assert len(set(titles)) == len(titles)


def test_provisioning_finds_dashboards_and_prometheus() -> None:
    """Grafana loads the folder that the deployments mount, and its exemplars lead to traces."""
    (provider,) = yaml.safe_load((FOLDER / "provisioning/dashboards/nowgraph.yaml").read_text())["providers"]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards/nowgraph"
    (source,) = yaml.safe_load((FOLDER / "provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    assert source["jsonData"]["exemplarTraceIdDestinations"][0]["name"] == "trace_id"


class Prometheus:
    """Asks a running Prometheus."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1/"

    def get(self, path: str, **parameters: str) -> Any:
        url = f"{self._url}{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as response:
            return json.load(response)["data"]

    def values(self, expression: str) -> list[float]:
        """What an expression is now; raises for one that Prometheus refuses."""
        chosen = {"$job": ".*", "$tenant": ".*", "$task": ".*", "$__rate_interval": "6s", "$__range": "60s"}
        for name, value in chosen.items():
            expression = expression.replace(name, value)
        found = self.get("query", query=expression)["result"]
        return [value for one in found if not math.isnan(value := float(one["value"][1]))]


def wait(condition: Callable[[], Any], what: str, timeout_s: float = 20) -> None:
    """Waits for a condition."""
    until_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until_s, f"waited in vain: {what}"
        time.sleep(0.2)


def beside_a_shadow(world: Any, server: Server) -> Server:
    """The server; where it scores, another model scores the same rows."""
    (lanes,) = server._router.lanes
    serving = lanes.generations.current()
    if isinstance(serving, Serving):
        shadow = world.predictor(world.graph.view())
        shadow.version = "another"
        lanes.generations.replace(replace(serving, shadows=(shadow,)))
    return server


def quality() -> QualityMetrics:
    """Figures of two days of answers, half of them followed by what happened, and of a list that was followed."""
    fraud = QualityTask(
        name="fraud", kind=AnswerKind.BINARY, table="transactions", event_level=True, label_delay_us=HOUR_US,
        outcome="tx_fraud", absence_is_negative=True, inputs=("tx_amount",),
    )  # fmt: skip
    next_click = QualityTask("next_click", AnswerKind.RANKING, "users", False, HOUR_US)
    settings, start_us = QualitySettings(windows_us=(24 * HOUR_US,), reference_us=24 * HOUR_US), 1_672_531_200_000_000
    monitor = Monitor([fraud, next_click], settings)
    for number in range(1201):
        at_us = start_us + number * 48 * HOUR_US // 1200
        scores, numbers = (number % 100 / 100,), (float(number % 7),)
        monitor.add(Answer(Stream("", "fraud", "v1"), (number,), at_us, at_us, scores, numbers))
        if number % 2:
            monitor.add(Outcome("fraud", (number,), at_us + 60_000_000, (float(number % 3 == 0),)))
    monitor.add(ShownList(Stream("", "next_click", "v1"), ("u",), at_us, at_us, "a", (10, 11)))
    monitor.add(Interaction("next_click", ("u",), b"1", at_us + 1, at_us + 1, 11))
    monitor.advance(at_us + HOUR_US)
    metrics = QualityMetrics()
    metrics.show(monitor.report(), lag_records=0)
    return metrics


def guarded(world: Any, folder: Path, redis_url: str) -> tuple[BackgroundServer, str]:
    """A server that knows its callers, remembers request ids and flags what a graph that lies behind says; a token."""
    token = new_token()
    (folder / "degraded.yaml").write_text("stale_graph: {bound: 30s, answer: flag}")
    entry = {"name": "shop", "sha256": hash_of(token).hex(), "roles": ["score"]}
    (folder / "access.yaml").write_text(yaml.safe_dump({"version": 1, "tokens": [entry]}))
    settings = ServerSettings(
        port=0, metrics_port=0, deadline_default_ms=20_000, degraded_path=folder / "degraded.yaml",
        access_path=folder / "access.yaml", idempotency_window_s=60, redis_url=SecretStr(redis_url),
    )  # fmt: skip
    world.graph.set_complete_time(time.time_ns() // 1_000 - 60_000_000)
    return BackgroundServer(lambda: world.server(settings)), token


@pytest.fixture(scope="module")
def binary() -> str:
    found = shutil.which("prometheus")
    if found is None:
        if os.environ.get("NOWGRAPH_CI"):
            pytest.fail("prometheus is missing: .ci/run installs it")
        pytest.skip("prometheus (of Debian) is not installed")
    return found


@pytest.fixture
def scraping(
    binary: str, tmp_path: Path, free_ports: Callable[[int], list[int]]
) -> Iterator[Callable[[dict[str, list[int]]], Prometheus]]:
    """Starts a Prometheus that scrapes ports by job every second, and records what our rules say."""
    with ExitStack() as stack:

        def start(ports: dict[str, list[int]]) -> Prometheus:
            jobs = [
                {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in each]}]}
                for job, each in ports.items()
            ]
            times = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
            config = {"global": times, "rule_files": [str(path) for path in RULES], "scrape_configs": jobs}
            (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(config))
            [port] = free_ports(1)
            process = subprocess.Popen(
                [binary, f"--config.file={tmp_path}/prometheus.yaml", f"--storage.tsdb.path={tmp_path}/data",
                 f"--web.listen-address=127.0.0.1:{port}", "--enable-feature=exemplar-storage", "--log.level=warn"],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            stack.callback(process.wait, 20)
            stack.callback(process.terminate)
            found = Prometheus(port)

            def answers() -> bool:
                try:
                    return bool(found.get("status/buildinfo"))
                except OSError:
                    return False

            wait(answers, "Prometheus")
            return found

        yield start


@contextmanager
def asking(scores: str, lists: str, known: str, token: str, producer: EventProducer) -> Iterator[list[int]]:
    """Questions, events, strangers and records that nobody can read, until the block ends; counts rounds and errors."""
    stop, asked = threading.Event(), [0, 0]
    cells = {"customer_id": 3, "tx_amount": 9.0, "card_number": "4999"}

    def ask() -> None:
        with (
            Client(scores, timeout_s=20) as payments,
            Client(lists, timeout_s=20) as pages,
            Client(known, timeout_s=20, token=token) as shop,
            Client(known, timeout_s=20) as stranger,
        ):
            while not stop.wait(0.02):
                number = asked[0] = asked[0] + 1
                now_us = time.time_ns() // 1_000
                event = payments.ingest("transactions", 50_000 + number, cells, event_time=now_us)
                payments.score("transactions", 90_000 + number, cells, freshness_token=event)
                event = pages.ingest("clicks", 50_000 + number, {"user_id": 7, "item_id": 3}, event_time=now_us)
                pages.rank(7, freshness_token=event)
                producer.send("transactions", value=b"\xff")  # a dead letter, which an alert is for
                flagged = shop.score("transactions", number, cells, request_id=str(number)).degraded
                for client, table in ((payments, "nobody"), (stranger, "transactions")):
                    try:
                        client.score(table, 1)
                    except ClientError:
                        asked[1] += flagged is not None

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield asked
    finally:
        stop.set()
        thread.join()


@pytest.mark.integration
def test_every_panel_has_data(
    world: Any,
    shop: Any,
    world_of: Callable[[str], Any],
    live: Callable[..., Any],
    scraping: Callable[..., Prometheus],
    shared_redis: Callable[[], str],
    tmp_path: Path,
) -> None:
    """Scores, lists, events, strangers and an alert, scraped by a real Prometheus: every expression gives numbers."""
    with ExitStack() as stack:
        systems, updaters = [], []
        for over, inputs in ((world, ("transactions", "transaction_events")), (shop, ("clicks", "items"))):
            system = live(
                over,
                dict.fromkeys((*inputs, EVENTS_TOPIC), 1),
                ServerSettings(port=0, metrics_port=0, deadline_default_ms=20_000),
                provider=TracerProvider(),
                served=partial(beside_a_shadow, over),
            )
            endpoint = MetricsEndpoint(system.updater.metrics, ProcessMetrics(), host="127.0.0.1", port=0)
            stack.callback(endpoint.close)
            systems.append(system)
            updaters.append(endpoint.port)
        scores, lists = (system.server for system in systems)
        (workers := SupervisorMetrics(1)).serving(1)
        figures, supervisor = (MetricsEndpoint(one, host="127.0.0.1", port=0) for one in (quality(), workers))
        stack.callback(figures.close)
        stack.callback(supervisor.close)
        server, bearer = guarded(world_of("fraud"), tmp_path, shared_redis())
        stack.enter_context(server)
        prometheus = scraping(
            {
                "nowgraph-server": [*(one.server.metrics_port for one in (scores, lists, server)), supervisor.port],
                "nowgraph-updater": updaters,
                "nowgraph-quality": [figures.port],
            }
        )
        asked = stack.enter_context(asking(scores.target, lists.target, server.target, bearer, systems[0].producer))
        time.sleep(TRAFFIC_S)
        for rule in ("job:nowgraph_rank_slow:ratio_rate1h", 'ALERTS{alertstate="firing"}'):
            wait(partial(prometheus.values, rule), rule)
        up = prometheus.values("up")
        empty = [
            (dashboard, panel, expression)
            for dashboard, panel, expression in expressions()
            if not prometheus.values(expression)
        ]
        exemplars = prometheus.get(
            "query_exemplars",
            query='nowgraph_request_seconds_bucket{method="Score"}',
            start=str(time.time() - 60),
            end=str(time.time()),
        )
    assert 2 * asked[0] == asked[1] > 20
    assert up == [1.0] * 7
    assert empty == []
    assert exemplars
    assert re.fullmatch("[0-9a-f]{32}", exemplars[0]["exemplars"][0]["labels"]["trace_id"])
