"""What a server stands on: schemas, graphs, models, Kafka, Redis, TLS and access files."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nowgraph.doctor import Finding, Graph, Patient, Status, guarded
from temporal_graph.schema import Schema, load_schema

if TYPE_CHECKING:
    from model_server.settings import ServerSettings
    from stream.settings import StreamSettings
    from temporal_graph.view import GraphView

# A certificate that is renewed by itself is renewed long before.
CERTIFICATE_DAYS_MIN = 14.0
# Behind its log by more than this, an updater is not keeping up, or gone; it looks every five seconds.
BEHIND_MAX_S = 30.0
# What is asked answers at once or not at all.
ASK_TIMEOUT_S = 3.0
# A graph that fills more of its file system than this will soon stop its writer.
USED_SHARE_MAX = 0.9


def examine(patient: Patient) -> Iterator[Finding]:
    """All that the patient has."""
    settings, stream = patient.settings, patient.stream
    schemas: list[Schema] = []
    for graph in patient.graphs:
        yield from guarded(f"{graph.label}schema", partial(_graph, graph, schemas))
    if stream is not None:
        mend = "start Kafka, or correct --bootstrap-servers and NOWGRAPH_KAFKA_CONFIG"
        yield from guarded("kafka", lambda: _kafka(stream, schemas), mend)
    if settings.redis_url is not None or settings.idempotency_window_s is not None:
        yield from guarded("redis", lambda: _redis(settings), "start Redis, or correct NOWGRAPH_SERVER_REDIS_URL")
    yield from guarded("tls", lambda: _tls(settings), "docs/SECURITY.md")
    if settings.access_path is not None:
        yield from guarded("access", lambda: _access(settings), "`nowgraph token` makes entries")


def _graph(graph: Graph, schemas: list[Schema]) -> Iterator[Finding]:
    if graph.schema is None:
        return
    schema = load_schema(graph.schema)
    schemas.append(schema)
    label = graph.label
    yield Finding(
        f"{label}schema", Status.OK, f"{schema.name}, {len(schema.tables)} tables, {schema.fingerprint()[:12]}"
    )
    if graph.arena is not None:
        arena = graph.arena
        mend = "start `nowgraph update` with this arena and schema; a new graph serves once it has caught up"
        yield from guarded(f"{label}arena", lambda: _arena(f"{label}arena", schema, arena), mend)
    if graph.store is not None:
        url = graph.store.get_secret_value()
        mend = "start Redis and `nowgraph update --store` with this schema; a graph serves once it has caught up"
        yield from guarded(f"{label}store", lambda: _store(f"{label}store", schema, url), mend)
    for folder in graph.checkpoints:
        check = f"{label}checkpoint"
        mend = "train it for this schema, or copy it anew"
        yield from guarded(check, partial(_checkpoint, check, schema, folder), mend)


def _arena(check: str, schema: Schema, folder: Path) -> Iterator[Finding]:
    from temporal_graph.generations import arena_path
    from temporal_graph.view import GraphView

    with closing(GraphView.attach(schema, folder)) as view:
        status = arena_path(folder, view.generation).stat()
        used = status.st_blocks * 512
        found = (
            f"generation {view.generation}, {view.position().sequence:,} events, {used / 2**20:,.0f} MiB of "
            f"{status.st_size / 2**20:,.0f} MiB"
        )
        yield Finding(check, Status.OK, found)
        yield _room(f"{check}'s room", folder, used, status.st_size)
        yield _progress(f"{check}'s updater", view)


def _room(check: str, folder: Path, used: int, size: int) -> Finding:
    """Whether what the arena may still take is there: it is a sparse file, and a full file system stops its writer."""
    import shutil

    free = shutil.disk_usage(folder).free
    left = min(size - used, free)
    found = f"{left / 2**20:,.0f} MiB left for the graph, {free / 2**20:,.0f} MiB free in its file system"
    if used > USED_SHARE_MAX * (used + left):
        mend = "a larger arena (--arena-bytes), more memory for its file system, or a shorter retention in the schema"
        return Finding(check, Status.FAIL if left == 0 else Status.WARN, found, mend)
    return Finding(check, Status.OK, found)


def _store(check: str, schema: Schema, url: str) -> Iterator[Finding]:
    from temporal_graph.redis.view import RedisView

    with RedisView.open(url, schema, timeout_s=ASK_TIMEOUT_S, patience_s=ASK_TIMEOUT_S) as view:
        state = view.state()
    held = f"graph {state.graph} serves, {len(state.positions)} partitions, {sum(state.positions.values()):,} offsets"
    yield Finding(check, Status.OK, held)
    if state.complete_time_us is None:
        yield Finding(f"{check}'s updaters", Status.OK, "they have not all said up to when the graph is complete")
    else:
        yield _complete(f"{check}'s updaters", (time.time_ns() // 1_000 - state.complete_time_us) / 1e6)


def _progress(check: str, view: GraphView) -> Finding:
    from model_server.degraded_answer import staleness_us

    behind_s = staleness_us(view, time.time_ns() // 1_000) / 1e6
    if view.complete_time_us is None:
        return Finding(
            check, Status.OK, f"wrote {behind_s:,.0f} s ago; it has not said up to when the graph is complete"
        )
    return _complete(check, behind_s)


def _complete(check: str, behind_s: float) -> Finding:
    found = f"the graph held all of its log {behind_s:,.0f} s ago"
    if behind_s > BEHIND_MAX_S:
        mend = "look at the updater's log and nowgraph_behind: it has ended, cannot reach Kafka, or does not keep up"
        return Finding(check, Status.WARN, found, mend)
    return Finding(check, Status.OK, found)


def _checkpoint(check: str, schema: Schema, folder: Path) -> Iterator[Finding]:
    from graph_transformer.checkpoint import Checkpoint

    checkpoint = Checkpoint.load(folder, schema)
    kind = checkpoint.task.target.kind.value
    yield Finding(check, Status.OK, f"{folder}: {checkpoint.task.name}, {kind}, version {checkpoint.version}")


def _kafka(stream: StreamSettings, schemas: list[Schema]) -> Iterator[Finding]:
    from stream.errors import ConfigurationError
    from stream.kafka_source import KafkaSource
    from stream.settings import EVENTS_TOPIC

    # librdkafka logs every attempt: one a second is enough to be told once.
    config = {**stream.kafka_config, "reconnect.backoff.ms": "1000", "reconnect.backoff.max.ms": "2000"}
    asking = stream.model_copy(update={"broker_timeout_s": ASK_TIMEOUT_S, "kafka_config": config})
    needed = [source.topic for schema in schemas for source in schema.sources]
    made = [stream.predictions_topic, stream.dead_letter_topic, EVENTS_TOPIC]
    for topic in dict.fromkeys(needed + made):
        try:
            with closing(KafkaSource([topic], gaps="allow", settings=asking)) as source:
                first, ends = source.positions, source.end_positions()
        except ConfigurationError:
            status = Status.FAIL if topic in needed else Status.WARN
            yield Finding(f"topic {topic}", status, "does not exist", "kafka-topics.sh --create --topic " + topic)
            continue
        count = sum(end - first[place] for place, end in ends.items())
        yield Finding(
            f"topic {topic}", Status.OK, f"{len(ends)} partitions, {count:,} offsets, the end at {_most(ends)}"
        )


def _most(ends: dict[tuple[str, int], int]) -> str:
    shown = [f"{partition}={end}" for (_, partition), end in sorted(ends.items())]
    return ", ".join(shown[:4]) + (", ..." if len(shown) > 4 else "")


def _redis(settings: ServerSettings) -> Iterator[Finding]:
    from model_server.idempotency import idempotency_of
    from model_server.metrics import Metrics

    async def ask() -> float:
        probe = settings if settings.idempotency_window_s else settings.model_copy(update={"idempotency_window_s": 1.0})
        idempotency = idempotency_of(probe, Metrics())
        assert idempotency is not None
        start_s = time.perf_counter()
        try:
            await idempotency.start()
        finally:
            await idempotency.close()
        return time.perf_counter() - start_s

    yield Finding("redis", Status.OK, f"answered within {asyncio.run(ask()) * 1e3:.0f} ms, the connection included")


def _tls(settings: ServerSettings) -> Iterator[Finding]:
    from model_server.security.guard import is_loopback, refuse_plain_text, tls_files
    from model_server.security.tls import days_left, load_identity

    files = tls_files(settings)
    if files is None:
        refuse_plain_text(settings)
        if is_loopback(settings.host):
            yield Finding("tls", Status.OK, "none: the port is on loopback")
        else:
            mend = "only where a mesh, a proxy or a private network encrypts: docs/SECURITY.md"
            yield Finding("tls", Status.WARN, f"none, on {settings.host}: insecure is set", mend)
        return
    identity = load_identity(files)
    days = days_left(identity)
    found = f"{', '.join(identity.names) or 'no names'}, {days:.0f} days left" + (", mTLS" if files.client_ca else "")
    if days < CERTIFICATE_DAYS_MIN:
        yield Finding("tls", Status.WARN, found, "renew it; the server takes new files without a restart")
    else:
        yield Finding("tls", Status.OK, found)


def _access(settings: ServerSettings) -> Iterator[Finding]:
    from model_server.security.access import load_access

    assert settings.access_path is not None
    access = load_access(settings.access_path)
    yield Finding("access", Status.OK, f"{access.tokens} tokens, {access.certificates} certificates")
