"""From the wire to a question about a list: a RankRequest becomes a RankQuestion and rules, or names the wrong field.

    RankRequest -> task, tenant -> cut-off -> user, session, keys: checked, private parts hashed -> filters, rules

Everything that can be wrong with a request is found here, before it costs a place in the queue.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graph_transformer.ranking.lists import ItemFilter, RankQuestion
from graph_transformer.target import Ranked
from graph_transformer.task import Task
from model_server.errors import InvalidRequestError
from model_server.request import check_names
from model_server.row_check import RowCheck
from model_server.rules import Cap, Diversity, Rules
from model_server.seeds import key_of, unknown_key
from model_server.settings import ServerSettings
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import ranked_list_pb2, row_event_pb2
from stream.privacy import Privacy
from temporal_graph.schema import Column, ColumnKind, Schema
from temporal_graph.view import Key

_CATEGORIES = (ColumnKind.CATEGORICAL, ColumnKind.MULTICATEGORICAL)
_VALUE_OF_KIND = {
    ColumnKind.CATEGORICAL: "text",
    ColumnKind.MULTICATEGORICAL: "text",
    ColumnKind.BOOLEAN: "boolean",
    ColumnKind.NUMERICAL: "number",
}
"""The columns that can be filtered by, and the form of their values."""


@dataclass(frozen=True, slots=True)
class AskedList:
    """A valid request: what the ranker is asked, how many items are shown, and by which rules.

    `request` is its record: private parts hashed, the event time that was used. `live`: it is asked as of the server's
    clock.
    """

    request: service_pb2.RankRequest
    question: RankQuestion
    k: int
    rules: Rules
    live: bool


class RankReader:
    """Reads requests for lists of one ranking task. For one thread at a time: the event loop's, in a server."""

    def __init__(
        self,
        schema: Schema,
        settings: ServerSettings,
        *,
        task: Task,
        privacy: Privacy | None,
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1_000,
    ) -> None:
        assert task.target.ranked is not None  # of a ranking
        self._settings = settings
        self._task = task
        self._ranked: Ranked = task.target.ranked
        self._privacy = privacy
        self._clock_us = clock_us
        self._items = schema.table(self._ranked.items)
        self._interactions = schema.table(self._ranked.interactions)
        self._columns = {column.name: column for column in self._items.columns}
        self._user_check, self._item_check, self._session_check = (
            RowCheck(schema, schema.table(name), settings)
            for name in (task.table, self._ranked.items, self._ranked.interactions)
        )

    def read(self, request: service_pb2.RankRequest) -> AskedList:
        """Validates one request. Raises InvalidRequestError with the path of the first wrong field."""
        settings = self._settings
        check_names(request, self._task.name, settings)
        if not 0 <= request.k <= settings.rank_items_limit:
            raise InvalidRequestError("k", f"0 to {settings.rank_items_limit} expected, found {request.k}")
        k = request.k or min(self._ranked.top, settings.rank_items_limit)
        record = service_pb2.RankRequest()
        record.CopyFrom(request)
        record.DiscardUnknownFields()
        cutoff_time_us = self._read_time(record)
        user = (
            self._read_key(record.user, "user", self._task.table, self._user_check) if record.HasField("user") else None
        )
        session = self._read_session(record, cutoff_time_us)
        candidates = self._read_keys(record.candidates, "candidates")
        exclude = self._read_keys(record.exclude, "exclude")
        rules = self._read_rules(record)
        question = RankQuestion(
            user=user,
            session=session,
            cutoff_time_us=cutoff_time_us,
            limit=settings.rank_items_limit if rules else k,
            candidates=candidates or None,
            exclude=exclude,
            exclude_seen=record.exclude_seen if record.HasField("exclude_seen") else self._task.ranking.exclude_seen,
            filters=self._read_filters(record.filters),
        )
        return AskedList(record, question, k, rules, live=not request.HasField("event_time_us"))

    def _read_time(self, record: service_pb2.RankRequest) -> int:
        """The cut-off; the record gets the server's clock where the request names none."""
        now_us = self._clock_us()
        if record.HasField("event_time_us"):
            self._session_check.check_event_time(record.event_time_us, "event_time_us", now_us)
        else:
            record.event_time_us = now_us
        return record.event_time_us

    def _read_session(self, record: service_pb2.RankRequest, cutoff_time_us: int) -> tuple[bytes, ...]:
        """The session's rows as events, oldest first, equal times as they came."""
        limit = self._settings.rank_session_limit
        if len(record.session) > limit:
            raise InvalidRequestError("session", f"at most {limit} rows, found {len(record.session)}")
        for index, row in enumerate(record.session):
            if not row.key.parts:
                row.key.CopyFrom(unknown_key(self._interactions, index))
            self._read_interaction(row, f"session[{index}]", cutoff_time_us)
        rows = sorted(record.session, key=lambda row: row.event_time_us)
        return tuple(row.SerializeToString() for row in rows)

    def _read_interaction(self, row: row_event_pb2.RowEvent, path: str, cutoff_time_us: int) -> None:
        """Checks a row of the session and makes it the event that it will be; whose it is, the request says."""
        ranked = self._ranked
        if row.table != ranked.interactions:
            raise InvalidRequestError(f"{path}.table", f"{ranked.interactions!r} expected, found {row.table!r}")
        if row.operation == row_event_pb2.OPERATION_DELETE:
            raise InvalidRequestError(f"{path}.operation", "a deletion is no interaction")
        if not row.HasField("event_time_us"):
            row.event_time_us = cutoff_time_us
        elif row.event_time_us > cutoff_time_us:
            raise InvalidRequestError(
                f"{path}.event_time_us", f"{row.event_time_us - cutoff_time_us} us later than the list"
            )
        self._session_check.check_event_time(row.event_time_us, f"{path}.event_time_us", self._clock_us())
        row.operation = row_event_pb2.OPERATION_INSERT
        row.ClearField("known_time_us")
        self._session_check.check(row, path)
        cells = [cell for cell in row.cells if cell.column != ranked.user_link]
        if not any(cell.column == ranked.item_link and cell.WhichOneof("value") != "null" for cell in cells):
            raise InvalidRequestError(f"{path}.cells", f"no {ranked.item_link!r}: which item it is about")
        del row.cells[:]
        row.cells.extend(cells)
        if self._privacy is not None:
            self._privacy.protect(row)

    def _read_keys(self, keys: Sequence[row_event_pb2.Key], path: str) -> tuple[Key, ...]:
        """The keys of items, each once, in their order."""
        limit = self._settings.rank_keys_limit
        if len(keys) > limit:
            raise InvalidRequestError(path, f"at most {limit} keys, found {len(keys)}")
        table, check = self._items.name, self._item_check
        return tuple(
            dict.fromkeys(self._read_key(key, f"{path}[{index}]", table, check) for index, key in enumerate(keys))
        )

    def _read_key(self, key: row_event_pb2.Key, path: str, table: str, check: RowCheck) -> Key:
        """A key as the graph has it, its private parts hashed, in the record too."""
        check.check_key(key, path)
        if self._privacy is not None and self._privacy.touches(table):
            row = row_event_pb2.RowEvent(table=table, key=key)
            self._privacy.protect(row)
            key.CopyFrom(row.key)
        found = key_of(key)
        assert found is not None  # it has the table's parts
        return found

    def _read_filters(self, filters: Sequence[ranked_list_pb2.ItemFilter]) -> tuple[ItemFilter, ...]:
        limit = self._settings.rank_filters_limit
        if len(filters) > limit:
            raise InvalidRequestError("filters", f"at most {limit} expected, found {len(filters)}")
        return tuple(self._read_filter(one, f"filters[{index}]") for index, one in enumerate(filters))

    def _read_filter(self, one: ranked_list_pb2.ItemFilter, path: str) -> ItemFilter:
        column = self._column(one.column, f"{path}.column", tuple(_VALUE_OF_KIND))
        limit = self._settings.rank_keys_limit
        if not 0 < len(one.values) <= limit:
            raise InvalidRequestError(f"{path}.values", f"1 to {limit} values expected, found {len(one.values)}")
        wanted = _VALUE_OF_KIND[column.kind]
        for index, value in enumerate(one.values):
            kind = value.WhichOneof("value")
            at = f"{path}.values[{index}]"
            if kind != wanted:
                where = f"{at}.{kind}" if kind else at
                raise InvalidRequestError(where, f"{one.column!r} is {column.kind}: {wanted} expected")
            if kind == "number" and not math.isfinite(value.number):
                raise InvalidRequestError(f"{at}.number", "not finite")
        values = tuple(getattr(value, wanted) for value in one.values)
        return ItemFilter(one.column, values, one.negate)

    def _read_rules(self, record: service_pb2.RankRequest) -> Rules:
        rules = record.rules
        if len(rules.caps) > self._settings.rank_filters_limit:
            limit = self._settings.rank_filters_limit
            raise InvalidRequestError("rules.caps", f"at most {limit} expected, found {len(rules.caps)}")
        _check_share(rules.new_share_min, "rules.new_share_min")
        return Rules(
            allow=frozenset(self._read_keys(rules.allow, "rules.allow")) or None,
            deny=frozenset(self._read_keys(rules.deny, "rules.deny")),
            diversity=self._read_diversity(record),
            caps=tuple(self._read_cap(cap, f"rules.caps[{index}]") for index, cap in enumerate(rules.caps)),
            new_share_min=rules.new_share_min,
        )

    def _read_diversity(self, record: service_pb2.RankRequest) -> Diversity | None:
        asked = record.diversity
        _check_share(asked.weight, "diversity.weight")
        if not record.HasField("diversity") or asked.weight == 0.0:
            return None
        self._column(asked.column, "diversity.column", _CATEGORIES)
        return Diversity(asked.weight, asked.column)

    def _read_cap(self, cap: ranked_list_pb2.CategoryCap, path: str) -> Cap:
        self._column(cap.column, f"{path}.column", _CATEGORIES)
        if cap.limit < 0:
            raise InvalidRequestError(f"{path}.limit", "negative")
        return Cap(cap.column, cap.limit, cap.value if cap.HasField("value") else None)

    def _column(self, name: str, path: str, kinds: Sequence[ColumnKind]) -> Column:
        """A column of the items' table that is of one of the kinds and not private."""
        column = self._columns.get(name)
        if column is None:
            raise InvalidRequestError(path, f"{self._items.name!r} has no column {name!r}")
        if column.kind not in kinds:
            raise InvalidRequestError(path, f"{name!r} is {column.kind}: {' or '.join(kinds)} expected")
        if column.private:
            raise InvalidRequestError(path, f"{name!r} is private: its values are hashes here")
        return column


def _check_share(value: float, path: str) -> None:
    if not 0.0 <= value <= 1.0:  # and so no NaN
        raise InvalidRequestError(path, f"0 to 1 expected, found {value}")
