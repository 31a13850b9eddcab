"""``nowgraph erase``: a key and all that is its own, forgotten by the graph, its snapshots and every rebuild.

key ─► hashed where it is private ─► RowEvent ─► Kafka ─► the updater, and whoever replays the log
                                            └─► snapshots that no updater looks after, written anew
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from graph_updater.erasures import erased_of, removed_since
from nowgraph.assembly import privacy_of
from nowgraph.commands.options import AsJson, SchemaPath
from nowgraph.errors import NowgraphError, UsageError
from nowgraph.report import emit, iso_text
from protos.nowgraph.v1 import row_event_pb2
from stream.producer import Delivery, EventProducer
from stream.settings import EVENTS_TOPIC, StreamSettings
from stream.values import parse_time_us
from temporal_graph.graph import ARENA_BYTES
from temporal_graph.schema import KeyType, Schema, Table, load_schema
from temporal_graph.snapshot_erasure import erase_in_snapshots
from temporal_graph.snapshots import Snapshots
from temporal_graph.view import GraphView

_LOOK_S = 0.05


class NotErasedError(NowgraphError):
    """The erasure is in the log, and the graph has not applied it in time."""


def erase(
    table: Annotated[str, typer.Argument(help="The table of the row.")],
    key: Annotated[list[str], typer.Argument(help="Its primary key; all parts of it where it has several.")],
    *,
    schema: SchemaPath,
    bootstrap_servers: Annotated[
        str, typer.Option(envvar="KAFKA_BOOTSTRAP", help="Publish the erasure to this Kafka, as host:port.")
    ] = "",
    topic: Annotated[str, typer.Option(help="The topic that takes it, as a RowEvent.")] = EVENTS_TOPIC,
    until: Annotated[
        str | None, typer.Option(help="Erase what happened until this time (ISO 8601); default: now.")
    ] = None,
    arena: Annotated[
        Path | None, typer.Option("--arena", help="Wait for this live graph and say what it has removed.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for it.")] = 60.0,
    snapshots: Annotated[
        str | None,
        typer.Option("--snapshots", help="Write the snapshots of this folder or URL anew, without what is erased."),
    ] = None,
    arena_bytes: Annotated[int, typer.Option(help="Size of the graph that a snapshot is restored to.")] = ARENA_BYTES,
    as_json: AsJson = False,
) -> None:
    """Erase a row and every row that is its own, until a time: versions, links, keys and strings, byte by byte.

    The erasure is an event of the log, so that a rebuild forgets too. An updater's own snapshots are rid of it with the
    next one it makes; --snapshots is for those that no updater looks after. A snapshot that can't be read can't be
    written anew: it is named, and the exit code is 1.
    """
    if not bootstrap_servers and snapshots is None:
        raise UsageError("--bootstrap-servers or --snapshots says where to erase")
    if arena is not None and not bootstrap_servers:
        raise UsageError("--arena: only an erasure that is published (--bootstrap-servers) is waited for")
    loaded, settings = load_schema(schema), StreamSettings(kafka_bootstrap=bootstrap_servers or "unused:0")
    event = erasure(loaded, settings, table, key, _now_us() if until is None else parse_time_us(until, "--until"))
    if bootstrap_servers:
        _refuse_future(loaded.table(table), event.event_time_us)
    document: dict[str, Any] = {"table": table, "until": iso_text(event.event_time_us)}
    title = f"Erased until {document['until']}"
    rows: list[dict[str, Any]] = []
    if bootstrap_servers:
        view = None if arena is None else GraphView.attach(loaded, arena)
        before = {} if view is None else erased_of(view)
        erasures = 0 if view is None else view.erasures
        with EventProducer(settings) as producer:
            delivery = producer.publish_event(topic, event, hashed=True).result(settings.delivery_timeout_s)
        document["published"] = f"{delivery.topic}/{delivery.partition}@{delivery.offset}"
        if view is not None:
            _wait(view, delivery, timeout)
            removed = removed_since(before, erased_of(view))
            document["removed"] = {name: asdict(counts) for name, counts in removed.items()}
            rows = [{"table": name, **asdict(counts)} for name, counts in removed.items()]
            if view.erasures == erasures:
                title = f"Nothing erased: it was before, or record {document['published']} is a dead letter"
            document["changed"] = view.erasures > erasures
            view.close()
    unreadable = False
    if snapshots is not None:
        done = erase_in_snapshots(Snapshots(snapshots), loaded, [event.SerializeToString()], arena_bytes=arena_bytes)
        document["snapshots rewritten"] = [each.name for each in done.rewritten]
        document["snapshots clean"] = [each.name for each in done.clean]
        document["snapshots that can't be read"] = {each.name: each.reason for each in done.refused}
        unreadable = bool(done.refused)
    plain = {name: value for name, value in document.items() if name != "removed"}
    emit(rows or [plain], title=title, as_json=as_json, document=document)
    if unreadable:
        raise typer.Exit(1)


def erasure(
    schema: Schema, settings: StreamSettings, table: str, key: Sequence[str], until_us: int
) -> row_event_pb2.RowEvent:
    """The event that erases a key; private parts of it are hashed, as at the door.

    Raises:
        UsageError: the table has no primary key, or not one of these parts.
        SchemaError: there is no such table.
        ConfigurationError: the key is private and there is no secret.
    """
    found = schema.table(table)
    if len(found.primary_key) != len(key) or not key:
        names = ", ".join(part.name for part in found.primary_key) or "no primary key"
        raise UsageError(f"{table}: expected a value for each part of its key ({names}), found {len(key)}")
    privacy = privacy_of(schema, settings)
    event = row_event_pb2.RowEvent(table=table, operation=row_event_pb2.OPERATION_ERASE, event_time_us=until_us)
    for part, value in zip(found.primary_key, key, strict=True):
        if part.type is KeyType.INTEGER:
            try:
                event.key.parts.add(integer=int(value))
            except ValueError:
                raise UsageError(f"{table}.{part.name}: expected an integer") from None
        else:
            event.key.parts.add(text=value)
    if privacy is not None:
        privacy.protect(event)
    return event


def _refuse_future(table: Table, until_us: int) -> None:
    """Raises UsageError for a time that updaters would not take: the erasure would only be a dead letter."""
    if table.known_time.kind == "broker" and until_us - _now_us() > table.future_us:
        raise UsageError(
            f"--until {iso_text(until_us)}: of table {table.name!r} no event is taken that lies more than "
            f"{table.future_us / 1e6:g} s in the future"
        )


def _wait(view: GraphView, delivery: Delivery, timeout_s: float) -> None:
    """Returns once the graph has applied the record and overwritten what it erased."""
    place, deadline_s = (delivery.topic, delivery.partition), time.monotonic() + timeout_s
    while view.position().offsets.get(place, 0) <= delivery.offset or view.overwrites_due:
        if view.superseded:
            raise NotErasedError("another generation of the graph serves by now: it applies the erasure as well")
        if time.monotonic() > deadline_s:
            raise NotErasedError(f"not applied within {timeout_s:g} s; the erasure is in the log, at {delivery}")
        time.sleep(_LOOK_S)


def _now_us() -> int:
    return time.time_ns() // 1_000
