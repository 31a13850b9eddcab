"""`Client` and `AsyncClient`: score a row, rank items, see what the model saw, publish an event.

    row in Python's values -> typed cells -> gRPC -> a frozen Score or list, or one ClientError that names the field

A call that finds no server is retried within its deadline by gRPC itself (UNAVAILABLE only: nothing else is safe to
assume). Every call has a deadline; without one a lost server would be waited for for ever. Plain text is for loopback;
elsewhere `tls` encrypts, `token` says who calls, and without one `name` does, for quotas.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, Unpack

import grpc

from nowgraph.client_channel import Calls, Tls, Token, open_async_channel, open_channel
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
    error_from_item,
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
)
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import prediction_service_pb2_grpc as service_grpc

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

TIMEOUT_DEFAULT_S = 1.0


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
        self._channel = open_channel(target, tls)
        self._stub = service_grpc.PredictionServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; calls in flight fail."""
        self._channel.close()

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
        return score_from_wire(self._call(self._stub.Score, request, timeout_s))

    def score_batch(self, rows: Sequence[Row], *, timeout_s: float | None = None) -> list[Score | ClientError]:
        """Scores many rows; each item is its Score or its error, in order. Raises ClientError for the whole call."""
        response = self._call(self._stub.ScoreBatch, _batch(rows, self._to), timeout_s)
        return [_result(item) for item in response.results]

    def score_stream(self, rows: Iterable[Row], *, timeout_s: float | None = None) -> Iterator[Score | ClientError]:
        """Scores rows as they come and yields results as they are ready, which may be in another order.

        A row without a request id gets its number in the stream. Raises ClientError when the stream breaks.
        """
        requests = (service_pb2.ScoreStreamRequest(request=row_to_wire(row, **self._to)) for row in _numbered(rows))
        try:
            for response in self._stub.ScoreStream(requests, timeout=timeout_s, metadata=self._calls.metadata()):
                yield _result(response.result)
        except grpc.RpcError as error:
            raise error_from_call(error) from None

    def rank(self, user: Key = None, *, timeout_s: float | None = None, **asked: Unpack[ListOptions]) -> RankedItems:
        """Orders items for a user, a session or both; `ListRequest` says what may be asked. Raises ClientError."""
        request = list_to_wire(ListRequest(user, **asked), **self._to)
        return list_from_wire(self._call(self._stub.Rank, request, timeout_s))

    def rank_batch(
        self, requests: Sequence[ListRequest], *, timeout_s: float | None = None
    ) -> list[RankedItems | ClientError]:
        """Makes many lists; each item is its list or its error, in order. Raises ClientError for the whole call."""
        response = self._call(self._stub.RankBatch, _lists(requests, self._to), timeout_s)
        return [_list_result(item) for item in response.results]

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
        return neighborhood_from_wire(self._call(self._stub.Neighborhood, request, timeout_s))

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
        return _token(self._call(self._stub.Ingest, request, timeout_s))

    def _call(self, method: Any, request: Any, timeout_s: float | None) -> Any:
        try:
            return method(
                request, timeout=self._timeout_s if timeout_s is None else timeout_s, metadata=self._calls.metadata()
            )
        except grpc.RpcError as error:
            raise error_from_call(error) from None


class AsyncClient:
    """The same calls for an event loop; belongs to the loop it is used on. Closes as an async context manager."""

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
        self._channel = open_async_channel(target, tls)
        self._stub = service_grpc.PredictionServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection; calls in flight fail."""
        await self._channel.close(None)

    async def score(
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
        """As `Client.score`."""
        row = Row(table, key, cells or {}, event_time, freshness_token, request_id)
        request = row_to_wire(row, **self._to)
        return score_from_wire(await self._call(self._stub.Score, request, timeout_s))

    async def score_batch(self, rows: Sequence[Row], *, timeout_s: float | None = None) -> list[Score | ClientError]:
        """As `Client.score_batch`."""
        response = await self._call(self._stub.ScoreBatch, _batch(rows, self._to), timeout_s)
        return [_result(item) for item in response.results]

    async def score_stream(
        self, rows: AsyncIterator[Row], *, timeout_s: float | None = None
    ) -> AsyncIterator[Score | ClientError]:
        """As `Client.score_stream`, over an async iterator of rows."""

        async def requests() -> AsyncIterator[service_pb2.ScoreStreamRequest]:
            number = 0
            async for row in rows:
                numbered = row if row.request_id else replace(row, request_id=str(number))
                yield service_pb2.ScoreStreamRequest(request=row_to_wire(numbered, **self._to))
                number += 1

        try:
            async for response in self._stub.ScoreStream(
                requests(), timeout=timeout_s, metadata=self._calls.metadata()
            ):
                yield _result(response.result)
        except grpc.RpcError as error:
            raise error_from_call(error) from None

    async def rank(
        self, user: Key = None, *, timeout_s: float | None = None, **asked: Unpack[ListOptions]
    ) -> RankedItems:
        """As `Client.rank`."""
        request = list_to_wire(ListRequest(user, **asked), **self._to)
        return list_from_wire(await self._call(self._stub.Rank, request, timeout_s))

    async def rank_batch(
        self, requests: Sequence[ListRequest], *, timeout_s: float | None = None
    ) -> list[RankedItems | ClientError]:
        """As `Client.rank_batch`."""
        response = await self._call(self._stub.RankBatch, _lists(requests, self._to), timeout_s)
        return [_list_result(item) for item in response.results]

    async def neighborhood(
        self,
        table: str,
        key: Key = None,
        cells: Mapping[str, Value] | None = None,
        *,
        event_time: Time = None,
        freshness_token: FreshnessToken | None = None,
        timeout_s: float | None = None,
    ) -> Neighborhood:
        """As `Client.neighborhood`."""
        row = Row(table, key, cells or {}, event_time, freshness_token)
        request = service_pb2.NeighborhoodRequest(request=row_to_wire(row, **self._to))
        return neighborhood_from_wire(await self._call(self._stub.Neighborhood, request, timeout_s))

    async def ingest(
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
        """As `Client.ingest`."""
        request = event_to_wire(
            Row(table, key, cells or {}, event_time),
            operation=operation,
            known_time=known_time,
            event_id=event_id,
            tenant=self._to["tenant"],
        )
        return _token(await self._call(self._stub.Ingest, request, timeout_s))

    async def _call(self, method: Any, request: Any, timeout_s: float | None) -> Any:
        try:
            return await method(
                request, timeout=self._timeout_s if timeout_s is None else timeout_s, metadata=self._calls.metadata()
            )
        except grpc.RpcError as error:
            raise error_from_call(error) from None


def _batch(rows: Sequence[Row], to: Addressed) -> service_pb2.ScoreBatchRequest:
    return service_pb2.ScoreBatchRequest(requests=[row_to_wire(row, **to) for row in rows])


def _numbered(rows: Iterable[Row]) -> Iterator[Row]:
    for number, row in enumerate(rows):
        yield row if row.request_id else replace(row, request_id=str(number))


def _result(item: service_pb2.ScoreResult) -> Score | ClientError:
    if item.WhichOneof("result") == "response":
        return score_from_wire(item.response)
    return error_from_item(item.error)


def _lists(requests: Sequence[ListRequest], to: Addressed) -> service_pb2.RankBatchRequest:
    return service_pb2.RankBatchRequest(requests=[list_to_wire(one, **to) for one in requests])


def _list_result(item: service_pb2.RankResult) -> RankedItems | ClientError:
    if item.WhichOneof("result") == "response":
        return list_from_wire(item.response)
    return error_from_item(item.error)


def _token(response: service_pb2.IngestResponse) -> FreshnessToken:
    token = response.freshness_token
    return FreshnessToken(token.topic, token.partition, token.offset)
