from __future__ import annotations

import re
from pathlib import Path

from graph_updater.metrics import UpdaterMetrics
from model_server.degraded_answer import DegradedFamilies
from model_server.idempotency import IdempotencyFamilies
from model_server.metrics import Families
from model_server.models.metrics import ModelFamilies
from model_server.ranking_metrics import RankFamilies
from model_server.security.metrics import SecurityMetrics
from model_server.store import StoreFamilies
from model_server.worker_endpoints import SupervisorMetrics
from stream.quality.exposition import QualityMetrics

PACKAGES = ("stream", "graph_updater", "model_server", "nowgraph")
SUFFIX = {"counter": "_total", "info": "_info"}
QUALITY = "nowgraph_quality_"


def exposed() -> dict[str, str]:
    """Every family that a program has: its name as Prometheus knows it, and without its suffix."""
    families = Families()
    for extension in (RankFamilies, ModelFamilies, DegradedFamilies, IdempotencyFamilies, StoreFamilies):
        extension(families)
    SecurityMetrics(families.registry)
    registries = [
        families.registry,
        SupervisorMetrics(1).registry,
        UpdaterMetrics().registry,
        QualityMetrics().registry,
    ]
    found = [family for registry in registries for family in registry.collect()]
    return {f"{one.name}{SUFFIX.get(one.type, '')}": one.name for one in found if one.name.startswith("nowgraph_")}


def tabled(page: Path) -> list[str]:
    """What stands in the first cells of a page's tables between backticks, without labels."""
    rows = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    return [name for row in rows for name in re.findall(r"`(\w+)[`{]", row.split(" | ")[0])]


def test_every_metric_is_in_the_table_and_nothing_else(repository: Path) -> None:
    """What a program exposes stands in OBSERVABILITY.md once, figures of quality in QUALITY.md; nothing else does."""
    listed = [name for name in tabled(repository / "docs/OBSERVABILITY.md") if name.startswith("nowgraph_")]
    assert len(listed) == len(set(listed))
    assert set(listed) == {name for name in exposed() if not name.startswith(QUALITY)}
    of_quality = {name.removeprefix(QUALITY) for name in exposed() if name.startswith(QUALITY)}
    assert of_quality <= set(tabled(repository / "docs/QUALITY.md"))


def test_every_metric_in_the_code_is_known_here(repository: Path) -> None:
    """A family of a class that this test forgot would be documented by nobody."""
    known = set(exposed().values())
    made = re.compile(r"(?:Counter|Gauge|Histogram|Info|MetricFamily|histogram)\(\s*\"(nowgraph_\w+)\"")
    for package in PACKAGES:
        for path in (repository / package).rglob("*.py"):
            assert set(made.findall(path.read_text(encoding="utf-8"))) <= known, path
