"""Rows of a Parquet file as questions, read and checked as the server reads and checks a request.

record batch ─► events of keys, times, cells (private parts hashed) ─► RequestReader ─► AskedRow
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from graph_transformer.target import Target
from model_server.errors import InvalidRequestError
from model_server.request import AskedRow, RequestReader
from model_server.settings import ServerSettings
from nowgraph.errors import UsageError
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import row_event_pb2
from stream.arrow_encode import ArrowEncoder
from stream.privacy import Privacy
from temporal_graph.schema import KnownTime, Schema, Source, Table
from temporal_graph.time_rule import ALWAYS_US

if TYPE_CHECKING:
    from graph_transformer.task import Task

ANCHOR_TIME: Final = "anchor_time"
"""The time column of a task about entities where no other is named: as label tables call it."""
_CELL = re.compile(r"row\.cells\[(\d+)\]")
_KEY_PART = re.compile(r"row\.key\.parts\[(\d+)\]")


class ParquetQuestions:
    """Makes the questions of one file: rows just before they happen, or entities as of a time, as the task asks.

    The columns are those of the table's own events; of a task about entities only its key, and a time. The column that
    is predicted is not read, so that files with labels can be asked about.
    """

    def __init__(
        self,
        schema: Schema,
        task: Task,
        names: Sequence[str],
        *,
        now_us: int,
        privacy: Privacy | None,
        hashed: bool = False,
        time_column: str | None = None,
    ) -> None:
        """`names` are the file's columns, whose private values may be `hashed` already.

        `now_us` is the time of questions about entities where the file has none.

        Raises:
            UsageError: the file lacks a key column or the time, with the columns it has.
        """
        target = task.target
        self._table = _asked_table(schema.table(target.table), target, names, time_column)
        for name in [part.name for part in self._table.primary_key] + [self._table.time_column]:
            if name is not None and name not in names:
                what = "time" if name == self._table.time_column else "key"
                raise UsageError(f"the {what} column {name!r} of {target.table!r} is missing: found {', '.join(names)}")
        if self._table.time_column is None and now_us == ALWAYS_US:
            raise UsageError(f"no row of the graph has a time: a column {ANCHOR_TIME!r} says as of when to answer")
        tables = tuple(self._table if table.name == target.table else table for table in schema.tables)
        source = Source(topic=target.table, table=target.table, format="json")
        self._encoder = ArrowEncoder(replace(schema, tables=tables), source, privacy, hashed=hashed)
        self._now_us = now_us
        # What is asked offline may lie as far ahead as the graph does, wherever the clock of this machine stands.
        clock_us = max(now_us, time.time_ns() // 1_000)
        # The encoder has hashed what is private: hashed twice, a key would name nobody.
        self._reader = RequestReader(
            schema, ServerSettings(), task=task.name, target=target, privacy=None, clock_us=lambda: clock_us
        )

    def read(self, batch: pa.RecordBatch, first_row: int) -> list[AskedRow]:
        """Returns the questions of a batch whose first row is row `first_row` of the file, from 0.

        Raises:
            UsageError: a row cannot be asked about; names the row, the column and what is wrong with it.
        """
        encoded = self._encoder.encode(batch)
        for row in sorted(encoded.refused):
            raise UsageError(f"row {first_row + row}: {encoded.refused[row].detail}")
        return [self._asked(event, first_row + row) for row, event in enumerate(encoded.events)]

    def _asked(self, event: bytes, row: int) -> AskedRow:
        request = service_pb2.ScoreRequest(row=row_event_pb2.RowEvent.FromString(event))
        if not request.row.HasField("event_time_us"):
            request.row.event_time_us = self._now_us
        try:
            return self._reader.read(request)
        except InvalidRequestError as error:
            raise UsageError(f"row {row}: {self._column(error.field, request)}{error.message}") from error

    def _column(self, field: str, request: service_pb2.ScoreRequest) -> str:
        """The column that a field of the request came from, as the start of a message."""
        if (cell := _CELL.match(field)) is not None:
            return f"{request.row.cells[int(cell[1])].column}: "
        if (part := _KEY_PART.match(field)) is not None:
            return f"{self._table.primary_key[int(part[1])].name}: "
        return f"{self._table.time_column}: " if field == "row.event_time_us" else ""


def _asked_table(table: Table, target: Target, names: Sequence[str], time_column: str | None) -> Table:
    """The table's columns that a question about it may have; the known time is not known yet."""
    if target.event_level:
        columns = tuple(column for column in table.columns if column.name != target.column)
        time_column = time_column or table.time_column
        return replace(table, columns=columns, time_column=time_column, known_time=KnownTime())
    if time_column is None and ANCHOR_TIME in names:
        time_column = ANCHOR_TIME
    return replace(table, columns=(), links=(), time_column=time_column, known_time=KnownTime())
