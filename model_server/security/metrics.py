"""What a server's security tells Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class SecurityMetrics:
    """Metrics of callers and of the files that say who they are, in a server's registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.reloads = Counter(
            "nowgraph_security_reloads",
            "Files of TLS and of access that changed on disk, by what became of it.",
            ["file", "outcome"],
            registry=registry,
        )
        self.refused = Counter(
            "nowgraph_callers_refused", "Calls refused before the service saw them.", ["reason"], registry=registry
        )
        self.certificate_expiry = Gauge(
            "nowgraph_tls_certificate_expiry_timestamp_seconds",
            "When the certificate that new connections are shown expires; 0 without TLS.",
            registry=registry,
        )
