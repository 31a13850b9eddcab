"""`Client` and `AsyncClient`: score a row, rank items, see what the model saw, publish an event.

    row in Python's values -> typed cells -> gRPC -> a frozen Score or list, or one ClientError that names the field

A call that finds no server is retried within its deadline by gRPC itself (UNAVAILABLE only: nothing else is safe to
assume). Every call has a deadline; without one a lost server would be waited for for ever. Plain text is for loopback;
elsewhere `tls` encrypts, `token` says who calls, and without one `name` does, for quotas.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, Unpack

import grpc

from nowgraph.client_async import AsyncClient
from nowgraph.client_batches import (
    batch_to_wire,
    list_result_from_wire,
    lists_to_wire,
    result_from_wire,
    stream_to_wire,
)
from nowgraph.client_channel import TIMEOUT_DEFAULT_S, Calls, Connection, Tls, Token, open_channel
from nowgraph.client_errors import (
    ClientError,
    DeadlineError,
    InvalidRequestError,
    NotReadyError,
    OverloadedError,
    PermissionDeniedError,
    ServerFailureError,
    UnauthenticatedError,
    UnavailableError,
    UnknownTaskError,
    error_from_call,
)
from nowgraph.client_lists import (
    AppliedRule,
    CategoryCap,
    Diversity,
    ItemFilter,
    ListOptions,
    ListRequest,
    ListRules,
    RankedItem,
    RankedItems,
    list_from_wire,
    list_to_wire,
)
from nowgraph.client_streams import stream_again
from nowgraph.client_values import (
    Addressed,
    ClassScore,
    Degraded,
    ForecastStep,
    FreshnessToken,
    GraphPosition,
    Key,
    Neighbor,
    Neighborhood,
    Operation,
    Priority,
    Row,
    Score,
    Time,
    Timing,
    Value,
    event_to_wire,
    neighborhood_from_wire,
    row_to_wire,
    score_from_wire,
    token_from_wire,
)
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2

__all__ = [
    "AppliedRule",
    "AsyncClient",
    "CategoryCap",
    "ClassScore",
    "Client",
    "ClientError",
    "DeadlineError",
    "Degraded",
    "Diversity",
    "ForecastStep",
    "FreshnessToken",
    "GraphPosition",
    "InvalidRequestError",
    "ItemFilter",
    "ListRequest",
    "ListRules",
    "Neighbor",
    "Neighborhood",
    "NotReadyError",
    "OverloadedError",
    "PermissionDeniedError",
    "RankedItem",
    "RankedItems",
    "Row",
    "Score",
    "ServerFailureError",
    "Timing",
    "Tls",
    "UnauthenticatedError",
    "UnavailableError",
    "UnknownTaskError",
]


class Client:
    """A blocking client; one object serves any number of threads. Closes as a context manager.

    Requests of a client with `priority` "batch" are answered after those that somebody waits for, and shed first.
    """

    def __init__(
        self,
        target: str = "127.0.0.1:50051",
        *,
        task: str = "",
        tenant: str = "",
        timeout_s: float = TIMEOUT_DEFAULT_S,
        tls: Tls | None = None,
        token: Token | None = None,
        name: str = "",
        priority: Priority | None = None,
    ) -> None:
        self._to = Addressed(task=task, tenant=tenant, priority=priority)
        self._timeout_s = timeout_s
        self._calls = Calls(target, tls=tls, token=token, name=name)
        self._connection = Connection(tls, lambda: open_channel(target, tls), lambda channel: channel.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; calls in flight fail."""
        for channel in self._connection.channels:
            channel.close()

    def score(
        self,
        table: str,
        key: Key = None,
        cells: Mapping[str, Value] | None = None,
        *,
        event_time: Time = None,
        freshness_token: FreshnessToken | None = None,
        request_id: str = "",
        timeout_s: float | None = None,
    ) -> Score:
        """Scores one row just before it happened (`event_time`; None: now), or an entity as of it. Raises ClientError.

        A task about entities takes only `table` and `key`; what it asks about them is in the graph.
        """
        row = Row(table, key, cells or {}, event_time, freshness_token, request_id)
        request = row_to_wire(row, **self._to)
        return score_from_wire(self._call(self._connection.stub.Score, request, timeout_s))

    def score_batch(self, rows: Sequence[Row], *, timeout_s: float | None = None) -> list[Score | ClientError]:
        """Scores many rows; each item is its Score or its error, in order. Raises ClientError for the whole call."""
        response = self._call(self._connection.stub.ScoreBatch, batch_to_wire(rows, self._to), timeout_s)
        return [result_from_wire(item) for item in response.results]

    def score_stream(self, rows: Iterable[Row], *, timeout_s: float | None = None) -> Iterator[Score | ClientError]:
        """Scores rows as they come and yields results as they are ready, which may be in another order.

        A row without a request id gets its number in the stream. Where the server drains, or is gone, the next one is
        sent what has no answer yet. Raises ClientError when there is none, or the stream breaks otherwise.
        """

        def call(requests: Iterator[service_pb2.ScoreStreamRequest], left_s: float | None) -> Any:
            return self._connection.stub.ScoreStream(requests, timeout=left_s, metadata=self._calls.metadata())

        requests = (stream_to_wire(number, row, self._to) for number, row in enumerate(rows))
        try:
            for result in stream_again(call, requests, timeout_s):
                yield result_from_wire(result)
        except grpc.RpcError as error:
            raise error_from_call(error) from None

    def rank(self, user: Key = None, *, timeout_s: float | None = None, **asked: Unpack[ListOptions]) -> RankedItems:
        """Orders items for a user, a session or both; `ListRequest` says what may be asked. Raises ClientError."""
        request = list_to_wire(ListRequest(user, **asked), **self._to)
        return list_from_wire(self._call(self._connection.stub.Rank, request, timeout_s))

    def rank_batch(
        self, requests: Sequence[ListRequest], *, timeout_s: float | None = None
    ) -> list[RankedItems | ClientError]:
        """Makes many lists; each item is its list or its error, in order. Raises ClientError for the whole call."""
        response = self._call(self._connection.stub.RankBatch, lists_to_wire(requests, self._to), timeout_s)
        return [list_result_from_wire(item) for item in response.results]

    def neighborhood(
        self,
        table: str,
        key: Key = None,
        cells: Mapping[str, Value] | None = None,
        *,
        event_time: Time = None,
        freshness_token: FreshnessToken | None = None,
        timeout_s: float | None = None,
    ) -> Neighborhood:
        """What the model would see for this row. Raises ClientError."""
        row = Row(table, key, cells or {}, event_time, freshness_token)
        request = service_pb2.NeighborhoodRequest(request=row_to_wire(row, **self._to))
        return neighborhood_from_wire(self._call(self._connection.stub.Neighborhood, request, timeout_s))

    def ingest(
        self,
        table: str,
        key: Key = None,
        cells: Mapping[str, Value] | None = None,
        *,
        event_time: Time = None,
        known_time: Time = None,
        operation: Operation = "insert",
        event_id: str = "",
        timeout_s: float | None = None,
    ) -> FreshnessToken:
        """Publishes one change to a row; returns once Kafka has it. Raises ClientError."""
        request = event_to_wire(
            Row(table, key, cells or {}, event_time),
            operation=operation,
            known_time=known_time,
            event_id=event_id,
            tenant=self._to["tenant"],
        )
        return token_from_wire(self._call(self._connection.stub.Ingest, request, timeout_s))

    def _call(self, method: Any, request: Any, timeout_s: float | None) -> Any:
        try:
            return method(
                request, timeout=self._timeout_s if timeout_s is None else timeout_s, metadata=self._calls.metadata()
            )
        except grpc.RpcError as error:
            raise error_from_call(error) from None
