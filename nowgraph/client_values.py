"""Between Python's values and the wire's: rows to score, typed cells without a schema, answers as dataclasses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from numbers import Integral, Real
from typing import Literal, TypedDict

from nowgraph.client_errors import ServerFailureError
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import row_event_pb2
from temporal_graph.time_rule import time_us_from_datetime

KeyPart = int | str
Key = KeyPart | tuple[KeyPart, ...] | None
Value = None | bool | int | float | str | datetime | Sequence[str] | Sequence[float] | tuple[KeyPart, ...]
Time = datetime | int | None
Operation = Literal["insert", "upsert", "delete"]
Priority = Literal["interactive", "batch"]
Kind = Literal["binary", "multiclass", "multilabel", "regression", "forecast"]

_KINDS: dict[service_pb2.TargetKind.ValueType, Kind] = {
    service_pb2.TARGET_KIND_UNSPECIFIED: "binary",  # servers from before there were kinds
    service_pb2.TARGET_KIND_BINARY: "binary",
    service_pb2.TARGET_KIND_MULTICLASS: "multiclass",
    service_pb2.TARGET_KIND_MULTILABEL: "multilabel",
    service_pb2.TARGET_KIND_REGRESSION: "regression",
    service_pb2.TARGET_KIND_FORECAST: "forecast",
}

PRIORITIES: dict[Priority | None, service_pb2.Priority.ValueType] = {
    None: service_pb2.PRIORITY_UNSPECIFIED,
    "interactive": service_pb2.PRIORITY_INTERACTIVE,
    "batch": service_pb2.PRIORITY_BATCH,
}
_OPERATIONS = {
    "insert": row_event_pb2.OPERATION_INSERT,
    "upsert": row_event_pb2.OPERATION_UPSERT,
    "delete": row_event_pb2.OPERATION_DELETE,
}


@dataclass(frozen=True, slots=True)
class FreshnessToken:
    """An event's place in the log; pass it to a score that must know of the event."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Row:
    """A row to score, or, for a task about entities, only table and key, as of the event time.

    `event_time`: a datetime (without zone: UTC) or int64 microseconds; None: the server's clock.
    """

    table: str
    key: Key = None
    cells: Mapping[str, Value] = field(default_factory=dict)
    event_time: Time = None
    freshness_token: FreshnessToken | None = None
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class GraphPosition:
    """What the answer was computed at: `offsets` maps (topic, partition) to the first offset not applied."""

    generation: int
    sequence: int
    offsets: Mapping[tuple[str, int], int]


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time went on the server, in microseconds."""

    queue_us: int
    freshness_wait_us: int
    sample_us: int
    collate_us: int
    forward_us: int
    total_us: int


@dataclass(frozen=True, slots=True)
class ClassScore:
    """How likely one class is, calibrated."""

    name: str
    probability: float
    logit: float


@dataclass(frozen=True, slots=True)
class ForecastStep:
    """One window of a forecast: the median, and level -> value of its quantiles."""

    value: float
    quantiles: Mapping[float, float]


@dataclass(frozen=True, slots=True)
class Degraded:
    """Why an answer is less than the model on a fresh graph would give.

    `stale_graph`: the graph lay `graph_staleness_us` behind its log. `rule`: the model could not run, and a rule of the
    task's policy says what is to be done (`decision`).
    """

    reason: Literal["stale_graph", "rule"]
    graph_staleness_us: int | None = None
    rule: str = ""
    decision: str = ""


@dataclass(frozen=True, slots=True)
class Score:
    """A calibrated answer and what it rests on.

    `kind` says which fields are set: `probability` and `logit` of a "binary" task; `classes`, in the task's order, of a
    "multiclass" or "multilabel" one; `value` (the median) and `quantiles` (level -> value) of a "regression"; `steps`,
    the nearest window first, of a "forecast". Numbers are in the unit of what is predicted. An answer that a rule gave
    (`degraded`) has at most a probability, and no model's version.
    """

    request_id: str
    task: str
    kind: Kind
    probability: float | None
    logit: float | None
    classes: tuple[ClassScore, ...]
    value: float | None
    quantiles: Mapping[float, float]
    steps: tuple[ForecastStep, ...]
    model_version: str
    cutoff_time_us: int
    neighbor_count: int
    history_count: int
    newest_neighbor_age_us: int | None
    graph_position: GraphPosition
    timing: Timing
    degraded: Degraded | None = None


@dataclass(frozen=True, slots=True)
class Neighbor:
    """One row that the model saw; `parent` is its parent's index among the neighbors, -1 for the scored row."""

    table: str
    key: Key
    hop: int
    parent: int
    link: str
    event_time_us: int | None
    known_time_us: int | None
    version: int
    cells: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Neighborhood:
    """What the model saw for one row."""

    cutoff_time_us: int
    graph_position: GraphPosition
    neighbors: tuple[Neighbor, ...]


def key_to_wire(key: Key) -> row_event_pb2.Key:
    """An int, a str, or a tuple of them for a composite key; None is no key. Raises TypeError for anything else."""
    if key is None:
        return row_event_pb2.Key()
    parts = key if isinstance(key, tuple) else (key,)
    return row_event_pb2.Key(parts=[_part_to_wire(part) for part in parts])


def _part_to_wire(part: object) -> row_event_pb2.KeyPart:
    if isinstance(part, str):
        return row_event_pb2.KeyPart(text=part)
    if not isinstance(part, bool) and isinstance(part, Integral):
        return row_event_pb2.KeyPart(integer=int(part))
    raise TypeError(f"a key part is an int or a str, found {type(part).__name__}")


def cell_to_wire(column: str, value: Value) -> row_event_pb2.Cell:
    """One typed cell, by the value's own type: no schema is needed.

    None null, bool boolean, int integer, float number, str text, datetime timestamp, list of str texts, other list of
    numbers vector, tuple a composite key. Raises TypeError for anything else.
    """
    cell = row_event_pb2.Cell(column=column)
    if value is None:
        cell.null = row_event_pb2.NULL_VALUE_UNSPECIFIED
    elif isinstance(value, bool):
        cell.boolean = value
    elif isinstance(value, Integral):
        cell.integer = int(value)
    elif isinstance(value, Real):
        cell.number = float(value)
    elif isinstance(value, str):
        cell.text = value
    elif isinstance(value, datetime):
        cell.timestamp_us = time_us_from_datetime(value)
    elif isinstance(value, tuple):
        cell.key.CopyFrom(key_to_wire(value))
    elif not isinstance(value, Sequence) or isinstance(value, bytes | bytearray | memoryview):
        raise TypeError(f"column {column!r}: no cell can hold a {type(value).__name__}")
    elif all(isinstance(item, str) for item in value):
        cell.texts.CopyFrom(row_event_pb2.TextList(values=[str(item) for item in value]))
    elif all(isinstance(item, Real) for item in value):
        cell.vector.CopyFrom(row_event_pb2.Vector(values=[float(item) for item in value]))
    else:
        raise TypeError(f"column {column!r}: a list is of texts or of numbers")
    return cell


def time_to_wire(time: Time) -> int | None:
    """Microseconds of a datetime or of an int that is already that. Raises TypeError for a float."""
    if time is None or (isinstance(time, int) and not isinstance(time, bool)):
        return time
    if isinstance(time, datetime):
        return time_us_from_datetime(time)
    raise TypeError(f"a time is a datetime or int microseconds, found {type(time).__name__}")


class Addressed(TypedDict, total=False):
    """To which task and tenant a client's requests go, and in which class; without one the method decides it."""

    task: str
    tenant: str
    priority: Priority | None


def row_to_wire(
    row: Row, *, task: str = "", tenant: str = "", priority: Priority | None = None
) -> service_pb2.ScoreRequest:
    """A request that scores one row."""
    token = row.freshness_token
    return service_pb2.ScoreRequest(
        task=task,
        tenant=tenant,
        priority=PRIORITIES[priority],
        request_id=row.request_id,
        row=row_event_to_wire(row),
        freshness_token=None if token is None else token_to_wire(token),
    )


def row_event_to_wire(
    row: Row, *, operation: Operation = "insert", known_time: Time = None, event_id: str = ""
) -> row_event_pb2.RowEvent:
    """A row as an event."""
    return row_event_pb2.RowEvent(
        event_id=event_id,
        table=row.table,
        operation=_OPERATIONS[operation],
        key=key_to_wire(row.key),
        event_time_us=time_to_wire(row.event_time),
        known_time_us=time_to_wire(known_time),
        cells=[cell_to_wire(column, value) for column, value in row.cells.items()],
    )


def token_to_wire(token: FreshnessToken) -> service_pb2.FreshnessToken:
    """A freshness token as a request carries it."""
    return service_pb2.FreshnessToken(topic=token.topic, partition=token.partition, offset=token.offset)


def token_from_wire(response: service_pb2.IngestResponse) -> FreshnessToken:
    """The freshness token of an event that was published."""
    token = response.freshness_token
    return FreshnessToken(token.topic, token.partition, token.offset)


def event_to_wire(
    row: Row, *, operation: Operation, known_time: Time, event_id: str, tenant: str
) -> service_pb2.IngestRequest:
    """A request that publishes one change to a row."""
    event = row_event_to_wire(row, operation=operation, known_time=known_time, event_id=event_id)
    return service_pb2.IngestRequest(tenant=tenant, event=event)


def score_from_wire(response: service_pb2.ScoreResponse) -> Score:
    """An answer as the caller sees it; raises ServerFailureError for a kind from after this client's time."""
    timing = response.timing
    kind = _KINDS.get(response.kind)
    if kind is None:
        raise ServerFailureError(
            "a kind of answer that this client does not know: update nowgraph", code="UNIMPLEMENTED"
        )
    degraded = degraded_from_wire(response)
    # Of a rule, no probability is 0.0 on the wire: rules give only those between 0 and 1.
    has_none = degraded is not None and degraded.reason == "rule" and response.probability == 0
    is_binary = kind == "binary" and not has_none
    return Score(
        request_id=response.request_id,
        task=response.task,
        kind=kind,
        probability=response.probability if is_binary else None,
        logit=response.logit if is_binary else None,
        classes=tuple(ClassScore(one.name, one.probability, one.logit) for one in response.classes),
        value=response.value if response.HasField("value") else None,
        quantiles=_quantiles(response.quantiles),
        steps=tuple(ForecastStep(step.value, _quantiles(step.quantiles)) for step in response.steps),
        model_version=response.model_version,
        cutoff_time_us=response.cutoff_time_us,
        neighbor_count=response.neighbor_count,
        history_count=response.history_count,
        newest_neighbor_age_us=_optional(response, "newest_neighbor_age_us"),
        graph_position=position_from_wire(response.graph_position),
        timing=Timing(
            timing.queue_us,
            timing.freshness_wait_us,
            timing.sample_us,
            timing.collate_us,
            timing.forward_us,
            timing.total_us,
        ),
        degraded=degraded,
    )


def degraded_from_wire(response: service_pb2.ScoreResponse | service_pb2.RankResponse) -> Degraded | None:
    """The mark of a degraded answer; None of one that is not."""
    if not response.HasField("degraded"):
        return None
    mark = response.degraded
    return Degraded(
        reason="rule" if mark.reason == service_pb2.DEGRADED_REASON_RULE else "stale_graph",
        graph_staleness_us=mark.graph_staleness_us if mark.HasField("graph_staleness_us") else None,
        rule=mark.rule,
        decision=mark.decision,
    )


def position_from_wire(position: service_pb2.GraphPosition) -> GraphPosition:
    """A graph position as the caller sees it."""
    offsets = {(part.topic, part.partition): part.next_offset for part in position.partitions}
    return GraphPosition(position.generation, position.sequence, offsets)


def neighborhood_from_wire(response: service_pb2.NeighborhoodResponse) -> Neighborhood:
    """A neighborhood as the caller sees it."""
    neighbors = tuple(
        Neighbor(
            table=row.table,
            key=key_from_wire(row.key),
            hop=row.hop,
            parent=row.parent,
            link=row.link,
            event_time_us=_optional(row, "event_time_us"),
            known_time_us=_optional(row, "known_time_us"),
            version=row.version,
            cells={cell.column: value_from_wire(cell) for cell in row.cells},
        )
        for row in response.neighbors
    )
    return Neighborhood(response.cutoff_time_us, position_from_wire(response.graph_position), neighbors)


def key_from_wire(key: row_event_pb2.Key) -> Key:
    """None without parts, the part itself for one, a tuple for several."""
    parts: tuple[KeyPart, ...] = tuple(
        part.integer if part.WhichOneof("part") == "integer" else part.text for part in key.parts
    )
    return None if not parts else parts[0] if len(parts) == 1 else parts


def value_from_wire(cell: row_event_pb2.Cell) -> Value:
    """A cell's value; a timestamp is its int64 microseconds, exactly."""
    kind = cell.WhichOneof("value")
    if kind is None or kind == "null":
        return None
    if kind == "texts":
        return list(cell.texts.values)
    if kind == "vector":
        return list(cell.vector.values)
    if kind == "key":
        return key_from_wire(cell.key)
    value: Value = getattr(cell, kind)
    return value


def _quantiles(quantiles: Iterable[service_pb2.Quantile]) -> dict[float, float]:
    return {quantile.level: quantile.value for quantile in quantiles}


def _optional(message: service_pb2.ScoreResponse | service_pb2.Neighbor, name: str) -> int | None:
    return getattr(message, name) if message.HasField(name) else None  # type: ignore[arg-type]
