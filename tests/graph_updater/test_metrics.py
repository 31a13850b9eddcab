"""The updater's metrics have the names that dashboards and alerts use."""

from __future__ import annotations

import numpy as np
from prometheus_client import generate_latest

from graph_updater.metrics import UpdaterMetrics


def test_every_metric_is_scraped_under_its_name() -> None:
    """Names, labels and values of a scrape; two updaters in one process do not share them."""
    metrics, other = UpdaterMetrics(), UpdaterMetrics()
    metrics.records.labels(topic="payments").inc(3)
    metrics.applied.inc(2)
    metrics.rejected.labels(reason="late").inc()
    metrics.lag.labels(topic="payments", partition="1").set(9)
    metrics.set_memory({"rows": 10, "links": 20})
    metrics.visible_seconds.observe(np.asarray([0.002, 0.003]))
    text = generate_latest(metrics.registry).decode()
    for line in (
        'nowgraph_records_total{topic="payments"} 3.0',
        "nowgraph_events_applied_total 2.0",
        'nowgraph_events_rejected_total{reason="late"} 1.0',
        'nowgraph_lag_records{partition="1",topic="payments"} 9.0',
        'nowgraph_memory_bytes{part="links"} 20.0',
        "nowgraph_event_to_visible_seconds_count 2.0",
    ):
        assert line in text
    assert "nowgraph_events_applied_total 0.0" in generate_latest(other.registry).decode()
