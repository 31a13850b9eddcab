from __future__ import annotations

from typing import Any

import pytest

from model_server.generation import Generations, serving_over
from model_server.metrics import Metrics
from model_server.models.loader import FolderModels
from model_server.serving import followed
from model_server.settings import ServerSettings
from model_server.tenants import TaskSource, TenantParts, TenantSource, tenant_of

SETTINGS = ServerSettings(port=0, metrics_port=0, tenant="north")


async def built(source: TenantSource, metrics: Metrics) -> TenantParts:
    """A tenant of a server without Kafka and Redis."""
    return tenant_of(source, metrics, event_log=None, idempotency=None)


def source_of(world: Any, **options: Any) -> TenantSource:
    """A tenant whose one task has the world's model."""
    view = world.graph.view()
    task = TaskSource(Generations(serving_over(view, world.predictor(view))))
    return TenantSource(SETTINGS, [task], world.privacy, "predictions", **options)


async def test_gauges_say_where_a_tenants_graph_stands(world: Any) -> None:
    """By the tenant's name, with the models of its tasks beside."""
    metrics = Metrics()
    parts = await built(source_of(world), metrics)
    parts.read_gauges()
    total = metrics.families.registry.total
    assert total("nowgraph_graph_events", tenant="north") == 100
    newest_s = (world.start_us + 99 * 60_000_000) / 1e6
    assert total("nowgraph_graph_watermark_timestamp_seconds", tenant="north") == pytest.approx(newest_s)
    loaded = "nowgraph_model_loaded_timestamp_seconds"
    assert total(loaded, tenant="north", task="fraud", role="live") > 1e9
    await parts.tenant.tasks["fraud"].close()


async def test_only_models_that_come_from_somewhere_are_watched(world: Any) -> None:
    """A model that was handed in stays; one of a folder or registry is followed beside the traffic."""
    parts = await built(source_of(world), Metrics())
    assert list(parts.background) == []
    task = followed(FolderModels(world.checkpoint), SETTINGS, world.graph.view(), None)
    watched = await built(TenantSource(SETTINGS, [task], world.privacy, "predictions"), Metrics())
    assert len(watched.background) == 1
    for one in (parts, watched):
        await one.tenant.tasks["fraud"].close()


async def test_a_tenants_callers_share_their_quotas_over_its_tasks(world: Any, world_of: Any) -> None:
    """Buckets are the tenant's and not each task's: who asks two tasks gets no more than who asks one."""
    first, second = source_of(world), source_of(world_of("spend"))
    parts = await built(TenantSource(SETTINGS, [*first.tasks, *second.tasks], world.privacy, "predictions"), Metrics())
    quotas = {id(lanes._parts.quotas) for lanes in parts.tenant.tasks.values()}
    assert len(quotas) == 1
    assert parts.tenant.quota is None
    for lanes in parts.tenant.tasks.values():
        await lanes.close()
