from __future__ import annotations

from prometheus_client import CollectorRegistry

from model_server.security.metrics import SecurityMetrics


def test_the_names_are_those_that_alerts_use() -> None:
    """Refusals, reloads and the certificate's expiry are in the server's registry under their documented names."""
    registry = CollectorRegistry()
    metrics = SecurityMetrics(registry)
    metrics.refused.labels("role").inc()
    metrics.reloads.labels("tls", "refused").inc()
    metrics.certificate_expiry.set(17)
    value = registry.get_sample_value
    assert value("nowgraph_callers_refused_total", {"reason": "role"}) == 1
    assert value("nowgraph_security_reloads_total", {"file": "tls", "outcome": "refused"}) == 1
    assert value("nowgraph_tls_certificate_expiry_timestamp_seconds") == 17
