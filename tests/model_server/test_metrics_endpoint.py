from __future__ import annotations

import gzip
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from graph_updater.metrics import UpdaterMetrics
from model_server.metrics import Metrics
from model_server.metrics_endpoint import MetricsEndpoint

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"  # as Prometheus asks


@pytest.fixture
def metrics() -> Metrics:
    """A server's metrics, with a request that was traced."""
    metrics = Metrics().for_task("", "fraud")
    metrics.request_seconds.labels("Score").observe(0.004, exemplar={"trace_id": "ab" * 16})
    return metrics


@pytest.fixture
def endpoint(metrics: Metrics) -> Iterator[MetricsEndpoint]:
    """An endpoint of it on a free port."""
    endpoint = MetricsEndpoint(metrics, host="127.0.0.1", port=0)
    yield endpoint
    endpoint.close()


def scrape(endpoint: MetricsEndpoint, **headers: str) -> tuple[str, str]:
    """The content type and the text of a scrape."""
    request = urllib.request.Request(f"http://127.0.0.1:{endpoint.port}/metrics", headers=headers)
    with urllib.request.urlopen(request, timeout=5) as response:
        body = response.read()
        if response.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        return response.headers["Content-Type"], body.decode()


def test_a_scraper_that_takes_openmetrics_gets_exemplars(endpoint: MetricsEndpoint) -> None:
    """The bucket of a traced request has its trace id, the text parses as OpenMetrics, and no series is doubled."""
    content_type, text = scrape(endpoint, Accept=OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text")
    families = {family.name: family for family in openmetrics_families(text)}
    found = [one for one in families["nowgraph_request_seconds"].samples if one.exemplar]
    assert [(one.labels["le"], one.exemplar.labels) for one in found] == [("0.005", {"trace_id": "ab" * 16})]
    assert "_created" not in text


def test_any_other_scraper_gets_text_without_them(endpoint: MetricsEndpoint) -> None:
    """Prometheus's older text is the answer to everybody else, compressed where asked; it parses, with every family."""
    content_type, text = scrape(endpoint, **{"Accept-Encoding": "gzip"})
    assert content_type.startswith("text/plain")
    assert "ab" * 16 not in text
    names = {family.name for family in text_string_to_metric_families(text)}
    assert {"nowgraph_request_seconds", "nowgraph_event_loop_stall_seconds", "process_open_fds"} <= names


def test_several_registries_are_one_answer(endpoint: MetricsEndpoint) -> None:
    """An updater in the server's process is seen beside it; a name that both have is said once."""
    updater, again = UpdaterMetrics(), CollectorRegistry()
    Counter("nowgraph_requests", "Of somebody else.", registry=again).inc(7)
    endpoint.add(updater)
    endpoint.add(type("Again", (), {"registry": again})())
    _, text = scrape(endpoint, Accept=OPENMETRICS)
    families = [family.name for family in openmetrics_families(text)]
    assert "nowgraph_events_applied" in families
    assert families.count("nowgraph_requests") == 1
    assert "Of somebody else." not in text


def test_what_is_no_scrape_is_refused(endpoint: MetricsEndpoint) -> None:
    """Another method than GET is told so, and changes nothing."""
    request = urllib.request.Request(f"http://127.0.0.1:{endpoint.port}/metrics", data=b"x", method="POST")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=5)
    assert caught.value.code == 405


def test_a_closed_endpoint_frees_its_port(metrics: Metrics) -> None:
    """Another may listen there at once; a taken port is an error."""
    endpoint = MetricsEndpoint(metrics, host="127.0.0.1", port=0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            MetricsEndpoint(metrics, host="127.0.0.1", port=taken.getsockname()[1])
    endpoint.close()
    MetricsEndpoint(metrics, host="127.0.0.1", port=endpoint.port).close()
