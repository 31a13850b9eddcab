from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from model_server.caller import ANONYMOUS, NAME_LENGTH_MAX, NamedCallers, Role, caller_named, current_caller


def test_outside_of_a_call_everybody_is_anonymous_and_may_do_everything() -> None:
    """Without authentication nothing is refused, and quotas have a name to count by."""
    assert current_caller() is ANONYMOUS
    assert current_caller().name == "anonymous"
    assert current_caller().roles == frozenset(Role)


@pytest.mark.parametrize("name", [None, "", b"raw", "x" * (NAME_LENGTH_MAX + 1), "a\nb"])
def test_a_name_that_cannot_be_written_down_is_none(name: str | bytes | None) -> None:
    """A name of another type, too long or with control characters never gets into logs, labels or keys."""
    assert caller_named(name) is ANONYMOUS


def test_a_name_of_the_longest_length_is_kept() -> None:
    """The limit itself is allowed."""
    assert caller_named("x" * NAME_LENGTH_MAX).name == "x" * NAME_LENGTH_MAX


@asynccontextmanager
async def echo_of_names() -> AsyncIterator[grpc.aio.Channel]:
    """A real server whose methods answer with the name that their handler sees."""

    async def unary(request: bytes, context: Any) -> bytes:
        return current_caller().name.encode()

    async def stream(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for _ in requests:
            yield current_caller().name.encode()

    handler = grpc.method_handlers_generic_handler(
        "test.Names",
        {"Unary": grpc.unary_unary_rpc_method_handler(unary), "Stream": grpc.stream_stream_rpc_method_handler(stream)},
    )
    server = grpc.aio.server(interceptors=[NamedCallers()])
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(None)


async def test_handlers_see_the_name_that_the_metadata_gives() -> None:
    """Of unary calls and of streams, each call its own; a call without a name after one with it is anonymous."""
    async with echo_of_names() as channel:
        unary = channel.unary_unary("/test.Names/Unary")
        stream = channel.stream_stream("/test.Names/Stream")

        async def asked() -> AsyncIterator[bytes]:
            yield b""

        named = (("nowgraph-client", "shop"),)
        assert await unary(b"", metadata=named) == b"shop"
        assert await unary(b"") == b"anonymous"
        assert [name async for name in stream(asked(), metadata=named)] == [b"shop"]
        assert [name async for name in stream(asked())] == [b"anonymous"]
