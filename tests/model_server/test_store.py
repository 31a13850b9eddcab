from __future__ import annotations

import gc
import math
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from graph_transformer.checkpoint import Checkpoint
from model_server.background import BackgroundServer
from model_server.errors import GraphUnavailableError, NotConfiguredError
from model_server.generation import Serving
from model_server.loading import load_model
from model_server.models.errors import ModelRefused
from model_server.models.loader import FolderModels, Loader, Wanted
from model_server.server import build_server
from model_server.settings import ServerSettings
from model_server.store import StoreView, wait_for_store
from nowgraph.client import Client, DeadlineError, Degraded, FreshnessToken, NotReadyError, Row, Score, UnavailableError
from online_sampler.plan import SamplingPlan
from temporal_graph.redis.errors import StoreNotReadyError, StoreUnavailableError

pytestmark = pytest.mark.integration
WAIT_S = 30
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
        views: list[weakref.ref[Any]] = []
        for turn in range(3):
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
                views.append(weakref.ref(there.server._router.lanes[0].generations.current().sampler.view))
            more = [world.event(1_000 + 10 * turn + n, world.start_us + 8 * 10**9 + n, customer=n) for n in range(6)]
            store.apply(more)
            world.apply(more)
        gc.collect()
        assert len({id(one) for one in views}) > 2
        assert len({one() for one in views} - {None}) <= 1


def test_an_event_is_in_the_answer_that_asks_for_it_or_there_is_none(
    world: Any,
    redis_stores: Any,
    shared_redis: Callable[[], str],
    view_of: Callable[..., StoreView],
    settings: ServerSettings,
) -> None:
    """A token waits until the store has its event, which is then in the answer; one that does not come is refused."""
    store = redis_stores(shared_redis(), world.schema)
    fill(store, world, 0, 1)
    topic, partition = store.place
    view = view_of(store, store_look_ms=60_000.0)  # only who waits makes it look
    row = Row("transactions", 9, {"customer_id": 3}, world.start_us + 10**10)
    with (
        BackgroundServer(lambda: server_of(world, view, settings)) as server,
        Client(server.target, timeout_s=20) as client,
    ):
        for number in range(5):
            token, later = FreshnessToken(topic, partition, number + 1), 0.2 * (number % 2)
            event = world.event(100 + number, world.start_us + 10**9 + number, customer=3)
            writing = threading.Timer(later, store.apply, [[event]])
            writing.start()
            score = client.score(row.table, row.key, row.cells, event_time=row.event_time, freshness_token=token)
            writing.join()
            assert score.history_count == number + 1
            assert score.graph_position.offsets[store.place] > token.offset
            assert score.graph_position.generation == view.generation
        with pytest.raises(NotReadyError, match="offsets below 6"):
            client.score(
                row.table, row.key, row.cells, event_time=row.event_time,
                freshness_token=FreshnessToken(topic, partition, 99), timeout_s=0.5,
            )  # fmt: skip


def health(server: BackgroundServer) -> dict[str, Any]:
    """What each name's health is."""
    with grpc.insecure_channel(server.target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return {
            name: stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=WAIT_S).status
            for name in server.server.health_names
        }


def test_health_follows_the_graph_and_a_store_that_is_away_is_said(
    world: Any,
    redis_stores: Any,
    redis_server: Any,
    view_of: Callable[..., StoreView],
    settings: ServerSettings,
    tmp_path: Path,
) -> None:
    """Emptied: NOT_SERVING until a graph serves again, which is then answered from. Frozen or killed: UNAVAILABLE that
    names Redis, or a rule's answer, while the event loop goes on; and nothing has to be done for it to be over.
    """
    (tmp_path / "degraded.yaml").write_text(
        "rules: [{name: large, when: {column: tx_amount, above: 9}, decision: review}]"
    )
    settings = settings.model_copy(update={"degraded_path": tmp_path / "degraded.yaml"})
    store = redis_stores(redis_server.url, world.schema)
    fill(store, world, 0, 20)
    view = view_of(store, store_timeout_ms=400)
    cells = {"customer_id": 3}
    with (
        BackgroundServer(lambda: server_of(world, view, settings)) as server,
        Client(server.target, timeout_s=10) as client,
    ):

        def history() -> int | None:
            try:
                return client.score("transactions", 9, cells, event_time=world.start_us + 10**10).history_count
            except (UnavailableError, DeadlineError):
                return None

        def refused() -> str:
            with pytest.raises(UnavailableError) as caught:
                client.score("transactions", 9, cells)
            return str(caught.value)

        assert (history(), set(health(server).values())) == (5, {SERVING})
        redis_server.flush()
        until(lambda: set(health(server).values()) == {NOT_SERVING})
        assert "the graph's store in Redis serves no graph" in refused()
        store.reopen()
        store.graph.expect({store.place: 30})
        fill(store, world, 0, 9)
        assert set(health(server).values()) == {NOT_SERVING}
        store._next = 20
        fill(store, world, 0, 10)
        until(lambda: set(health(server).values()) == {SERVING})
        assert history() == 2

        redis_server.freeze()
        until(lambda: view.away)
        assert "the graph's store in Redis cannot answer" in refused()
        assert client.score("transactions", 9, {**cells, "tx_amount": 10.0}).degraded == Degraded(
            "rule", rule="large", decision="review"
        )
        assert set(health(server).values()) == {SERVING}  # whoever asks hears why
        server.server._tenants[0].read_gauges()
        assert server.server.metrics.families.registry.total("nowgraph_store_serving") == 0
        redis_server.thaw()
        until(lambda: history() == 2)

        redis_server.kill()
        until(lambda: view.away)
        assert "does not answer" in refused()
        redis_server.start()
        until(lambda: set(health(server).values()) == {NOT_SERVING})
        store.reopen()
        store.graph.expect({})
        fill(store, world, 0, 20)
        until(lambda: history() == 5)
        until(lambda: set(health(server).values()) == {SERVING})


def test_a_graph_that_nobody_said_is_complete_counts_as_stale(
    world: Any,
    redis_stores: Any,
    shared_redis: Callable[[], str],
    view_of: Callable[..., StoreView],
    settings: ServerSettings,
    tmp_path: Path,
) -> None:
    """Flagged until every partition's updater has said so, and again when it has long said nothing new."""
    (tmp_path / "degraded.yaml").write_text("stale_graph: {bound: 30s, answer: flag}")
    settings = settings.model_copy(update={"degraded_path": tmp_path / "degraded.yaml"})
    store = redis_stores(shared_redis(), world.schema, serves=False)
    store.graph.expect({store.place: 4})
    fill(store, world, 0, 4)
    with (
        BackgroundServer(lambda: server_of(world, view_of(store), settings)) as server,
        Client(server.target, timeout_s=20) as client,
    ):

        def stale_us() -> int | None:
            found = client.score("transactions", 9).degraded
            return None if found is None else found.graph_staleness_us

        registry, parts = server.server.metrics.families.registry, server.server._tenants[0]
        parts.read_gauges()
        assert (stale_us() or 0) > 10**15
        assert math.isnan(registry.total("nowgraph_graph_behind_seconds"))
        assert registry.total("nowgraph_store_serving") == 1
        store.graph.set_complete_time(time.time_ns() // 1_000)
        until(lambda: stale_us() is None)
        parts.read_gauges()
        assert registry.total("nowgraph_graph_behind_seconds") < WAIT_S
        store.graph.set_complete_time(time.time_ns() // 1_000 - 60_000_000)
        until(lambda: 60_000_000 <= (stale_us() or 0) < 120_000_000)


def test_a_neighborhood_of_a_store_is_shown_as_an_arenas(
    world: Any,
    redis_stores: Any,
    shared_redis: Callable[[], str],
    view_of: Callable[..., StoreView],
    settings: ServerSettings,
) -> None:
    """Keys, links and cells of the same rows."""
    store = redis_stores(shared_redis(), world.schema)
    more = [world.event(1_000 + n, world.start_us + 9 * 10**9 + n, customer=77) for n in range(3)]
    store.apply(more)
    world.apply(more)
    with (
        BackgroundServer(lambda: server_of(world, view_of(store), settings)) as there,
        BackgroundServer(lambda: world.server(settings)) as here,
        Client(there.target, timeout_s=20) as from_store,
        Client(here.target, timeout_s=20) as from_arena,
    ):
        cells = {"customer_id": 77, "channel": "never heard of"}
        shown = [
            client.neighborhood("transactions", 9, cells, event_time=world.start_us + 10**10).neighbors
            for client in (from_store, from_arena)
        ]
        assert shown[0] == shown[1]
        assert len(shown[0]) == 5


def test_what_a_store_cannot_give_is_refused_by_name(
    world: Any,
    shop: Any,
    ranking_checkpoint: Path,
    redis_stores: Any,
    shared_redis: Callable[[], str],
    view_of: Callable[..., StoreView],
    settings: ServerSettings,
) -> None:
    """Lists, random sampling and shadows; and codes that are not said whose they are."""
    view = view_of(redis_stores(shared_redis(), world.schema))
    with pytest.raises(NotConfiguredError, match=r"is a ranking: .* serve it from an arena"):
        load_model(ranking_checkpoint, view_of(redis_stores(shared_redis(), shop.schema)), settings)
    checkpoint = Checkpoint.load(world.checkpoint)
    plan = SamplingPlan.from_dict({**checkpoint.task.sampling_plan.to_dict(), "strategy": "uniform"})

    class Drawing(FolderModels):
        def checkpoint(self, version: str, schema: Any) -> Checkpoint:
            found = super().checkpoint(version, schema)
            return replace(found, task=replace(found.task, sampling_plan=plan))

    wanted = Wanted("live", shadows=("beside",))
    refusals: list[str] = []
    with pytest.raises(ModelRefused, match=r"sampling_plan\.strategy: expected most_recent, .* found .*uniform"):
        Loader(Drawing(world.checkpoint), settings).live(wanted, view, lambda *_: None)
    serving = Loader(FolderModels(world.checkpoint), settings).live(
        wanted, view, lambda role, _, error: refusals.append(f"{role}: {error}")
    )
    assert isinstance(serving, Serving)
    assert (serving.shadows, len(refusals)) == ((), 1)
    assert "shadow: a graph in Redis has no shadows" in refusals[0]
    with pytest.raises(LookupError, match="without their sampler"):
        view.strings("transactions", "channel", np.zeros(1, np.int32))


def test_a_watch_that_hangs_hides_nothing(
    world: Any,
    redis_stores: Any,
    shared_redis: Callable[[], str],
    view_of: Callable[..., StoreView],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was seen too long ago is not answered from."""
    view = view_of(redis_stores(shared_redis(), world.schema), store_look_ms=60_000.0)
    view.check()
    monkeypatch.setattr("model_server.store.LOOK_LATE_MAX_S", -100.0)
    with pytest.raises(GraphUnavailableError, match="last heard of"):
        view.check()
    assert view.away


def test_waiting_for_a_store_ends_with_the_reason(
    world: Any, shared_redis: Callable[[], str], redis_stores: Any, settings: ServerSettings
) -> None:
    """After its time: nothing answers there, or no graph serves yet."""
    settings = settings.model_copy(update={"attach_timeout_s": 0.3})
    with pytest.raises(StoreUnavailableError, match="Redis does not answer"):
        wait_for_store("redis://127.0.0.1:1/0", world.schema, settings)
    with pytest.raises(StoreNotReadyError):
        wait_for_store(shared_redis(), world.schema, settings)


def numbers(score: Any) -> Any:
    """What is to be equal of two answers."""
    assert isinstance(score, Score), score
    return score.logit, score.probability, score.value, score.quantiles, score.neighbor_count, score.history_count


def alone(client: Client, row: Row) -> Score:
    """One row's answer."""
    return client.score(row.table, row.key, row.cells, event_time=row.event_time)
