from __future__ import annotations

import re

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from graph_transformer.ranking.lists import LIMIT_MAX, Source
from model_server.metrics import Metrics
from model_server.ranking_metrics import LENGTH_EDGES, RankMetrics


def test_a_scrape_parses_and_has_base_units() -> None:
    """Everything that is said of lists parses; times are in seconds and all names are ours."""
    metrics = Metrics()
    RankMetrics(metrics).stages["rules"].observe(0.004)
    families = {one.name: one for one in text_string_to_metric_families(generate_latest(metrics.registry).decode())}
    ranked = [name for name in families if "rank" in name and not name.endswith("_created")]
    assert len(ranked) == 6
    assert all(name.startswith(("nowgraph_", "process_", "python_")) for name in families)
    assert not [name for name in families if re.search(r"_(ms|us|millis|micros)(_|$)", name)]


def test_every_source_has_its_series_from_the_start() -> None:
    """A source that brings nothing shows as 0 and not as absent."""
    metrics = Metrics()
    RankMetrics(metrics)
    for source in Source:
        labels = {"source": str(source.name).lower()}
        assert metrics.registry.get_sample_value("nowgraph_rank_shown_items_total", labels) == 0.0


def test_the_longest_list_has_its_edge() -> None:
    """Lengths are bounded by the ranker's limit."""
    assert LENGTH_EDGES[-1] == LIMIT_MAX
    assert list(LENGTH_EDGES) == sorted(LENGTH_EDGES)
