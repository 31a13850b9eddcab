from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric, UnknownMetricFamily
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from model_server.exposition import family_lines
from model_server.metrics import Metrics


class _Unknown(Collector):
    def collect(self) -> Iterator[Metric]:
        yield UnknownMetricFamily("nowgraph_unknown", "Of no type.", value=3)


def families() -> CollectorRegistry:
    """One family of each type, with labels and texts that need care."""
    registry = CollectorRegistry()
    requests = Counter("nowgraph_requests", 'A "quoted" text,\na line and a \\.', ["method", "code"], registry=registry)
    requests.labels('a"b\\c\nd', "OK").inc(1e9)
    requests.labels("Score", "ünicode").inc(0.25, {"trace_id": "ab" * 16})
    Gauge("nowgraph_age_seconds", "A gauge.", registry=registry, unit="seconds").set(float("nan"))
    Gauge("nowgraph_end", "Another.", registry=registry).set(float("-inf"))
    seconds = Histogram("nowgraph_request_seconds", "A histogram.", ["method"], buckets=(0.005, 1.0), registry=registry)
    seconds.labels("Score").observe(0.004, {"trace_id": "ab" * 16, "span_id": "cd" * 8})
    seconds.labels("Rank").observe(7)
    Info("nowgraph_build", "An info.", registry=registry).info({"version": "1"})
    Counter("nowgraph_never", "Without a sample.", ["reason"], registry=registry)
    registry.register(_Unknown())
    return registry


@pytest.mark.parametrize("registry", [families(), Metrics().for_task("", "fraud").registry], ids=["types", "server"])
@pytest.mark.parametrize("openmetrics", [True, False])
def test_it_is_what_prometheus_client_writes(registry: CollectorRegistry, openmetrics: bool) -> None:
    """Byte for byte in both forms, exemplars included; only when children were made is left out."""
    collected = list(registry.collect())
    written = "".join(line for family in collected for line in family_lines(family, openmetrics=openmetrics))
    for family in collected:
        family.samples = [sample for sample in family.samples if sample.name != f"{family.name}_created"]

    class Same:
        def collect(self) -> Iterator[Metric]:
            yield from collected

    same = Same()
    expected = (generate_openmetrics(same) if openmetrics else generate_latest(same)).decode()  # type: ignore[arg-type]
    assert written == expected.removesuffix("# EOF\n")
    assert ("# {" in written) == (openmetrics and registry.get_sample_value("nowgraph_end") is not None)
