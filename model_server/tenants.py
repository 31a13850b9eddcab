"""What a server is built of: tenants with a graph each, tasks with their models; and how each becomes part of a router.

    TenantSource: settings, privacy, topics ─┬─► Predictions, Quotas, Ingest      one for each tenant
                                             └─► TaskSource ─► Lanes, Switch      one for each task

Tasks share nothing that one of them could use up: each has its own view of the graph, its own queue and its own worker
thread, and a tenant's audit trail has its own buffer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from model_server.calls import Parts, task_of
from model_server.degraded import DegradedPolicy
from model_server.degraded_answer import Staleness
from model_server.errors import NotConfiguredError
from model_server.event_log import EventLog
from model_server.generation import Generations
from model_server.idempotency import Idempotency
from model_server.ingest import Ingest
from model_server.metrics import Metrics
from model_server.models.lanes import Lanes
from model_server.models.loader import Loader, Wanted
from model_server.models.switch import Switch
from model_server.predictions import Predictions
from model_server.quotas import Quotas, quotas_of
from model_server.request import RequestReader
from model_server.router import Tenant
from model_server.settings import ServerSettings
from model_server.store import ServedView, StoreFamilies, StoreView
from stream.privacy import Privacy
from temporal_graph.time_rule import ALWAYS_US

# A tenant's burst is as large as so many seconds of its quota.
QUOTA_BURST_S = 1.0


@dataclass(frozen=True, slots=True)
class Following:
    """Where a task's models come from: what `generations` were loaded for, and what maps a newer graph, if any does."""

    loader: Loader
    wanted: Wanted
    attach: Callable[[], ServedView] | None


@dataclass(frozen=True, slots=True)
class TaskSource:
    """One task: what serves it first, and where newer graphs and models come from, if they do."""

    generations: Generations
    policy: DegradedPolicy | None = None
    following: Following | None = None


@dataclass(frozen=True, slots=True)
class TenantSource:
    """One graph and its tasks.

    `settings.tenant` is its name; `rows_per_s` bounds what all its callers ask together, 0 does not.
    """

    settings: ServerSettings
    tasks: Sequence[TaskSource]
    privacy: Privacy | None
    predictions_topic: str
    rows_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class TenantParts:
    """A tenant of a router, and what a server starts and ends with it."""

    tenant: Tenant
    predictions: Predictions
    staleness: Staleness
    background: Sequence[Callable[[], Awaitable[None]]]

    @property
    def serves(self) -> bool:
        """Whether the tenant's graph is there: of an arena it always is."""
        view = next(iter(self.tenant.tasks.values())).generations.current().watch
        return not isinstance(view, StoreView) or view.serves

    def read_gauges(self) -> None:
        """Tells the metrics where the tenant's graph stands, and which models its tasks are served by."""
        tasks = list(self.tenant.tasks.values())
        metrics, view = self.tenant.metrics, tasks[0].generations.current().watch
        position = view.position()
        metrics.graph_generation.set(position.generation)
        metrics.graph_events.set(position.sequence)
        watermark_us = view.watermark_us
        watermark_s = math.nan if watermark_us == ALWAYS_US else watermark_us / 1e6  # no row has a time yet
        metrics.graph_watermark.set(watermark_s)
        metrics.graph_watermark_age.set(max(time.time() - watermark_s, 0.0))
        said = view.complete_time_us is not None or view.writer_pulse_us > 0
        metrics.graph_behind.set(self.staleness.of_us(view) / 1e6 if said else math.nan)
        if isinstance(view, StoreView):
            metrics.extension(StoreFamilies).serving.labels(metrics.task_labels[0]).set(view.serves and not view.away)
        for lanes in tasks:
            lanes.tell()


def tenant_of(
    source: TenantSource,
    metrics: Metrics,
    *,
    event_log: EventLog | None,
    idempotency: Idempotency | None,
    unread: Callable[[], int] = lambda: 0,
) -> TenantParts:
    """Builds a tenant; `metrics` are the server's, and `unread` says how many calls it has not read yet.

    Raises NotConfiguredError for a model that cannot answer its task, or a task that stands there twice.
    """
    settings, first = source.settings, source.tasks[0].generations
    own = metrics if metrics.task_labels[1] else Metrics(metrics.families, tenant=settings.tenant)
    shared = Parts(
        settings=settings,
        metrics=own,
        reader=_reader(source, first),
        predictions=Predictions(event_log, source.predictions_topic, settings, own),
        privacy=source.privacy,
        quotas=quotas_of(settings, own),
        idempotency=idempotency,
        unread=unread,
    )
    tasks = dict[str, Lanes]()
    background: list[Callable[[], Awaitable[None]]] = []
    for one in source.tasks:
        name = task_of(one.generations.current()).name
        if name in tasks:
            raise NotConfiguredError(f"tenant {settings.tenant!r} has task {name!r} twice")
        labelled = own if own.task_labels[1] else own.for_task(settings.tenant, name)
        reader = _reader(source, one.generations)
        tasks[name] = Lanes(one.generations, replace(shared, metrics=labelled, reader=reader, policy=one.policy))
        background += _kept(tasks[name], one, settings)
    ingest = Ingest(event_log, shared.reader, first.current().watch.schema, settings, own)
    tenant = Tenant(settings.tenant, tasks, ingest, own, _quota(source, own))
    return TenantParts(tenant, shared.predictions, shared.staleness, background)


def _kept(lanes: Lanes, one: TaskSource, settings: ServerSettings) -> list[Callable[[], Awaitable[None]]]:
    """What runs beside the traffic, to keep what is served current."""
    if one.following is None:
        return []
    switch = Switch(
        lanes,
        one.following.loader,
        one.following.wanted,
        attach=one.following.attach,
        generation_poll_s=settings.generation_poll_ms / 1e3,
        models_poll_s=settings.models_poll_s,
    )
    return [switch.run]


def _reader(source: TenantSource, generations: Generations) -> RequestReader:
    serving = generations.current()
    task, schema = task_of(serving), serving.watch.schema
    return RequestReader(schema, source.settings, task=task.name, target=task.target, privacy=source.privacy)


def _quota(source: TenantSource, metrics: Metrics) -> Quotas | None:
    if source.rows_per_s <= 0:
        return None
    own = {source.settings.tenant: source.rows_per_s}
    shed = metrics.shed.labels("quota")
    return Quotas(0.0, burst_s=QUOTA_BURST_S, names_limit=1, by_name=own, shed=shed)
