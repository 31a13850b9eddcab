from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import pytest

from model_server.accepting import pending_options
from model_server.metrics import Metrics
from model_server.unheard import LOOKS, Unheard

METHOD = "/test.Service/Wait"
LIMIT = 8
CALLS = 40
HOLD_S = 0.5


async def _wait(request: bytes, _: Any) -> bytes:
    if request == b"hold":
        time.sleep(HOLD_S)  # noqa: ASYNC251 - an event loop that has no time is what is tested
    return request


def _ask(target: str) -> list[grpc.StatusCode]:
    """One call that holds the event loop, many while it is held, and what became of those."""
    with grpc.insecure_channel(target) as channel:
        call = channel.unary_unary(METHOD)
        held = call.future(b"hold", timeout=20)
        time.sleep(HOLD_S / 4)
        others = [call.future(b"other", timeout=20) for _ in range(CALLS)]
        codes = [other.code() for other in others]
        assert held.result() == b"hold"
    return codes


async def _measured(metrics: Metrics) -> tuple[list[grpc.StatusCode], list[float]]:
    """The codes, and what is counted as shed after each of some looks."""
    unheard, another = Unheard(metrics), Unheard(Metrics())
    options = pending_options(LIMIT)
    server = unheard.server(lambda: grpc.aio.server(interceptors=(unheard,), options=options))
    another.server(lambda: grpc.aio.server(interceptors=(another,)))
    handlers = {"Wait": grpc.unary_unary_rpc_method_handler(_wait)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    codes = await asyncio.to_thread(_ask, f"127.0.0.1:{port}")
    counted = []
    for _ in range(2 * LOOKS):
        unheard.look()
        counted.append(metrics.registry.total("nowgraph_shed_total", buffer="accept"))
    await server.stop(None)
    return codes, counted


def test_what_grpc_refused_is_counted() -> None:
    """Every call that gRPC refused is, and none that was answered; once, after some looks; it is an unanswered one."""
    metrics = Metrics()
    codes, counted = asyncio.run(_measured(metrics))
    refused = codes.count(grpc.StatusCode.CANCELLED)
    assert CALLS - LIMIT - 2 <= refused < CALLS
    assert counted == [0.0] * (LOOKS - 1) + [refused] * (LOOKS + 1)
    assert metrics.registry.total("nowgraph_requests_total", code="RESOURCE_EXHAUSTED") == refused


@pytest.mark.parametrize(
    ("missing", "counted"),
    [([9, 0, 0, 0], 0), ([0, 9, 0, 9, 0], 0), ([9, 7, 8, 2], 7), ([0, 5, 5, 5, 6, 6, 6], 6)],
)
def test_a_call_that_only_waits_is_not_counted(
    missing: list[int], counted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is missing at one look and has come by the next was waiting; what stays missing is counted once."""
    metrics = Metrics()
    unheard = Unheard(metrics)
    unheard.server(lambda: asyncio.run(_created()))
    for one in missing:
        monkeypatch.setattr("model_server.unheard._begun", lambda _, found=one: found)
        unheard.look()
    assert metrics.registry.total("nowgraph_shed_total", buffer="accept") == counted


async def _created() -> grpc.aio.Server:
    return grpc.aio.server()


def test_it_is_heard_when_grpc_begins_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time that more are missing than may wait, and than were before; a full queue refuses nobody."""
    unheard = Unheard(Metrics())
    unheard.server(lambda: asyncio.run(_created()))
    heard = []
    for missing in (0, LIMIT, LIMIT + 3, LIMIT + 3, 3, 3 + LIMIT, 4 + LIMIT):
        monkeypatch.setattr("model_server.unheard._begun", lambda _, found=missing: found)
        heard.append(unheard.refuses(LIMIT))
    assert heard == [False, False, True, False, False, False, True]


def test_a_server_that_is_not_known_refuses_nobody() -> None:
    """Before there is a server, and where gRPC does not count, there is nothing to hear."""
    assert not Unheard(Metrics()).refuses(LIMIT)
