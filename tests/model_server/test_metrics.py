from __future__ import annotations

import re
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from model_server.metrics import LATENCY_EDGES_S, Metrics, MetricsEndpoint


def test_a_scrape_parses_and_has_base_units() -> None:
    """Everything the endpoint says parses; times are in seconds, counts end in _total, and all names are ours."""
    metrics = Metrics()
    metrics.describe(model_version="m1", task="fraud", kind="binary", schema_fingerprint="f")
    metrics.stages["forward"].observe(0.004)
    metrics.requests.labels("Score", "OK").inc()
    endpoint = MetricsEndpoint(metrics, host="127.0.0.1", port=0)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{endpoint.port}/metrics", timeout=5) as response:
            text = response.read().decode()
    finally:
        endpoint.close()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert all(name.startswith("nowgraph_") for name in families)
    histograms = {name for name, family in families.items() if family.type == "histogram"}
    assert histograms == {"nowgraph_request_seconds", "nowgraph_stage_seconds", "nowgraph_batch_rows"}
    assert not [name for name in families if re.search(r"_(ms|us|millis|micros)(_|$)", name)]
    samples = {
        (sample.name, *sample.labels.values()): sample.value for sample in families["nowgraph_stage_seconds"].samples
    }
    assert samples["nowgraph_stage_seconds_sum", "forward"] == 0.004
    requests = families["nowgraph_requests"].samples[0]
    assert requests.name == "nowgraph_requests_total"
    assert requests.labels == {"method": "Score", "code": "OK"}
    assert families["nowgraph_build_info"].samples[0].labels["model_version"] == "m1"


def test_objectives_are_bucket_edges() -> None:
    """The share of requests within 5, 10, 25, 50 and 100 ms can be read exactly."""
    assert {0.005, 0.01, 0.025, 0.05, 0.1} <= set(LATENCY_EDGES_S)
    assert list(LATENCY_EDGES_S) == sorted(LATENCY_EDGES_S)


def test_two_servers_in_a_process_do_not_share_numbers() -> None:
    """Each server has its own registry."""
    one, two = Metrics(), Metrics()
    one.model_rows.inc()
    assert two.registry.get_sample_value("nowgraph_model_rows_total") == 0.0
    assert one.registry.get_sample_value("nowgraph_model_rows_total") == 1.0
