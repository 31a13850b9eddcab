"""Commands to Redis that share their round trips: what waits is sent together, and nothing waits for company.

    command ─► queue ─► one of a few senders: all that waits, as one pipeline ─► Redis ─► each command's reply

A thousand requests at once are a few pipelines on a few connections, not a thousand connections; a command that comes
while nothing is sent goes at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from model_server.errors import NotConfiguredError

# Pipelines under way at a time: while one is waited for, the next is filled.
SENDERS = 2
# Commands of one pipeline: a few hundred microseconds of Redis's one thread.
PIPELINE_MAX = 256

Command = Callable[[Any], object]
"""Adds one command to a pipeline of the `redis` package."""


class RedisUnavailable(Exception):
    """Redis did not answer in time, or not at all; the message names the failure and nothing that was asked."""


class RedisCommands:
    """A Redis for one event loop. Commands may be sent twice, so each must be one that twice does no harm."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        """`timeout_s` bounds each wait for Redis. Raises NotConfiguredError for a URL that is none."""
        self._timeout_s = timeout_s
        self._redis, self._failures = _connect(url, timeout_s)
        self._waiting: deque[tuple[Command, asyncio.Future[Any]]] = deque()
        self._senders: set[asyncio.Task[None]] = set()

    async def version(self) -> str:
        """Redis's own. Raises RedisUnavailable."""
        try:
            async with asyncio.timeout(2 * self._timeout_s):
                return str((await self._redis.info("server"))["redis_version"])
        except self._failures as error:
            raise RedisUnavailable(type(error).__name__) from None

    async def send(self, command: Command) -> Any:
        """The command's reply. Raises RedisUnavailable."""
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((command, reply))
        if len(self._senders) < SENDERS:
            sender = asyncio.create_task(self._send())
            self._senders.add(sender)
            sender.add_done_callback(self._senders.discard)
        return await reply

    async def close(self) -> None:
        """Waits for what is under way and closes the connections."""
        await asyncio.gather(*self._senders, return_exceptions=True)
        await self._redis.aclose()

    async def _send(self) -> None:
        while self._waiting:
            taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), PIPELINE_MAX))]
            wanted = [(command, reply) for command, reply in taken if not reply.done()]  # who was cancelled is gone
            try:
                replies = await self._pipeline([command for command, _ in wanted])
            except BaseException as error:
                for _, reply in wanted:
                    if not reply.done():
                        reply.set_exception(RedisUnavailable(type(error).__name__))
                if not isinstance(error, self._failures):
                    raise
                continue
            for (_, reply), found in zip(wanted, replies, strict=True):
                if reply.done():
                    continue
                if isinstance(found, Exception):
                    reply.set_exception(RedisUnavailable(type(found).__name__))
                else:
                    reply.set_result(found)

    async def _pipeline(self, commands: list[Command]) -> list[Any]:
        if not commands:
            return []
        async with asyncio.timeout(2 * self._timeout_s):  # a connection that was lost is tried once more
            pipeline = self._redis.pipeline(transaction=False)
            for command in commands:
                command(pipeline)
            replies: list[Any] = await pipeline.execute(raise_on_error=False)
            return replies


def _connect(url: str, timeout_s: float) -> tuple[Any, tuple[type[Exception], ...]]:
    try:
        import redis.asyncio as redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.exceptions import ConnectionError as LostError
        from redis.exceptions import RedisError
    except ImportError:
        raise NotConfiguredError("idempotency needs the extra `redis`: pip install 'nowgraph[redis]'") from None
    try:
        pool = redis.ConnectionPool.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            # A connection that Redis closed while nobody used it is opened anew.
            retry=Retry(NoBackoff(), 1, supported_errors=(LostError,)),
        )
    except ValueError:
        raise NotConfiguredError("redis_url: expected redis://host:port/number, rediss:// or unix://") from None
    return redis.Redis(connection_pool=pool), (RedisError, OSError)  # TimeoutError is one
