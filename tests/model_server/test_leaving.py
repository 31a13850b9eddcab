from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import grpc
import pytest

from model_server.leaving import close_listeners, connections, leave

pytestmark = pytest.mark.integration

PATH = "/echo.Echo/Answer"


class Echo(grpc.GenericRpcHandler):
    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        async def answer(request: bytes, _: object) -> bytes:
            return request

        return grpc.unary_unary_rpc_method_handler(answer)


async def serving(*, age_s: float) -> tuple[grpc.aio.Server, int]:
    """A server on a port that may be shared, and the port."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 1), ("grpc.max_connection_age_ms", round(age_s * 1e3))])
    server.add_generic_rpc_handlers((Echo(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, port


@pytest.fixture
async def lasting() -> AsyncIterator[int]:
    """The port of a server whose connections may stay."""
    server, port = await serving(age_s=3_600)
    yield port
    await server.stop(None)


async def test_nobody_new_comes_in_and_who_is_in_is_answered(lasting: int) -> None:
    """Once the listeners are closed a new connection is refused, and those that are there go on as before."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{lasting}") as channel:
        call = channel.unary_unary(PATH)
        assert await call(b"before", timeout=10) == b"before"
        assert connections(lasting) == 1
        close_listeners(lasting)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", lasting)
        assert await call(b"after", timeout=10) == b"after"


async def test_leaving_ends_with_the_last_connection() -> None:
    """A connection is told to go when it is old: then none is left, long before the time that was allowed."""
    server, port = await serving(age_s=0.3)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await channel.unary_unary(PATH)(b"x", timeout=10)
        start_s = time.monotonic()
        assert await leave(port, age_s=60.0) == 0
        assert time.monotonic() - start_s < 30
    await server.stop(None)


async def test_a_connection_that_stays_is_not_waited_for_for_ever(lasting: int) -> None:
    """What does not go by its age, such as a stream without an end, is counted, and leaving ends."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{lasting}") as channel:
        await channel.unary_unary(PATH)(b"x", timeout=10)
        start_s = time.monotonic()
        assert await leave(lasting, age_s=0.2) == 1
        assert time.monotonic() - start_s < 10
    assert await leave(lasting, age_s=5.0) == 0
