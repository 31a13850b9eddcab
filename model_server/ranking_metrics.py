"""What a server of lists tells Prometheus beside what every server does."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

from graph_transformer.ranking.lists import Source
from model_server.metrics import TASK_LABELS, Families, Metrics

STAGES = ("queue", "freshness", "retrieve", "forward", "rules", "encode", "total")
LENGTH_EDGES = (0, 1, 5, 10, 20, 50, 100, 200, 500, 1000)
# From the click that a page shows at once to the one that only the next visit would.
FRESHNESS_EDGES_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)


class RankFamilies:
    """Families of lists, in a server's registry."""

    def __init__(self, families: Families) -> None:
        r = families.registry
        self.stage_seconds = families.histogram(
            "nowgraph_rank_stage_seconds", "Time of one stage of a list.", "stage", *TASK_LABELS
        )
        self.list_items = Histogram(
            "nowgraph_rank_list_items", "Items shown.", TASK_LABELS, buckets=LENGTH_EDGES, registry=r
        )
        self.candidates = Histogram(
            "nowgraph_rank_candidates", "Items ranked for a list.", TASK_LABELS, buckets=LENGTH_EDGES, registry=r
        )
        self.shown = Counter(
            "nowgraph_rank_shown_items",
            "Items shown, by each source they came from.",
            ["source", *TASK_LABELS],
            registry=r,
        )
        self.fallbacks = Counter(
            "nowgraph_rank_fallbacks", "Lists for somebody of whom nothing was known.", TASK_LABELS, registry=r
        )
        self.event_to_rank = Histogram(
            "nowgraph_event_to_rank_seconds",
            "From the newest interaction to the list that knows it, of lists asked for now with a freshness token.",
            TASK_LABELS,
            buckets=FRESHNESS_EDGES_S,
            registry=r,
        )


class RankMetrics:
    """Metrics of one task's lists."""

    def __init__(self, metrics: Metrics) -> None:
        families, labels = metrics.extension(RankFamilies), metrics.task_labels
        self.stages = {name: families.stage_seconds.labels(name, *labels) for name in STAGES}
        self.list_items = families.list_items.labels(*labels)
        self.candidates = families.candidates.labels(*labels)
        self.shown = {source: families.shown.labels(str(source.name).lower(), *labels) for source in Source}
        self.fallbacks = families.fallbacks.labels(*labels)
        self.event_to_rank = families.event_to_rank.labels(*labels)
