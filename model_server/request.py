"""From the wire to a question: a ScoreRequest becomes a seed and a cut-off, or names the wrong field.

    ScoreRequest -> task, tenant -> row: key, cells, event time -> private parts hashed -> event bytes or key, cut-off

A task about events asks for a row one microsecond before its event time; one about entities for a key, as of it.
Everything that can be wrong with a request is found here, before it costs a place in the queue.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from graph_transformer.target import Target
from model_server.backlog import Priority
from model_server.errors import InvalidRequestError, UnknownTaskError
from model_server.row_check import RowCheck
from model_server.seeds import key_of
from model_server.settings import ServerSettings
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import row_event_pb2
from stream.privacy import Privacy
from temporal_graph.schema import Schema
from temporal_graph.time_rule import cutoff_for_event
from temporal_graph.view import Key

_PRIORITIES: Mapping[int, Priority] = {
    service_pb2.PRIORITY_INTERACTIVE: Priority.INTERACTIVE,
    service_pb2.PRIORITY_BATCH: Priority.BATCH,
}


@dataclass(frozen=True, slots=True)
class AskedRow:
    """A valid request: the row as it enters the sampler (private parts hashed, event time set) and its cut-off.

    `key` is the entity's, where the task asks about entities.
    """

    request_id: str
    row: row_event_pb2.RowEvent
    event: bytes
    cutoff_time_us: int
    key: Key | None = None


def priority_of(request: service_pb2.ScoreRequest | service_pb2.RankRequest, default: Priority) -> Priority:
    """The class that a request names; `default` is that of its method."""
    return _PRIORITIES.get(request.priority, default)


class RequestReader:
    """Reads requests for one task on one table. For one thread at a time: the event loop's, in a server."""

    def __init__(
        self,
        schema: Schema,
        settings: ServerSettings,
        *,
        task: str,
        target: Target,
        privacy: Privacy | None,
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1_000,
    ) -> None:
        self._settings = settings
        self._task = task
        self._target = target
        self._table = schema.table(target.table)
        self._privacy = privacy
        self._clock_us = clock_us
        self._checks: Mapping[str, RowCheck] = {
            table.name: RowCheck(schema, table, settings) for table in schema.tables
        }

    def read(self, request: service_pb2.ScoreRequest) -> AskedRow:
        """Validates one request. Raises InvalidRequestError with the path of the first wrong field.

        The row's known time is cleared: what is scored just before it happened is not known yet. Its operation may be
        left out, insert or upsert; each means the same for a row that is only looked at, and none for an entity.
        """
        check_names(request, self._task, self._settings)
        if not request.HasField("row"):
            raise InvalidRequestError("row", "missing: the row to score")
        row = row_event_pb2.RowEvent()
        row.CopyFrom(request.row)
        row.DiscardUnknownFields()  # such as a field of the wrong wire type, which the graph would refuse
        if row.table != self._table.name:
            asks = "scores rows of" if self._target.event_level else "asks about entities of"
            expected = f"task {self._task!r} {asks} {self._table.name!r}, found {row.table!r}"
            raise InvalidRequestError("row.table", expected)
        if row.operation == row_event_pb2.OPERATION_DELETE:
            raise InvalidRequestError("row.operation", "a deletion cannot be scored")
        is_event = self._target.event_level
        row.operation = row_event_pb2.OPERATION_INSERT if is_event else row_event_pb2.OPERATION_UNSPECIFIED
        row.ClearField("known_time_us")
        event_time_us = self._read_event_time(row)
        row.event_time_us = event_time_us
        columns = self._checks[row.table].check(row, "row")
        if not is_event:
            self._refuse_cells(row)
        elif self._target.column in columns:
            self._refuse_outcome(row)
        self._protect(row)
        event = row.SerializeToString()
        if is_event:
            return AskedRow(request.request_id, row, event, cutoff_for_event(event_time_us))
        return AskedRow(request.request_id, row, event, event_time_us, key_of(row.key))

    def read_event(self, request: service_pb2.IngestRequest) -> row_event_pb2.RowEvent:
        """Validates an event for the log and hashes its private parts. Raises InvalidRequestError."""
        if request.tenant not in ("", self._settings.tenant):
            raise UnknownTaskError("tenant", f"this server serves {self._settings.tenant!r}")
        if not request.HasField("event"):
            raise InvalidRequestError("event", "missing: the event to publish")
        event = row_event_pb2.RowEvent()
        event.CopyFrom(request.event)
        event.DiscardUnknownFields()
        check = self._checks.get(event.table)
        if check is None:
            raise InvalidRequestError("event.table", f"one of {sorted(self._checks)} expected, found {event.table!r}")
        check.check_operation(event, "event")
        check.check_times(event, "event", self._clock_us())
        check.check(event, "event")
        self._protect(event)
        return event

    def _protect(self, event: row_event_pb2.RowEvent) -> None:
        if self._privacy is not None:
            self._privacy.protect(event)

    def _read_event_time(self, row: row_event_pb2.RowEvent) -> int:
        now_us = self._clock_us()
        if not row.HasField("event_time_us"):
            return now_us
        self._checks[row.table].check_event_time(row.event_time_us, "row.event_time_us", now_us)
        return row.event_time_us

    def _refuse_outcome(self, row: row_event_pb2.RowEvent) -> None:
        for index, cell in enumerate(row.cells):
            if cell.column == self._target.column and cell.WhichOneof("value") != "null":
                raise InvalidRequestError(
                    f"row.cells[{index}].{cell.WhichOneof('value')}",
                    f"{self._target.column!r} is what the task predicts: leave it out or null",
                )

    def _refuse_cells(self, row: row_event_pb2.RowEvent) -> None:
        if row.cells:
            raise InvalidRequestError(
                "row.cells[0]",
                f"task {self._task!r} asks about what the graph holds of a {self._table.name!r} key: "
                f"cells such as {row.cells[0].column!r} would be ignored, leave them out",
            )


def check_names(
    request: service_pb2.ScoreRequest | service_pb2.RankRequest, task: str, settings: ServerSettings
) -> None:
    """Whether a request is for this server's task and tenant, its id short enough, its token one.

    Raises UnknownTaskError, or InvalidRequestError with the path of the wrong field.
    """
    if request.task not in ("", task):
        raise UnknownTaskError("task", f"this server answers {task!r}, found {request.task!r}")
    if request.tenant not in ("", settings.tenant):
        raise UnknownTaskError("tenant", f"this server serves {settings.tenant!r}")
    if len(request.request_id.encode()) > settings.id_bytes_limit:
        raise InvalidRequestError("request_id", f"longer than {settings.id_bytes_limit} bytes")
    if request.HasField("freshness_token"):
        token = request.freshness_token
        if not token.topic:
            raise InvalidRequestError("freshness_token.topic", "empty")
        if token.partition < 0:
            raise InvalidRequestError("freshness_token.partition", "negative")
        if token.offset < 0:
            raise InvalidRequestError("freshness_token.offset", "negative")
