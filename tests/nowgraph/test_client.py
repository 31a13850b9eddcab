from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from model_server.background import BackgroundServer
from model_server.settings import ServerSettings
from nowgraph.client import (
    Client,
    DeadlineError,
    FreshnessToken,
    InvalidRequestError,
    NotReadyError,
    OverloadedError,
    Row,
    Score,
    UnavailableError,
    UnknownTaskError,
)
from nowgraph.client_channel import SERVICE_CONFIG

pytestmark = pytest.mark.integration
LIMITS = {
    "port": 0,
    "metrics_port": 0,
    "deadline_default_ms": 20_000,
    "deadline_reserve_ms": 500,
    "batch_request_limit": 64,
}


@pytest.fixture
def target(world: Any) -> Iterator[str]:
    """Where a server over the world answers."""
    with BackgroundServer(lambda: world.server(ServerSettings(**LIMITS))) as running:
        yield running.target


@pytest.fixture
def client(target: str) -> Iterator[Client]:
    """A blocking client of it."""
    with Client(target, timeout_s=20) as client:
        yield client


def asked_at(world: Any) -> datetime:
    """A moment after everything in the world's graph."""
    return datetime.fromtimestamp(world.start_us / 1e6, UTC) + timedelta(days=1)


CELLS = {"tx_amount": 12.5, "customer_id": 3, "terminal_id": 4, "tags": ["a", "b"], "face": [0.5, 1.0], "online": True}


def test_a_score_of_plain_values(client: Client, world: Any) -> None:
    """Python's own values are enough, and everything the server says is there, exactly."""
    time = asked_at(world)
    score = client.score("transactions", 1000, CELLS, event_time=time, request_id="mine")
    assert score.request_id == "mine"
    assert score.cutoff_time_us == world.start_us + 86_400_000_000 - 1
    assert score.history_count == 13  # five payments of the customer, eight newest of the terminal
    assert score.newest_neighbor_age_us == 86_400_000_000 - 1 - 94 * 60_000_000
    assert score.graph_position.offsets == {("history", 0): 100}
    assert score.timing.total_us >= score.timing.forward_us > 0
    naive = client.score("transactions", 1000, CELLS, event_time=time.replace(tzinfo=None))
    micro = client.score("transactions", 1000, CELLS, event_time=world.start_us + 86_400_000_000)
    assert naive.cutoff_time_us == micro.cutoff_time_us == score.cutoff_time_us
    assert naive.logit == pytest.approx(score.logit, abs=1e-5)


def test_an_entity_is_asked_about_by_its_key(world_of: Callable[[str], Any]) -> None:
    """Table and key are enough; history up to the very time; a key nobody knows is answered with history 0."""
    world = world_of("spend")
    time_us = world.start_us + 43 * 60_000_000  # the customer's third payment
    with (
        BackgroundServer(lambda: world.server(ServerSettings(**LIMITS))) as running,
        Client(running.target, timeout_s=20) as client,
    ):
        score = client.score("customers", 3, event_time=time_us)
        assert (score.kind, score.probability, score.cutoff_time_us) == ("regression", None, time_us)
        assert score.value == score.quantiles[0.5]
        assert list(score.quantiles.values()) == sorted(score.quantiles.values())
        assert (score.history_count, score.newest_neighbor_age_us) == (3, 0)
        assert client.score("customers", 3, event_time=time_us - 1).history_count == 2
        assert client.score("customers", 10**9).history_count == 0
        seen = client.neighborhood("customers", 3, event_time=time_us)
        assert [row.table for row in seen.neighbors].count("transactions") == 3
        assert seen.neighbors[0].key == world.privacy.hash(3)
        with pytest.raises(InvalidRequestError) as error:
            client.score("customers", 3, {"city": "Ghent"})
        assert error.value.field == "row.cells[0]"


def test_without_history_there_is_no_age(client: Client) -> None:
    """A row of nobody has a score, history 0 and None for what does not exist."""
    score = client.score("transactions", 1, {"customer_id": None})
    assert (score.history_count, score.newest_neighbor_age_us) == (0, None)


def test_a_composite_key_is_a_tuple(client: Client, world: Any) -> None:
    """A link to a key of two parts, and the shop it leads to in what the model saw."""
    cells = {**CELLS, "shop_region+shop_number": ("eu", 7)}
    neighborhood = client.neighborhood("transactions", 1000, cells, event_time=asked_at(world))
    assert neighborhood.neighbors[0].key == 1000
    assert neighborhood.neighbors[0].cells["tags"] == ["a", "b"]
    assert neighborhood.neighbors[0].cells["face"] == [0.5, 1.0]
    assert neighborhood.neighbors[0].cells["online"] is True
    assert "customers" in {row.table for row in neighborhood.neighbors}
    with pytest.raises(InvalidRequestError) as error:
        client.neighborhood("transactions", 1000, {"shop_region+shop_number": ("eu", "7")})
    assert error.value.field == "row.cells[0].key.parts[1].text"


def test_errors_are_one_tree_and_name_the_field(client: Client, target: str) -> None:
    """Each kind of failure is its own class, with code and field."""
    with pytest.raises(InvalidRequestError) as invalid:
        client.score("transactions", 1, {"tx_amount": "much"})
    assert (invalid.value.code, invalid.value.field) == ("INVALID_ARGUMENT", "row.cells[0].text")
    with Client(target, task="churn") as other, pytest.raises(UnknownTaskError) as unknown:
        other.score("transactions", 1)
    assert unknown.value.field == "task"
    with pytest.raises(NotReadyError, match="token asks for"):
        client.score("transactions", 1, freshness_token=FreshnessToken("history", 0, 10**6), timeout_s=1.0)
    with pytest.raises(NotReadyError):
        client.ingest("transactions", 1)
    with pytest.raises(DeadlineError):
        client.score("transactions", 1, timeout_s=1e-6)


def test_values_that_no_cell_can_hold_are_refused_before_they_are_sent(client: Client) -> None:
    """A wrong type is the caller's mistake and named by its column."""
    with pytest.raises(TypeError, match="tx_amount"):
        client.score("transactions", 1, {"tx_amount": object()})  # type: ignore[dict-item]


def test_a_batch_keeps_order_and_errors(client: Client) -> None:
    """Items are scores or errors, in the order of the rows; too many are one error."""
    rows = [Row("transactions", 1, {"customer_id": 3}, request_id="a"), Row("transactions", "x", request_id="b")]
    first, second = client.score_batch(rows)
    assert isinstance(first, Score)
    assert first.request_id == "a"
    assert isinstance(second, InvalidRequestError)
    assert (second.request_id, second.field) == ("b", "row.key.parts[0].text")
    with pytest.raises(InvalidRequestError, match="at most 64"):
        client.score_batch(rows * 40)


def test_a_stream_gives_each_row_its_number(client: Client) -> None:
    """Every row comes back once; those without an id have their number in the stream."""
    rows = [Row("transactions", number, {"customer_id": 3}) for number in range(50)]
    rows[7] = Row("transactions", "x", request_id="wrong")
    results = list(client.score_stream(rows, timeout_s=20))
    expected = {str(number) for number in range(50)} - {"7"} | {"wrong"}
    assert {result.request_id for result in results} == expected
    assert [type(result) for result in results if result.request_id == "wrong"] == [InvalidRequestError]


def test_nobody_there_is_unavailable_within_the_deadline(free_ports: Callable[[int], list[int]]) -> None:
    """Retries are gRPC's own, bounded by the deadline."""
    [port] = free_ports(1)
    with Client(f"127.0.0.1:{port}", timeout_s=0.5) as client, pytest.raises((UnavailableError, DeadlineError)):
        client.score("transactions", 1)


def test_a_retry_finds_the_server_that_came_back(world: Any, free_ports: Callable[[int], list[int]]) -> None:
    """A call that meets no server is sent again within its deadline, and only for UNAVAILABLE."""
    [port] = free_ports(1)
    settings = ServerSettings(**LIMITS | {"port": port})
    with Client(f"127.0.0.1:{port}", timeout_s=20) as client:
        with BackgroundServer(lambda: world.server(settings)):
            assert client.score("transactions", 1, {"customer_id": 3}).history_count > 0
        with BackgroundServer(lambda: world.server(settings)):
            assert client.score("transactions", 1, {"customer_id": 3}).history_count > 0
    (method,) = json.loads(json.dumps(SERVICE_CONFIG))["methodConfig"]
    assert method["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]


def test_shedding_is_not_retried(world: Any) -> None:
    """RESOURCE_EXHAUSTED comes back as it is: retrying at once would feed the overload."""
    settings = ServerSettings(**LIMITS, queue_limit=1, batch_limit=1)
    with BackgroundServer(lambda: world.server(settings)) as running, Client(running.target, timeout_s=20) as client:
        results = client.score_batch([Row("transactions", n, {"customer_id": 3}) for n in range(64)])
        shed = running.server.metrics.registry.total("nowgraph_shed_total", buffer="queue")
    refused = [result for result in results if isinstance(result, OverloadedError)]
    assert 0 < len(refused) == shed
