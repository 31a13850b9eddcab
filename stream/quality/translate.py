"""From the wire to plain records: predictions as the server published them, events as the schema's topics carry them.

nowgraph.predictions:  Prediction bytes ─► Answer of the model, of each shadow; or ShownList
the schema's topics:   Batch ─► Decoder (private parts hashed) ─► RowEvents ─► Outcome, Interaction
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from google.protobuf.message import DecodeError

from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import row_event_pb2
from stream.batch import NO_TIMESTAMP_US, Batch
from stream.decode import Decoder
from stream.quality.config import AnswerKind, QualityTask
from stream.quality.records import (
    LIVE,
    SHADOW,
    Answer,
    Interaction,
    Key,
    KeyPart,
    Outcome,
    ShownList,
    Stream,
    identity,
    item_identity,
)
from temporal_graph.schema import FUTURE_DEFAULT_US, KnownTime, Schema

_KINDS = {
    AnswerKind.BINARY: service_pb2.TARGET_KIND_BINARY,
    AnswerKind.MULTICLASS: service_pb2.TARGET_KIND_MULTICLASS,
    AnswerKind.MULTILABEL: service_pb2.TARGET_KIND_MULTILABEL,
    AnswerKind.REGRESSION: service_pb2.TARGET_KIND_REGRESSION,
    AnswerKind.FORECAST: service_pb2.TARGET_KIND_FORECAST,
}


class PredictionReader:
    """Reads records of the predictions topic. `skipped` counts, by reason, what can not be measured."""

    def __init__(self, tasks: Iterable[QualityTask]) -> None:
        self._tasks = {task.name: task for task in tasks}
        self.skipped: Counter[str] = Counter()

    def read(self, value: bytes | None, timestamp_us: int = NO_TIMESTAMP_US) -> list[Answer | ShownList]:
        """Return the answers of one record: none of a task or tenant that is not measured."""
        record = service_pb2.Prediction()
        try:
            record.ParseFromString(value or b"")
        except DecodeError:
            self.skipped["undecodable"] += 1
            return []
        is_list = record.HasField("ranking")
        task = self._tasks.get(record.ranking.response.task if is_list else record.response.task)
        if task is None or (task.tenant and record.tenant != task.tenant):
            self.skipped["task"] += 1
            return []
        if _is_future(record.row.event_time_us, timestamp_us):
            self.skipped["future"] += 1
            return []
        if is_list:
            return self._shown(task, record)
        key = _key_of(record.row.key)
        numbers = _numbers(task, record.row)
        found: list[Answer | ShownList] = []
        for role, response in [(LIVE, record.response), *((SHADOW, shadow) for shadow in record.shadows)]:
            if response.degraded.reason == service_pb2.DEGRADED_REASON_RULE:
                self.skipped["rule"] += 1  # no model said it
                continue
            scores = _scores(task, response)
            if not key or response.kind != _KINDS.get(task.kind) or not scores or not all(map(math.isfinite, scores)):
                self.skipped["no_key" if not key else "unfit"] += 1
                continue
            stream = Stream(record.tenant, task.name, response.model_version, role)
            found.append(Answer(stream, key, record.row.event_time_us, record.answered_time_us, scores, numbers))
        return found

    def _shown(self, task: QualityTask, record: service_pb2.Prediction) -> list[Answer | ShownList]:
        response, key = record.ranking.response, _key_of(record.row.key)
        if not key or task.kind is not AnswerKind.RANKING:
            self.skipped["unfit" if key else "no_key"] += 1
            return []
        stream = Stream(record.tenant, task.name, response.model_version)
        items = tuple(item_identity(_key_of(item.key)) for item in response.items)
        time_us, request_id = record.row.event_time_us, response.request_id
        return [ShownList(stream, key, time_us, record.answered_time_us, request_id, items)]


class OutcomeReader:
    """Reads batches of the schema's topics; `newest_us` is the newest event time among them so far."""

    def __init__(self, tasks: Iterable[QualityTask], schema: Schema, decoder: Decoder) -> None:
        self._decoder = decoder
        self._known = {table.name: table.known_time for table in schema.tables}
        self._labels: dict[str, list[QualityTask]] = {}
        self._clicks: dict[str, list[QualityTask]] = {}
        for task in tasks:
            if task.interactions is not None:
                self._clicks.setdefault(task.interactions.table, []).append(task)
            else:
                table = task.table if task.event_level else task.label_table
                if table is not None:
                    self._labels.setdefault(table, []).append(task)
        self.skipped: Counter[str] = Counter()
        self.newest_us = NO_TIMESTAMP_US

    def read(self, batch: Batch) -> Iterator[Outcome | Interaction]:
        """Yield what the batch says of outcomes; most events say nothing of them."""
        decoded = self._decoder.decode(batch)
        self.skipped["undecodable"] += len(decoded.dead)
        for value, index in zip(decoded.events, decoded.record_index.tolist(), strict=True):
            event = row_event_pb2.RowEvent()
            try:
                event.ParseFromString(value)
            except DecodeError:
                self.skipped["undecodable"] += 1
                continue
            stamp_us, offset = int(batch.timestamp_us[index]), int(batch.offset[index])
            if not event.HasField("event_time_us"):
                continue
            known_us = self._known_time_us(event, stamp_us)
            if _is_future(known_us, stamp_us):
                self.skipped["future"] += 1
                continue
            self.newest_us = max(self.newest_us, event.event_time_us)
            for task in self._labels.get(event.table, ()):
                outcome = _outcome(task, event, known_us, offset)
                if outcome is not None:
                    yield outcome
            for task in self._clicks.get(event.table, ()):
                done = _interaction(task, event, known_us, offset, int(batch.partition[index]))
                if done is not None:
                    yield done

    def _known_time_us(self, event: row_event_pb2.RowEvent, stamp_us: int) -> int:
        if event.HasField("known_time_us"):
            return max(event.known_time_us, event.event_time_us)
        rule = self._known.get(event.table, KnownTime())
        return max(stamp_us, event.event_time_us) if rule.kind == "broker" else event.event_time_us


def _is_future(time_us: int, stamp_us: int) -> bool:
    """Whether a time is beyond what its record's own timestamp allows: one such would move the watermark for good."""
    return stamp_us != NO_TIMESTAMP_US and time_us > stamp_us + FUTURE_DEFAULT_US


def _outcome(task: QualityTask, event: row_event_pb2.RowEvent, known_us: int, offset: int) -> Outcome | None:
    key = _key_of(event.key)
    anchor_us: int | None = None
    if not task.event_level:
        last = key[-1] if len(key) > 1 else None
        if not isinstance(last, int):
            return None
        key, anchor_us = key[:-1], last
    if not key:
        return None
    if event.operation == row_event_pb2.OPERATION_DELETE:
        return Outcome(task.name, key, known_us, None, anchor_us, offset)
    names = (task.outcome,) if task.event_level else task.label_columns
    cells = {cell.column: cell for cell in event.cells if cell.column in names}
    if not cells:
        return None  # an insert without an outcome is a row that just happened, not one whose outcome was withdrawn
    return Outcome(task.name, key, known_us, _label(task, [cells.get(name or "") for name in names]), anchor_us, offset)


def _label(task: QualityTask, cells: Sequence[row_event_pb2.Cell | None]) -> tuple[float, ...] | None:
    values = [None if cell is None or cell.WhichOneof("value") in (None, "null") else cell for cell in cells]
    if any(cell is None for cell in values):
        return None
    first = values[0]
    assert first is not None
    if task.kind is AnswerKind.MULTICLASS:
        return (float(task.classes.index(first.text)),) if first.text in task.classes else None
    if task.kind is AnswerKind.MULTILABEL:
        return tuple(float(name in first.texts.values) for name in task.classes)
    numbers = tuple(_number(cell) for cell in values if cell is not None)
    if task.kind is AnswerKind.BINARY:
        return (float(numbers[0] > 0),)
    return numbers if all(map(math.isfinite, numbers)) else None


def _interaction(
    task: QualityTask, event: row_event_pb2.RowEvent, known_us: int, offset: int, partition: int
) -> Interaction | None:
    assert task.interactions is not None
    cells: Mapping[str, row_event_pb2.Cell] = {cell.column: cell for cell in event.cells}
    user = _link(cells.get(task.interactions.user_link))
    if not user:
        return None  # a patch of other columns, or a deletion, which names no user to look among
    item = _link(cells.get(task.interactions.item_link))
    row = identity(_key_of(event.key) or (event.event_id, partition, offset))
    return Interaction(
        task.name, user, row, event.event_time_us, known_us, item_identity(item) if item else None, offset
    )


def _scores(task: QualityTask, response: service_pb2.ScoreResponse) -> tuple[float, ...]:
    if task.kind is AnswerKind.BINARY:
        return (response.probability,)
    if task.kind is AnswerKind.REGRESSION:
        found = [quantile.value for quantile in response.quantiles]
    elif task.kind is AnswerKind.FORECAST:
        found = [quantile.value for step in response.steps for quantile in step.quantiles]
    else:
        by_name = {one.name: one.probability for one in response.classes}
        found = [by_name.get(name, math.nan) for name in task.classes]
        return tuple(found)
    return tuple(found) if len(found) == task.steps * len(task.levels) else ()


def _numbers(task: QualityTask, row: row_event_pb2.RowEvent) -> tuple[float, ...]:
    if not task.inputs:
        return ()
    cells = {cell.column: _number(cell) for cell in row.cells}
    return tuple(cells.get(name, math.nan) for name in task.inputs)


def _number(cell: row_event_pb2.Cell) -> float:
    kind = cell.WhichOneof("value")
    return float(getattr(cell, kind)) if kind in ("number", "integer", "boolean") else math.nan


def _link(cell: row_event_pb2.Cell | None) -> Key:
    kind = None if cell is None else cell.WhichOneof("value")
    if cell is None or kind not in ("integer", "text", "key"):
        return ()
    return _key_of(cell.key) if kind == "key" else (getattr(cell, kind),)


def _key_of(key: row_event_pb2.Key) -> Key:
    parts: list[KeyPart] = []
    for part in key.parts:
        parts.append(part.integer if part.WhichOneof("part") == "integer" else part.text)
    return tuple(parts)
