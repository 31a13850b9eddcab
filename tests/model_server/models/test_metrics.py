from __future__ import annotations

from model_server.metrics import Metrics
from model_server.models.errors import Reason
from model_server.models.metrics import ModelMetrics

LOADED = "nowgraph_model_loaded_timestamp_seconds"


def test_versions_that_are_gone_leave_no_label() -> None:
    """Fifty swaps must not leave fifty series; what stays keeps the time when it was loaded."""
    metrics = Metrics().for_task("north", "fraud")
    models = ModelMetrics(metrics)
    total = metrics.families.registry.total
    models.serving([("live", "aa"), ("shadow", "bb")], 100.0)
    models.shadow("bb").rows["scored"].inc()
    models.serving([("live", "aa"), ("canary", "cc")], 200.0)
    assert total(LOADED, model_version="aa", role="live", tenant="north", task="fraud") == 100.0
    assert total(LOADED, model_version="cc", role="canary") == 200.0
    assert total(LOADED, model_version="bb") == 0.0
    assert total("nowgraph_shadow_rows_total") == 0.0
    models.serving([("live", "cc")], 300.0)
    assert total(LOADED) == 300.0


def test_every_outcome_is_there_before_it_happens() -> None:
    """A rate needs a zero to begin from: an alert on refusals must see the first one."""
    metrics = Metrics().for_task("", "fraud")
    models = ModelMetrics(metrics)
    page = [one.labels["outcome"] for f in metrics.registry.collect() for one in f.samples if "swaps_total" in one.name]
    assert {f"refused_{reason}" for reason in Reason} | {"swapped"} == set(page)
    models.refused(Reason.GOLDEN)
    models.swapped()
    assert metrics.families.registry.total("nowgraph_model_swaps_total", outcome="refused_golden") == 1
    assert metrics.families.registry.total("nowgraph_model_swaps_total") == 2
