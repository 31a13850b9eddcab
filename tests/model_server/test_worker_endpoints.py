from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Gauge, start_http_server

from model_server.worker_endpoints import SupervisorEndpoint, SupervisorMetrics, pass_on
from model_server.worker_link import Ready


def get(port: int, path: str) -> tuple[int, str]:
    """Status and text of an answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.fixture
def metrics() -> SupervisorMetrics:
    return SupervisorMetrics(2)


@pytest.fixture
def port(metrics: SupervisorMetrics) -> Iterator[int]:
    endpoint = SupervisorEndpoint(metrics, host="127.0.0.1", port=0)
    yield endpoint.port
    endpoint.close()


def test_it_is_ready_when_all_serve_and_not_before(metrics: SupervisorMetrics, port: int) -> None:
    """503 while a worker lacks, 200 once all serve, 503 again when one is lost."""
    seen = []
    for serving in (0, 1, 2, 1):
        metrics.serving(serving)
        seen.append(get(port, "/ready")[0])
    assert seen == [503, 503, 200, 503]


def test_workers_are_counted(metrics: SupervisorMetrics, port: int) -> None:
    """How many serve of how many, restarts by reason, and how long the newest start took, by phase, in seconds."""
    metrics.serving(1)
    metrics.restarted("crashed")
    metrics.started(Ready(1, 2, 3, attach_ms=0.5, model_ms=20.0), start_s=2.5)
    text = get(port, "/metrics")[1]
    for line in (
        "nowgraph_workers_wanted 2.0",
        "nowgraph_workers_serving 1.0",
        'nowgraph_worker_restarts_total{reason="crashed"} 1.0',
        'nowgraph_worker_restarts_total{reason="replaced"} 0.0',
        'nowgraph_worker_start_seconds{phase="attach"} 0.0005',
        'nowgraph_worker_start_seconds{phase="model"} 0.02',
        'nowgraph_worker_start_seconds{phase="all"} 2.5',
    ):
        assert line in text.splitlines()


async def test_one_port_leads_to_whoever_is_the_worker_now() -> None:
    """A scrape of a worker's port reaches the process that is the worker now; while there is none it fails."""
    served = []
    for number in (1, 2):
        registry = CollectorRegistry()
        Gauge("who", "number", registry=registry).set(number)
        served.append(start_http_server(0, addr="127.0.0.1", registry=registry))
    ready = [Ready(1, 2, server.server_port, 0.0, 0.0) for server, _ in served]
    now: Ready | None = ready[0]
    passing = await pass_on(lambda: now, host="127.0.0.1", port=0)
    port = passing.sockets[0].getsockname()[1]
    assert "who 1.0" in (await asyncio.to_thread(get, port, "/metrics"))[1]
    now = ready[1]
    assert "who 2.0" in (await asyncio.to_thread(get, port, "/metrics"))[1]
    now = None
    with pytest.raises(OSError, match=r"."):
        await asyncio.to_thread(get, port, "/metrics")
    passing.close()
    for server, thread in served:
        server.shutdown()
        server.server_close()
        thread.join()
