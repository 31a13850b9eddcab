"""From serving.yaml to what a server is built of: graphs attached, models fetched, verified and warmed up.

ServingConfig ─► tenant: schema, secret, arena or store ─► task: checkpoint or channel ─► Loader ─► TenantSource
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from model_server.calls import task_of
from model_server.config import Place, ServingConfig, TaskConfig, TenantConfig
from model_server.errors import NotConfiguredError
from model_server.generation import Generations
from model_server.ingest import topics_of
from model_server.models.channel import Canary
from model_server.models.errors import ModelRefused
from model_server.models.loader import FolderModels, Loader, Models, RegistryModels
from model_server.models.registry import Registry
from model_server.settings import ServerSettings
from model_server.store import ServedView
from model_server.tenants import Following, TaskSource, TenantSource
from stream.privacy import privacy_for
from temporal_graph.schema import Schema, load_schema

log = structlog.get_logger(__name__)

SecretOf = Callable[[str], bytes | None]
"""Takes the name of an environment variable, and gives the secret in it."""


@dataclass(frozen=True, slots=True)
class Around:
    """What serving.yaml does not say; `publishes`: there is a log to ingest into."""

    predictions_topic: str
    secret_of: SecretOf
    wait_for_graph: Callable[[Schema, Place], None]
    attach: Callable[[Schema, Place], ServedView]
    publishes: bool


def sources_of(config: ServingConfig, settings: ServerSettings, around: Around) -> list[TenantSource]:
    """Attaches every tenant's graph and loads every task's models.

    Raises what loading a schema, an arena or a checkpoint raises, what keeps a store from serving, ModelRefused for a
    live model that must not answer, NotConfiguredError for tenants that would mix their events, and for a task that is
    not the one it is said to be.
    """
    sources = []
    topics: dict[str, str] = {}
    for tenant in config.tenants:
        schema = load_schema(tenant.schema_path)
        own = settings.model_copy(update={"tenant": tenant.name} | _topic(tenant))
        if around.publishes:
            _refuse_mixing(topics, tenant, schema, own)
        around.wait_for_graph(schema, tenant.place)
        attach = partial(around.attach, schema, tenant.place)
        sources.append(
            TenantSource(
                settings=own,
                tasks=[_task(task, models_of(task, own), own, attach) for task in tenant.tasks],
                privacy=privacy_for(schema, around.secret_of(tenant.secret_env)),
                predictions_topic=tenant.predictions_topic or around.predictions_topic,
                rows_per_s=tenant.quota_rows_per_s,
            )
        )
    return sources


def models_of(task: TaskConfig, settings: ServerSettings) -> Models:
    """Where a task's models come from."""
    if task.checkpoint is not None:
        return FolderModels(task.checkpoint)
    assert task.registry is not None
    assert task.name is not None  # the configuration says so
    canary = None if task.canary is None else Canary(task.canary.version, task.canary.share)
    registry = Registry(task.registry, cache=settings.model_cache_path)
    return RegistryModels(registry, task.name, task.channel, canary=canary, shadows=task.shadow, device=settings.device)


def followed(
    models: Models, settings: ServerSettings, view: ServedView, attach: Callable[[], ServedView] | None
) -> TaskSource:
    """Loads what is wanted now over a view, to be kept current from then on. Raises as `Loader.live`."""
    loader = Loader(models, settings)
    wanted = models.wanted()
    serving = loader.live(wanted, view, _leave_out)
    return TaskSource(Generations(serving), following=Following(loader, wanted, attach))


def _task(task: TaskConfig, models: Models, settings: ServerSettings, attach: Callable[[], ServedView]) -> TaskSource:
    source = followed(models, settings, attach(), attach)
    name = task_of(source.generations.current()).name
    if task.name is not None and name != task.name:
        raise NotConfiguredError(f"{task.checkpoint} is of task {name!r}, not of {task.name!r}")
    return TaskSource(source.generations, policy=task.degraded, following=source.following)


def _leave_out(role: str, version: str, error: ModelRefused) -> None:
    log.error("model_refused", role=role, model_version=version, why=str(error.reason), reason=str(error))


def _topic(tenant: TenantConfig) -> dict[str, str]:
    return {} if tenant.ingest_topic is None else {"ingest_topic": tenant.ingest_topic}


def _refuse_mixing(topics: dict[str, str], tenant: TenantConfig, schema: Schema, settings: ServerSettings) -> None:
    """Two tenants' events on one topic would be in both graphs."""
    for topic in sorted(set(topics_of(schema, settings.ingest_topic).values())):
        other = topics.setdefault(topic, tenant.name)
        if other != tenant.name:
            raise NotConfiguredError(
                f"tenants {other!r} and {tenant.name!r} would both ingest into topic {topic!r}: "
                "give each an ingest_topic, or tables protobuf sources of their own"
            )


def names_of(sources: Sequence[TenantSource]) -> list[str]:
    """Every task that is served, with its model's version: for the log."""
    return [
        f"{source.settings.tenant or '-'}/{task_of(serving).name}@{serving.version}"
        for source in sources
        for serving in (task.generations.current() for task in source.tasks)
    ]
