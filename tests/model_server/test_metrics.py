from __future__ import annotations

import re
from typing import Any

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from model_server.metrics import LATENCY_EDGES_S, STALL_EDGES_S, Metrics


def scraped(metrics: Metrics) -> dict[str, Any]:
    """The families of a scrape, by name."""
    text = generate_latest(metrics.registry).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def test_a_scrape_parses_and_has_base_units() -> None:
    """Everything that is said parses; times are in seconds, counts end in _total, and names are ours or Python's."""
    metrics = Metrics()
    metrics.describe(model_version="m1", task="fraud", kind="binary", schema_fingerprint="f")
    metrics.stages["forward"].observe(0.004)
    metrics.requests.labels("Score", "OK").inc()
    families = scraped(metrics)
    assert all(name.startswith(("nowgraph_", "process_", "python_")) for name in families)
    histograms = {name for name, family in families.items() if family.type == "histogram"}
    named = {"request_seconds", "refusal_seconds", "stage_seconds", "batch_rows", "event_loop_stall_seconds"}
    assert histograms == {f"nowgraph_{name}" for name in named}
    assert not [name for name in families if re.search(r"_(ms|us|millis|micros)(_|$)", name)]
    samples = {
        (sample.name, *sample.labels.values()): sample.value for sample in families["nowgraph_stage_seconds"].samples
    }
    assert samples["nowgraph_stage_seconds_sum", "forward"] == 0.004
    requests = families["nowgraph_requests"].samples[0]
    assert requests.name == "nowgraph_requests_total"
    assert requests.labels == {"method": "Score", "code": "OK"}
    assert families["nowgraph_build_info"].samples[0].labels["model_version"] == "m1"
    assert families["process_resident_memory_bytes"].samples[0].value > 1 << 20


def test_objectives_are_bucket_edges() -> None:
    """The share of requests within 5, 10, 25, 50 and 100 ms can be read exactly, and that of stalls below 5 ms."""
    assert {0.005, 0.01, 0.025, 0.05, 0.1} <= set(LATENCY_EDGES_S)
    assert list(LATENCY_EDGES_S) == sorted(LATENCY_EDGES_S)
    assert 0.005 in STALL_EDGES_S


def test_two_servers_in_a_process_do_not_share_numbers() -> None:
    """Each server has its own registry."""
    one, two = Metrics(), Metrics()
    one.model_rows.inc()
    two.model_rows.inc(0)
    assert two.registry.get_sample_value("nowgraph_model_rows_total") == 0.0
    assert one.registry.get_sample_value("nowgraph_model_rows_total") == 1.0


def test_tasks_of_a_server_are_told_apart() -> None:
    """Two tasks count in one registry, each under its labels; a label without a value is left out."""
    metrics = Metrics()
    fraud, spend = metrics.for_task("bank", "fraud"), metrics.for_task("", "spend")
    fraud.model_rows.inc(2)
    fraud.shed.labels("queue").inc()
    spend.stages["encode"].observe(0.001)
    value = metrics.registry.get_sample_value
    assert value("nowgraph_model_rows_total", {"tenant": "bank", "task": "fraud"}) == 2
    assert value("nowgraph_model_rows_total", {"task": "spend"}) == 0
    assert value("nowgraph_shed_total", {"buffer": "queue", "tenant": "bank", "task": "fraud"}) == 1
    assert value("nowgraph_stage_seconds_count", {"stage": "encode", "task": "spend"}) == 1
    assert metrics.registry.total("nowgraph_model_rows_total") == 2


def test_the_counters_of_a_task_begin_at_zero() -> None:
    """A rate needs a zero to begin from: what a task counts is exposed before anything happened."""
    metrics = Metrics().for_task("", "fraud")
    value = metrics.registry.get_sample_value
    for name, labels in {
        "nowgraph_model_rows_total": {},
        "nowgraph_abandoned_total": {"reason": "expired"},
        "nowgraph_stage_seconds_count": {"stage": "queue"},
        "nowgraph_queue_rows": {},
    }.items():
        assert value(name, {**labels, "task": "fraud"}) == 0.0


class _Extension:
    def __init__(self, families: object) -> None:
        self.families = families


def test_an_extension_is_built_once_for_a_registry() -> None:
    """Two tasks that use the same families share them; another server has its own."""
    metrics = Metrics()
    ours = metrics.for_task("", "a").extension(_Extension)
    assert metrics.for_task("", "b").extension(_Extension) is ours
    assert Metrics().extension(_Extension) is not ours
