"""What the tests of security share; certificates are in tests/tls_fixtures.py."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from model_server.security.metrics import SecurityMetrics


@pytest.fixture
def security_metrics() -> SecurityMetrics:
    """In a registry of the test's own."""
    return SecurityMetrics(CollectorRegistry())
