"""`AsyncClient`: what `Client` does, for an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, Unpack

import grpc

from nowgraph.client_batches import (
    batch_to_wire,
    list_result_from_wire,
    lists_to_wire,
    result_from_wire,
    stream_to_wire,
)
from nowgraph.client_channel import TIMEOUT_DEFAULT_S, Calls, Connection, Tls, Token, open_async_channel
from nowgraph.client_errors import ClientError, error_from_call
from nowgraph.client_lists import ListOptions, ListRequest, RankedItems, list_from_wire, list_to_wire
from nowgraph.client_streams import stream_again_async
from nowgraph.client_values import (
    Addressed,
    FreshnessToken,
    Key,
    Neighborhood,
    Operation,
    Priority,
    Row,
    Score,
    Time,
    Value,
    event_to_wire,
    neighborhood_from_wire,
    row_to_wire,
    score_from_wire,
    token_from_wire,
)
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2


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
        self._connection = Connection(tls, lambda: open_async_channel(target, tls), self._retire)
        self._retiring: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection; calls in flight fail."""
        await asyncio.gather(*(channel.close(None) for channel in self._connection.channels), *self._retiring)

    def _retire(self, channel: grpc.aio.Channel) -> None:
        closing = asyncio.ensure_future(channel.close(None))
        self._retiring.add(closing)
        closing.add_done_callback(self._retiring.discard)

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
        return score_from_wire(await self._call(self._connection.stub.Score, request, timeout_s))

    async def score_batch(self, rows: Sequence[Row], *, timeout_s: float | None = None) -> list[Score | ClientError]:
        """As `Client.score_batch`."""
        response = await self._call(self._connection.stub.ScoreBatch, batch_to_wire(rows, self._to), timeout_s)
        return [result_from_wire(item) for item in response.results]

    async def score_stream(
        self, rows: AsyncIterator[Row], *, timeout_s: float | None = None
    ) -> AsyncIterator[Score | ClientError]:
        """As `Client.score_stream`, over an async iterator of rows."""

        async def requests() -> AsyncIterator[service_pb2.ScoreStreamRequest]:
            number = 0
            async for row in rows:
                yield stream_to_wire(number, row, self._to)
                number += 1

        def call(requests: AsyncIterator[service_pb2.ScoreStreamRequest], left_s: float | None) -> Any:
            return self._connection.stub.ScoreStream(requests, timeout=left_s, metadata=self._calls.metadata())

        try:
            async with aclosing(stream_again_async(call, requests(), timeout_s)) as results:
                async for result in results:
                    yield result_from_wire(result)
        except grpc.RpcError as error:
            raise error_from_call(error) from None

    async def rank(
        self, user: Key = None, *, timeout_s: float | None = None, **asked: Unpack[ListOptions]
    ) -> RankedItems:
        """As `Client.rank`."""
        request = list_to_wire(ListRequest(user, **asked), **self._to)
        return list_from_wire(await self._call(self._connection.stub.Rank, request, timeout_s))

    async def rank_batch(
        self, requests: Sequence[ListRequest], *, timeout_s: float | None = None
    ) -> list[RankedItems | ClientError]:
        """As `Client.rank_batch`."""
        response = await self._call(self._connection.stub.RankBatch, lists_to_wire(requests, self._to), timeout_s)
        return [list_result_from_wire(item) for item in response.results]

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
        return neighborhood_from_wire(await self._call(self._connection.stub.Neighborhood, request, timeout_s))

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
        return token_from_wire(await self._call(self._connection.stub.Ingest, request, timeout_s))

    async def _call(self, method: Any, request: Any, timeout_s: float | None) -> Any:
        try:
            return await method(
                request, timeout=self._timeout_s if timeout_s is None else timeout_s, metadata=self._calls.metadata()
            )
        except grpc.RpcError as error:
            raise error_from_call(error) from None
