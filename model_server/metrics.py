"""What the server tells Prometheus: base units, edges on the objectives, labels with few values.

    Metrics() ─► for_task(tenant, task): the same registry, with the labels of one task given

A label without a value is left out, as Prometheus reads it: a server of one tenant has no label `tenant`.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from functools import cached_property
from importlib import metadata
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, GCCollector, Histogram, Info, ProcessCollector
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric

# Edges on the latency objectives (5, 10, 25, 50, 100 ms), with room below for stages and above for what went wrong.
LATENCY_EDGES_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
BATCH_EDGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
# The promise is 5 ms at the 99th percentile; a timer of the loop itself is up to a millisecond late.
STALL_EDGES_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
STAGES = ("queue", "freshness", "sample", "collate", "forward", "encode", "total")
TASK_LABELS = ("tenant", "task")
# Of a task, these are exposed before anything happened: a rate needs a zero to begin from.
_FROM_THE_START = ("stages", "batch_rows", "model_rows", "expired", "cancelled", "queue_rows", "empty_history")

FamilyT = TypeVar("FamilyT", bound=MetricWrapperBase)
ExtensionT = TypeVar("ExtensionT")


class Registry(CollectorRegistry):
    """A registry whose samples have no empty labels."""

    def collect(self) -> Iterator[Metric]:
        """As the base class."""
        for family in super().collect():
            for at, sample in enumerate(family.samples):
                if "" in sample.labels.values():
                    labels = {name: value for name, value in sample.labels.items() if value != ""}
                    family.samples[at] = sample._replace(labels=labels)
            yield family

    def total(self, name: str, **labels: str) -> float:
        """The sum of a name's samples that have these labels, whatever others they have; 0 for none."""
        samples = (sample for family in self.collect() for sample in family.samples)
        return sum(one.value for one in samples if one.name == name and labels.items() <= one.labels.items())


class Bound(Generic[FamilyT]):
    """A family whose last labels are given."""

    def __init__(self, family: FamilyT, *last: str) -> None:
        self._family = family
        self._last = last
        # A family looks its children up under a lock, by labels that it writes anew as strings each time.
        self._children: dict[tuple[str, ...], FamilyT] = {}

    def labels(self, *first: str) -> FamilyT:
        """The child with these labels before those given."""
        child = self._children.get(first)
        if child is None:
            child = self._children[first] = self._family.labels(*first, *self._last)
        return child


class Families:
    """Every family of a server, in a registry of its own: two servers in one process do not share numbers."""

    def __init__(self) -> None:
        self.registry = r = Registry()
        self.extensions: dict[type, object] = {}
        self.requests = Counter("nowgraph_requests", "Requests answered.", ["method", "code", *TASK_LABELS], registry=r)
        self.request_seconds = self.histogram(
            "nowgraph_request_seconds", "From handler entry to answer.", "method", *TASK_LABELS
        )
        self.refusal_seconds = self.histogram(
            "nowgraph_refusal_seconds",
            "From handler entry until a refusal at a full buffer was sent.",
            "method",
            *TASK_LABELS,
        )
        self.stage_seconds = self.histogram("nowgraph_stage_seconds", "One stage of a score.", "stage", *TASK_LABELS)
        self.batch_rows = Histogram(
            "nowgraph_batch_rows", "Rows in one forward pass.", TASK_LABELS, buckets=BATCH_EDGES, registry=r
        )
        self.model_rows = Counter("nowgraph_model_rows", "Rows that reached the model.", TASK_LABELS, registry=r)
        self.abandoned = Counter(
            "nowgraph_abandoned", "Requests dropped before the model saw them.", ["reason", *TASK_LABELS], registry=r
        )
        self.shed = Counter("nowgraph_shed", "Requests refused at a full buffer.", ["buffer", *TASK_LABELS], registry=r)
        self.queue_rows = Gauge("nowgraph_queue_rows", "Rows waiting for the worker.", TASK_LABELS, registry=r)
        self.empty_history = Counter(
            "nowgraph_empty_history", "Scores of rows whose neighborhood had no timed row.", TASK_LABELS, registry=r
        )
        self.predictions = Counter(
            "nowgraph_predictions_published", "Answers by what became of their audit record.", ["outcome"], registry=r
        )
        self.predictions_waiting = Gauge(
            "nowgraph_predictions_waiting", "Answers not yet confirmed by Kafka.", ["tenant"], registry=r
        )
        self.ingested = Counter("nowgraph_ingested_events", "Events confirmed by Kafka.", registry=r)
        self.graph_watermark_age = Gauge(
            "nowgraph_graph_watermark_age_seconds",
            "Server's clock minus the graph's watermark.",
            ["tenant"],
            registry=r,
        )
        self.graph_behind = Gauge(
            "nowgraph_graph_behind_seconds",
            "How long ago the graph held all that its log held; without a log, how long ago it was written.",
            ["tenant"],
            registry=r,
        )
        self.graph_watermark = Gauge(
            "nowgraph_graph_watermark_timestamp_seconds", "The newest event time in the graph.", ["tenant"], registry=r
        )
        self.graph_events = Gauge(
            "nowgraph_graph_events", "Events applied in the graph's generation.", ["tenant"], registry=r
        )
        self.graph_generation = Gauge(
            "nowgraph_graph_generation", "The arena's generation being read.", ["tenant"], registry=r
        )
        self.event_loop_stall = Histogram(
            "nowgraph_event_loop_stall_seconds",
            "How late the event loop came back to a timer: what a request waits before it is read.",
            buckets=STALL_EDGES_S,
            registry=r,
        )
        self.build = Info("nowgraph_build", "What is running.", registry=r)
        observe_process(r)

    def histogram(self, name: str, text: str, *labels: str) -> Histogram:
        """A histogram of durations with the edges of the objectives."""
        return Histogram(name, text, labels, buckets=LATENCY_EDGES_S, registry=self.registry)


class ProcessMetrics:
    """Memory, CPU and open files of this process, and Python's collector: what every process says of itself."""

    def __init__(self) -> None:
        self.registry = Registry()
        observe_process(self.registry)


def observe_process(registry: CollectorRegistry) -> None:
    """Adds what `ProcessMetrics` are to a registry."""
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)


class Metrics:
    """A server's metrics as one task of one tenant writes them; without names, those of the server as a whole."""

    def __init__(self, families: Families | None = None, *, tenant: str = "", task: str = "") -> None:
        self.families = f = families if families is not None else Families()
        self.registry = f.registry
        self.task_labels = (tenant, task)
        self.requests = Bound(f.requests, tenant, task)
        self.request_seconds = Bound(f.request_seconds, tenant, task)
        self.refusal_seconds = Bound(f.refusal_seconds, tenant, task)
        self.shed = Bound(f.shed, tenant, task)
        self.predictions_delivered = f.predictions.labels("delivered")
        self.predictions_retried = f.predictions.labels("retried")
        self.predictions_lost = f.predictions.labels("lost")
        self.predictions_waiting = f.predictions_waiting.labels(tenant)
        self.ingested = f.ingested
        self.event_loop_stall = f.event_loop_stall
        self.build = f.build

    def for_task(self, tenant: str, task: str) -> Metrics:
        """The same registry, with every label of a task given; what is counted begins at 0 for it."""
        found = Metrics(self.families, tenant=tenant, task=task)
        for name in _FROM_THE_START:
            getattr(found, name)
        return found

    def extension(self, kind: Callable[[Families], ExtensionT]) -> ExtensionT:
        """Families that only some servers have: built once for a registry, by their class."""
        assert isinstance(kind, type)
        if kind not in self.families.extensions:
            self.families.extensions[kind] = kind(self.families)
        found: ExtensionT = self.families.extensions[kind]  # type: ignore[assignment]  # the key is its class
        return found

    @cached_property
    def stages(self) -> dict[str, Histogram]:
        """The histogram of each stage of a score."""
        return {name: self.families.stage_seconds.labels(name, *self.task_labels) for name in STAGES}

    @cached_property
    def batch_rows(self) -> Histogram:
        """Rows in one forward pass."""
        return self.families.batch_rows.labels(*self.task_labels)

    @cached_property
    def model_rows(self) -> Counter:
        """Rows that reached the model."""
        return self.families.model_rows.labels(*self.task_labels)

    @cached_property
    def expired(self) -> Counter:
        """Requests whose deadline passed before the model saw them."""
        return self.families.abandoned.labels("expired", *self.task_labels)

    @cached_property
    def cancelled(self) -> Counter:
        """Requests whose caller went away before the model saw them."""
        return self.families.abandoned.labels("cancelled", *self.task_labels)

    @cached_property
    def queue_rows(self) -> Gauge:
        """Rows waiting for the worker."""
        return self.families.queue_rows.labels(*self.task_labels)

    @cached_property
    def empty_history(self) -> Counter:
        """Scores of rows whose neighborhood had no timed row."""
        return self.families.empty_history.labels(*self.task_labels)

    @cached_property
    def graph_watermark_age(self) -> Gauge:
        """The server's clock minus the watermark of the tenant's graph."""
        return self.families.graph_watermark_age.labels(self.task_labels[0])

    @cached_property
    def graph_behind(self) -> Gauge:
        """How long ago the tenant's graph held all that its log held."""
        return self.families.graph_behind.labels(self.task_labels[0])

    @cached_property
    def graph_watermark(self) -> Gauge:
        """The newest event time in the tenant's graph."""
        return self.families.graph_watermark.labels(self.task_labels[0])

    @cached_property
    def graph_events(self) -> Gauge:
        """Events applied in the generation of the tenant's graph."""
        return self.families.graph_events.labels(self.task_labels[0])

    @cached_property
    def graph_generation(self) -> Gauge:
        """The generation being read of the tenant's arena."""
        return self.families.graph_generation.labels(self.task_labels[0])

    def describe(self, *, model_version: str, task: str, kind: str, schema_fingerprint: str) -> None:
        """Names the package, the model, what it predicts (`binary`, `regression`, ...) and the schema being served."""
        self.build.info(
            {
                "version": package_version(),
                "python": platform.python_version(),
                "model_version": model_version,
                "task": task,
                "kind": kind,
                "schema_fingerprint": schema_fingerprint,
            }
        )


def package_version() -> str:
    """The installed distribution's version; `unknown` in a folder that was never installed."""
    try:
        return metadata.version("nowgraph")
    except metadata.PackageNotFoundError:
        return "unknown"
