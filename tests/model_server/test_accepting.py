from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future

import grpc
import pytest

from model_server.accepting import by_name_on, pending_options

METHOD = "/test.Service/Wait"
LIMIT = 8
HOLD_S = 1.0


@pytest.fixture
def target() -> Iterator[str]:
    """A server that answers by name, and whose event loop stands still for a while at the message `hold`."""
    started: Future[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def wait(request: bytes, context: object) -> bytes:
        if request == b"hold":
            time.sleep(HOLD_S)  # noqa: ASYNC251 - an event loop that has no time is what is tested
        return request

    async def serve() -> None:
        server = grpc.aio.server(options=pending_options(LIMIT))
        handlers = {"Wait": grpc.unary_unary_rpc_method_handler(wait)}
        added = by_name_on(server)
        added.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", handlers),))
        added.add_registered_method_handlers("test.Service", handlers)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        stop = asyncio.Event()
        started.set_result((f"127.0.0.1:{port}", asyncio.get_running_loop(), stop))
        await stop.wait()
        await server.stop(None)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    address, loop, stop = started.result(timeout=10)
    yield address
    loop.call_soon_threadsafe(stop.set)
    thread.join(timeout=10)


def test_a_method_is_found_by_name(target: str) -> None:
    """Without having been registered; one that is not there is UNIMPLEMENTED."""
    with grpc.insecure_channel(target) as channel:
        assert channel.unary_unary(METHOD)(b"a", timeout=10) == b"a"
        missing = channel.unary_unary("/test.Service/None").future(b"a", timeout=10)
        assert missing.code() is grpc.StatusCode.UNIMPLEMENTED


def test_more_than_may_wait_are_refused_beside_python(target: str) -> None:
    """While the event loop has no time calls beyond the bound are cancelled by gRPC itself, at once; others wait."""
    with grpc.insecure_channel(target) as channel:
        call = channel.unary_unary(METHOD)
        held = call.future(b"hold", timeout=20)
        time.sleep(HOLD_S / 4)
        refused_s: list[float] = []
        began_s = time.monotonic()
        others = [call.future(b"other", timeout=20) for _ in range(100)]
        for other in others:
            other.add_done_callback(lambda _: refused_s.append(time.monotonic() - began_s))
        codes = [other.code() for other in others]
        assert held.result() == b"hold"
    waited = codes.count(grpc.StatusCode.OK)
    assert LIMIT <= waited <= LIMIT + 2  # what the event loop had already asked for is no longer pending
    assert codes.count(grpc.StatusCode.CANCELLED) == 100 - waited
    assert sorted(refused_s)[80] < HOLD_S / 2


def test_within_the_bound_nobody_is_refused(target: str) -> None:
    """As many as may wait come in the same moment, and each is answered."""
    with grpc.insecure_channel(target) as channel:
        call = channel.unary_unary(METHOD)
        held = call.future(b"hold", timeout=20)
        time.sleep(HOLD_S / 4)
        others = [call.future(b"other", timeout=20) for _ in range(LIMIT)]
        assert [other.result() for other in [held, *others]] == [b"hold", *[b"other"] * LIMIT]
