"""What the models of a server tell Prometheus: which are loaded, what became of a switch, what shadows say."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram

from model_server.metrics import TASK_LABELS, Families, Metrics
from model_server.models.errors import Reason

# Of probabilities, or a number's share: from what rounding does to what nobody would accept.
DIFFERENCE_EDGES = (1e-5, 1e-4, 1e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
# What becomes of a model that a channel asks for.
OUTCOMES = ("swapped", *(f"refused_{reason}" for reason in Reason))
# What becomes of a row that a shadow is to score.
SHADOW_OUTCOMES = ("scored", "skipped", "failed")


class ModelFamilies:
    """Families of models, in a server's registry."""

    def __init__(self, families: Families) -> None:
        r = families.registry
        self.loaded = Gauge(
            "nowgraph_model_loaded_timestamp_seconds",
            "When a model that is served now was loaded.",
            ["model_version", "role", *TASK_LABELS],
            registry=r,
        )
        self.swaps = Counter(
            "nowgraph_model_swaps", "Models asked for, by what became of it.", ["outcome", *TASK_LABELS], registry=r
        )
        self.canary_share = Gauge(
            "nowgraph_canary_share",
            "Share of the keys that the canary answers; 0 without one.",
            TASK_LABELS,
            registry=r,
        )
        self.canary_failures = Counter(
            "nowgraph_canary_failures",
            "Requests that the canary failed and the live model answered in its place.",
            TASK_LABELS,
            registry=r,
        )
        self.shadow_rows = Counter(
            "nowgraph_shadow_rows",
            "Rows that a shadow was to score, by what became of it.",
            ["outcome", "model_version", *TASK_LABELS],
            registry=r,
        )
        self.shadow_difference = Histogram(
            "nowgraph_shadow_difference",
            "Between a shadow and the live model: of probabilities the largest, of numbers as a share.",
            ["model_version", *TASK_LABELS],
            buckets=DIFFERENCE_EDGES,
            registry=r,
        )
        self.shadow_disagreements = Counter(
            "nowgraph_shadow_disagreements",
            "Answers that would be acted on otherwise: past one half or not, another class, a tenth more or less.",
            ["model_version", *TASK_LABELS],
            registry=r,
        )
        self.shadow_seconds = families.histogram(
            "nowgraph_shadow_seconds", "One batch of one shadow.", "model_version", *TASK_LABELS
        )


class ModelMetrics:
    """Those families as one task writes them; labels of versions that are gone go with them."""

    def __init__(self, metrics: Metrics) -> None:
        self._families = metrics.extension(ModelFamilies)
        self._task = metrics.task_labels
        self._loaded: dict[tuple[str, str], float] = {}
        self.canary_share = self._families.canary_share.labels(*self._task)
        self._canary_failures = self._families.canary_failures.labels(*self._task)
        for outcome in OUTCOMES:
            self._families.swaps.labels(outcome, *self._task)

    def canary_failed(self, requests: int) -> None:
        """Counts requests that the live model answers in the canary's place."""
        self._canary_failures.inc(requests)

    def swapped(self) -> None:
        """Counts a model that is served from now on."""
        self._families.swaps.labels("swapped", *self._task).inc()

    def refused(self, reason: Reason) -> None:
        """Counts a model that is not."""
        self._families.swaps.labels(f"refused_{reason}", *self._task).inc()

    def serving(self, models: Iterable[tuple[str, str]], now_s: float) -> None:
        """What is served now, each its role and version; what was there before keeps its time."""
        kept = {model: self._loaded.get(model, now_s) for model in models}
        for role, version in self._loaded.keys() - kept.keys():
            self._families.loaded.remove(version, role, *self._task)
            if role == "shadow":
                self._forget_shadow(version)
        for (role, version), loaded_s in kept.items():
            self._families.loaded.labels(version, role, *self._task).set(loaded_s)
        self._loaded = kept

    def shadow(self, version: str) -> ShadowMetrics:
        """Those of one shadow."""
        return ShadowMetrics(self._families, version, self._task)

    def _forget_shadow(self, version: str) -> None:
        families = self._families
        for family in (families.shadow_difference, families.shadow_disagreements, families.shadow_seconds):
            _remove(family, version, *self._task)
        for outcome in SHADOW_OUTCOMES:
            _remove(families.shadow_rows, outcome, version, *self._task)


class ShadowMetrics:
    """Metrics of one shadow of one task."""

    def __init__(self, families: ModelFamilies, version: str, task: tuple[str, str]) -> None:
        self.rows = {outcome: families.shadow_rows.labels(outcome, version, *task) for outcome in SHADOW_OUTCOMES}
        self.difference = families.shadow_difference.labels(version, *task)
        self.disagreements = families.shadow_disagreements.labels(version, *task)
        self.seconds = families.shadow_seconds.labels(version, *task)


def _remove(family: Counter | Histogram, *labels: str) -> None:
    try:
        family.remove(*labels)
    except KeyError:  # it never said anything
        return
