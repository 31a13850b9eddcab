"""Two servers over one graph and one Redis: a caller that tries again elsewhere gets the answer it already had."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from pydantic import SecretStr

from model_server.background import BackgroundServer
from model_server.errors import NotConfiguredError
from model_server.settings import ServerSettings
from nowgraph.client import Client, InvalidRequestError, Row, Score, UnavailableError
from nowgraph.client_lists import ListRequest

pytestmark = pytest.mark.integration


@pytest.fixture
def remembering(settings: ServerSettings, shared_redis: Callable[[], str]) -> ServerSettings:
    """Settings of servers that share a Redis."""
    return settings.model_copy(update={"idempotency_window_s": 60.0, "redis_url": SecretStr(shared_redis())})


@pytest.fixture
def clients(world: Any, remembering: ServerSettings) -> Iterator[tuple[Client, Client]]:
    """Of two servers."""
    with ExitStack() as stack:
        servers = [stack.enter_context(BackgroundServer(lambda: world.server(remembering))) for _ in range(2)]
        here, there = [stack.enter_context(Client(server.target, timeout_s=20)) for server in servers]
        yield here, there


def test_the_same_id_has_the_same_answer_at_both(world: Any, clients: tuple[Client, Client]) -> None:
    """Though the graph has grown and the clock gone on; without an id, and with another one, it is asked anew."""
    here, there = clients
    cells = {"tx_amount": 12.5, "customer_id": 3}
    first = here.score("transactions", 9_000, cells, request_id="pay-1")
    world.apply([world.event(9_001, world.start_us + 10**11, customer=3)])
    assert there.score("transactions", 9_000, cells, request_id="pay-1") == first
    assert here.score("transactions", 9_000, cells, request_id="pay-1") == first
    for other in ({}, {"request_id": "pay-2"}):
        asked_anew = there.score("transactions", 9_000, cells, **other)
        assert asked_anew.graph_position.sequence > first.graph_position.sequence


def test_another_body_under_the_id_is_refused(clients: tuple[Client, Client]) -> None:
    """The error names the field, and the first answer stays."""
    here, there = clients
    first = here.score("transactions", 1, {"tx_amount": 1.0}, request_id="body-1")
    with pytest.raises(InvalidRequestError) as error:
        there.score("transactions", 1, {"tx_amount": 2.0}, request_id="body-1")
    assert error.value.field == "request_id"
    assert here.score("transactions", 1, {"tx_amount": 1.0}, request_id="body-1") == first


def test_items_of_batches_are_remembered_too_and_streams_are_not(clients: tuple[Client, Client]) -> None:
    """A batch sent again gives each item its answer; ids of a stream only match its answers to its requests."""
    here, there = clients
    rows = [Row("transactions", number, {"tx_amount": 1.0}, request_id=f"item-{number}") for number in range(5)]
    first = here.score_batch(rows)
    assert all(isinstance(one, Score) for one in first)
    assert there.score_batch(rows) == first
    assert there.score("transactions", 2, {"tx_amount": 1.0}, request_id="item-2") == first[2]
    for amount in (1.0, 2.0):
        numbered = [Row("transactions", 1, {"tx_amount": amount})] * 3
        assert {one.request_id for one in here.score_stream(numbered) if isinstance(one, Score)} == {"0", "1", "2"}


def test_lists_are_remembered(shop: Any, remembering: ServerSettings) -> None:
    """Rank and the items of RankBatch: a page that is loaded again shows what it showed."""
    with ExitStack() as stack:
        servers = [stack.enter_context(BackgroundServer(lambda: shop.server(remembering))) for _ in range(2)]
        here, there = [stack.enter_context(Client(server.target, timeout_s=20)) for server in servers]
        first = here.rank(1, k=5, request_id="page-1")
        assert there.rank(1, k=5, request_id="page-1") == first
        assert there.rank_batch([ListRequest(1, k=5, request_id="page-1")]) == [first]
        with pytest.raises(InvalidRequestError, match="request_id"):
            there.rank(1, k=6, request_id="page-1")


def test_without_redis_ids_are_not_answered(world: Any, remembering: ServerSettings, redis_server: Any) -> None:
    """A server that loses its Redis refuses requests with an id and answers those without; without one none starts."""
    own = remembering.model_copy(update={"redis_url": SecretStr(redis_server.url)})
    with BackgroundServer(lambda: world.server(own)) as server, Client(server.target, timeout_s=2) as client:
        client.score("transactions", 1, request_id="kept")
        redis_server.freeze()
        begin_s = time.monotonic()
        with pytest.raises(UnavailableError, match="request ids cannot be looked up"):
            client.score("transactions", 1, request_id="kept")
        assert time.monotonic() - begin_s < 10
        assert client.score("transactions", 1).probability is not None
        redis_server.kill()
    with pytest.raises(NotConfiguredError, match="Redis does not answer"):
        BackgroundServer(lambda: world.server(own)).start()
