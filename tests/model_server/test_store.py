from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
from grpc_health.v1 import health_pb2

from model_server.background import BackgroundServer
from model_server.loading import load_model
from model_server.server import build_server
from model_server.settings import ServerSettings
from model_server.store import StoreView
from nowgraph.client import Client, Row, Score
from online_sampler.plan import SamplingPlan

pytestmark = pytest.mark.integration
WAIT_S = 30
PLAN = SamplingPlan.from_dict({"num_neighbors": [{"hop1": 4}]})
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def settings(settings: ServerSettings) -> ServerSettings:
    """A busy machine's Redis is not away."""
    return settings.model_copy(update={"store_timeout_ms": 5_000, "store_look_ms": 50.0, "fixed_shape": True})


def until(what: Callable[[], Any]) -> None:
    """Returns once it is so."""
    deadline_s = time.monotonic() + WAIT_S
    while not what():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def fill(store: Any, world: Any, first: int, last: int) -> None:
    """Payments of four customers at three terminals."""
    events = [
        world.event(number, world.start_us + number * 1_000_000, customer=number % 4, terminal=number % 3)
        for number in range(first, last)
    ]
    assert not store.apply(events).rejected


def asked(world: Any, count: int) -> list[Row]:
    """Payments that nobody has seen, of customers and with words that the graph has and has not."""
    return [
        Row(
            "transactions",
            10_000 + number,
            {
                "customer_id": number % 6,
                "terminal_id": number % 4,
                "tx_amount": number * 1.5,
                "channel": ["web", "shop", f"unheard of {number}"][number % 3],
                "note": f"note {number}",
                "card_number": f"4000-{number % 4:04d}",
            },
            world.start_us + 10**10 + number,
        )
        for number in range(count)
    ]


@pytest.fixture
def view_of(settings: ServerSettings) -> Iterator[Callable[..., StoreView]]:
    """Opens the views of stores."""
    with ExitStack() as stack:
        yield lambda store, **more: stack.enter_context(
            closing(
                StoreView.open(store.url, store.schema, settings.model_copy(update=more), namespace=store.namespace)
            )
        )


def server_of(world: Any, view: Any, settings: ServerSettings) -> Any:
    """A server over any view, not started."""
    return build_server(view, load_model(world.checkpoint, view, settings), settings=settings, privacy=world.privacy)


@pytest.mark.parametrize("task", ["fraud", "spend"])
def test_a_store_answers_as_an_arena_does_bit_for_bit(
    task: str,
    world_of: Callable[[str], Any],
    redis_stores: Any,
    shared_redis_cluster: Callable[[], str],
    view_of: Callable[..., StoreView],
    settings: ServerSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same events, the same questions: equal numbers, alone, in batches and streams, with what is kept begun anew
    again and again while words get other codes; and no view but the last stays in memory.
    """
    monkeypatch.setattr("online_sampler.redis_sampler.KEPT_BYTES_MAX", 3_000)
    world = world_of(task)
    store = redis_stores(shared_redis_cluster(), world.schema)
    grown = [world.event(n, world.start_us + n * 60_000_000, customer=n % 20, terminal=n % 10, amount=5.0 + n % 7)
             for n in range(100)]  # fmt: skip
    assert not store.apply(grown).rejected
    view = view_of(store)
    with (
        BackgroundServer(lambda: server_of(world, view, settings)) as there,
        BackgroundServer(lambda: world.server(settings)) as here,
        Client(there.target, timeout_s=20) as from_store,
        Client(here.target, timeout_s=20) as from_arena,
    ):
        views = set()
        for turn in range(4):
            rows = (
                asked(world, 24)
                if task == "fraud"
                else [Row("customers", key, event_time=world.start_us + 10**10) for key in range(24)]
            )
            for ask in (
                lambda client, rows=rows: [
                    client.score(r.table, r.key, r.cells, event_time=r.event_time) for r in rows
                ],
                lambda client, rows=rows: client.score_batch(rows),
                lambda client, rows=rows: list(client.score_stream(rows)),
            ):
                assert [numbers(score) for score in ask(from_store)] == [numbers(score) for score in ask(from_arena)]
                views.add(id(there.server._router.lanes[0].generations.current().sampler.view))
            more = [world.event(1_000 + 10 * turn + n, world.start_us + 8 * 10**9 + n, customer=n) for n in range(6)]
            store.apply(more)
            world.apply(more)
        assert len(views) > 2


def numbers(score: Any) -> Any:
    """What is to be equal of two answers."""
    assert isinstance(score, Score), score
    return score.logit, score.probability, score.value, score.quantiles, score.neighbor_count, score.history_count


def alone(client: Client, row: Row) -> Score:
    """One row's answer."""
    return client.score(row.table, row.key, row.cells, event_time=row.event_time)
