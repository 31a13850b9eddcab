"""``nowgraph update --store``: a member of the group that keeps the graph in Redis, with its share of the topics."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import structlog

from graph_updater.embedded import UpdaterThread
from graph_updater.metrics import UpdaterMetrics
from graph_updater.settings import UpdaterSettings
from graph_updater.updater import Updater
from nowgraph.assembly import privacy_of, read_topics
from nowgraph.commands.running import Stop, progress_line
from nowgraph.report import positions_text
from stream.dead_letters import DeadLetters
from stream.decode import Decoder
from stream.group_source import GroupSource, Place
from stream.patience import patiently
from stream.producer import EventProducer
from stream.settings import StreamSettings
from temporal_graph.redis.errors import StaleWriterError, StoreLostError, StoreUnavailableError
from temporal_graph.redis.graph import RedisGraph
from temporal_graph.schema import Schema

log = structlog.get_logger(__name__)

_TICK_S = 0.2
_PAUSE_S = 1.0
GROUP = "nowgraph-store-"
"""Begins the name of the consumer group whose members share the topics. The graph's letters follow: members of two
graphs in one group would give each of the two a part of the log."""


@dataclass(frozen=True)
class Membership:
    """What a member needs to know."""

    schema: Schema
    store: str
    stream: StreamSettings
    settings: UpdaterSettings
    metrics: UpdaterMetrics
    until_caught_up: bool
    quiet: bool


def keep_in_store(member: Membership, stop: Stop) -> dict[str, object]:
    """Reads and writes until it is time to stop; returns what it did.

    A member that lost its partitions or its store joins again, also while it starts: it claims anew, and where Redis
    has lost a part of the graph it begins it anew, from the log's begin.

    Raises:
        StoreError, StreamError: before the first batch, whatever else is wrong; later, what does not pass.
    """
    joined = False
    while True:
        try:
            with ExitStack() as stack:
                graph = stack.enter_context(RedisGraph.open(member.store, member.schema))
                updater = _updater(member, graph, stack, stop)
                if updater is None:
                    return _state(member, graph)
                joined = True
                with UpdaterThread(updater) as running:
                    _keep(member, updater, running, stop)
                return _state(member, graph)
        except (StoreLostError, StaleWriterError, StoreUnavailableError) as error:
            if not joined and isinstance(error, StoreUnavailableError):
                raise
            log.warning("this member joins again", reason=str(error))
            if stop.wait(_PAUSE_S):
                return {"stopped": str(error)}


def _updater(member: Membership, graph: RedisGraph, stack: ExitStack, stop: Stop) -> Updater | None:
    """What writes this member's share; None where it is time to stop before the broker answers."""
    made: list[Updater] = []

    def take(places: Sequence[Place], begin_of: Callable[[Place], int]) -> dict[Place, int]:
        positions = graph.hold(places, begin_of)
        for updater in made:
            updater.moved(positions)
        return positions

    producer = stack.enter_context(EventProducer(member.stream))
    topics, later = read_topics(member.schema)
    group = GROUP + graph.graph
    source = patiently(
        lambda: GroupSource(
            topics,
            group=group,
            take=take,
            later=later,
            keep_id=graph.keep_topic,
            stopped=lambda: stop.came,
            settings=member.stream,
        ),
        member.stream.start_patience_s,
        stop.wait,
    )
    if source is None:
        return None
    try:
        graph.expect(source.all_end_positions())
        decoder = Decoder(member.schema, privacy_of(member.schema, member.stream), settings=member.stream)
        letters = DeadLetters(producer, settings=member.stream)
        made.append(Updater(graph, [source], decoder, letters, settings=member.settings, metrics=member.metrics))
    except BaseException:
        source.close()
        raise
    return made[0]


def _keep(member: Membership, updater: Updater, running: UpdaterThread, stop: Stop) -> None:
    begun_s, ready = time.monotonic(), False
    with progress_line(quiet=member.quiet) as show:
        while running.alive and not stop.wait(_TICK_S):
            if not ready and updater.caught_up():
                ready = True
                member.metrics.ready_seconds.set(time.monotonic() - begun_s)
                show("this member's partitions are caught up", lasting=True)
            if ready and member.until_caught_up:
                break
            show("behind" if updater.behind else "live")
    running.check()


def _state(member: Membership, graph: RedisGraph) -> dict[str, object]:
    value = member.metrics.registry.get_sample_value
    return {
        "store": graph.graph,
        "applied": int(value("nowgraph_events_applied_total") or 0),
        "duplicate": int(value("nowgraph_events_duplicate_total") or 0),
        "positions": positions_text(graph.positions),
    }
