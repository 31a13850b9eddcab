"""Lists over real gRPC: what every list keeps, whatever is asked, and what a request may say."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from model_server.background import BackgroundServer
from model_server.settings import ServerSettings
from nowgraph.client import CategoryCap, Client, ItemFilter, ListRequest, ListRules, NotReadyError, RankedItems, Row
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import prediction_service_pb2_grpc as service_grpc

pytestmark = pytest.mark.integration


@pytest.fixture
def serving(shop: Any, settings: ServerSettings) -> Iterator[BackgroundServer]:
    """A server of lists over the shop, without Kafka."""
    with BackgroundServer(lambda: shop.server(settings)) as running:
        yield running


@pytest.fixture
def client(serving: BackgroundServer) -> Iterator[Client]:
    """A client of it, with a deadline that a loaded machine can hold."""
    with Client(serving.target, timeout_s=20) as client:
        yield client


@pytest.fixture
def server_of(shop: Any, settings: ServerSettings) -> Callable[..., AbstractContextManager[Client]]:
    """Gives a client of a server over the shop, as the options have it."""

    @contextmanager
    def run(**options: Any) -> Iterator[Client]:
        with (
            BackgroundServer(lambda: shop.server(settings, **options)) as running,
            Client(running.target, timeout_s=20) as client,
        ):
            yield client

    return run


def metric(running: BackgroundServer, name: str, **labels: str) -> float:
    """A value of the server's registry."""
    return running.server.metrics.registry.total(name, **labels)


def after_all(shop: Any) -> int:
    """A moment after everything in the shop's graph."""
    return shop.start_us + 30 * shop.day_us


def test_a_list_says_what_it_rests_on(client: Client, shop: Any) -> None:
    """Items with score, place and source; history, age, model, cut-off, position and timing of this very request."""
    found = client.rank(7, event_time=after_all(shop), request_id="mine")
    assert (found.request_id, found.task, found.model_version) == ("mine", "next_click", "counting")
    assert found.keys == (8, 0, 1, 2, 3)  # after 7 comes 8; the others had one click each, in the order of their keys
    assert [item.position for item in found.items] == [1, 2, 3, 4, 5]
    assert found.items[0].score == 101.0
    assert found.items[0].sources == ("co_visit", "popular")
    assert (found.history_count, found.session_count, found.candidate_count) == (1, 0, 20)
    assert found.newest_age_us == 22 * shop.day_us - shop.minute_us
    assert not found.fallback
    assert found.cutoff_time_us == after_all(shop)
    assert found.graph_position.offsets == {("history", 0): 40}
    assert found.timing.total_us >= found.timing.retrieve_us == 7
    assert found.applied_rules == ()


def test_nobody_gets_the_popular_and_is_told_so(client: Client, shop: Any) -> None:
    """An unknown user, or none, and no session: a list all the same, marked; a session alone is enough to be known."""
    shop.apply([shop.click(3, 12, shop.start_us + 25 * shop.day_us)])
    for user in (None, 10**9):
        found = client.rank(user, k=1, event_time=after_all(shop))
        assert (found.fallback, found.history_count, found.newest_age_us) == (True, 0, None)
        assert found.keys == (12,)
    seen = Row("clicks", 900, {"item_id": 4})
    found = client.rank(session=[seen], k=1, event_time=after_all(shop))
    assert (found.fallback, found.session_count, found.newest_age_us, found.keys) == (False, 1, 0, (5,))


def test_a_session_counts_as_it_happened(client: Client, shop: Any) -> None:
    """Rows may come in any order and say whose they are; the age is that of the newest of them."""
    at_us = after_all(shop)
    rows = [
        Row("clicks", 901, {"item_id": 4, "user_id": 7}, at_us - 5),
        Row("clicks", 902, {"item_id": 9, "note": "private"}, at_us - 50),
    ]
    found = client.rank(7, session=rows, k=3, event_time=at_us)
    assert found.keys == (5, 8, 10)
    assert (found.history_count, found.session_count, found.newest_age_us) == (1, 2, 5)


def test_time_is_respected_at_one_microsecond(client: Client, shop: Any) -> None:
    """An item and a click count from their very time on, and not one microsecond before."""
    at_us = after_all(shop)
    shop.apply([shop.item(50, at_us), shop.click(7, 2, at_us)])
    before, after = (client.rank(7, k=30, event_time=time_us) for time_us in (at_us - 1, at_us))
    assert (50 in before.keys, 50 in after.keys) == (False, True)
    assert (before.history_count, after.history_count) == (1, 2)
    assert next(item for item in after.items if item.key == 50).is_new
    assert after.newest_age_us == 0


def test_new_is_what_appeared_within_the_tasks_span(client: Client, shop: Any) -> None:
    """Three days in this task: the item of exactly three days ago is no longer new."""
    found = client.rank(k=20, event_time=shop.start_us + 19 * shop.day_us)
    assert {item.key for item in found.items if item.is_new} == {17, 18, 19}


def test_what_may_be_in_a_list(client: Client, shop: Any) -> None:
    """Candidates, exclusions, filters of every kind of column, and what was seen, each by itself."""
    at_us = after_all(shop)
    assert client.rank(7, candidates=[3, 9, 77, 3], event_time=at_us).keys == (3, 9)
    assert client.rank(7, candidates=[3, 9], event_time=at_us).items[0].sources == ("given",)
    assert client.rank(7, exclude=[8, 0], event_time=at_us).keys == (1, 2, 3, 4, 5)
    assert client.rank(7, exclude_seen=True, k=20, event_time=at_us).keys.count(7) == 0
    assert client.rank(7, exclude_seen=False, k=20, event_time=at_us).keys.count(7) == 1

    def filtered(*filters: ItemFilter) -> tuple[Any, ...]:
        return client.rank(filters=filters, k=20, event_time=at_us).keys

    assert filtered(ItemFilter("color", "red")) == (0, 3, 6, 9, 12, 15, 18)
    assert filtered(ItemFilter("color", ["red", "green"], negate=True)) == (2, 5, 8, 11, 14, 17)
    assert filtered(ItemFilter("tags", "c"), ItemFilter("price", 0)) == (4, 12)
    assert filtered(ItemFilter("in_stock", False)) == (0, 5, 10, 15)


def test_rules_are_applied_after_the_model_and_reported(client: Client, shop: Any) -> None:
    """Each rule of the request says what it removed and what it let in, in the order of application."""
    rules = ListRules(deny=[8, 77], caps=[CategoryCap("color", 1)], new_share_min=0.5)
    found = client.rank(7, k=3, rules=rules, event_time=shop.start_us + 21 * shop.day_us)
    deny, cap, share = found.applied_rules
    assert (deny.rule, deny.removed, deny.added) == ("deny", (8,), (2,))
    assert (cap.rule, cap.column, cap.removed, cap.added) == ("cap", "color", (), ())
    assert (share.rule, share.removed, share.added, share.lacking) == ("new_share", (1,), (19,), 1)
    assert found.keys == (0, 2, 19)
    assert [item.position for item in found.items] == [1, 2, 3]
    only = client.rank(7, rules=ListRules(allow=[5, 9]), event_time=after_all(shop))
    assert only.keys == (5, 9)
    assert only.candidate_count == 20


def test_a_freshness_token_is_waited_for(client: Client, shop: Any, serving: BackgroundServer) -> None:
    """The list comes after the token's offset is applied, knows the click, and its freshness is measured."""
    now_us = time.time_ns() // 1_000
    token = service_pb2.FreshnessToken(topic="history", offset=40)
    click = shop.click(7, 13, now_us)
    threading.Timer(0.3, lambda: shop.apply([click])).start()
    found = client.rank(7, k=2, freshness_token=token, timeout_s=20.0)
    assert found.keys == (8, 14)
    assert found.history_count == 2
    assert found.timing.freshness_wait_us > 0  # how long, a busy machine decides
    assert found.graph_position.offsets["history", 0] == 41
    assert found.cutoff_time_us > now_us + 300_000  # asked as of the clock after the wait
    assert metric(serving, "nowgraph_event_to_rank_seconds_count") == 1
    assert 0.3 < metric(serving, "nowgraph_event_to_rank_seconds_sum") < 20


def test_a_token_out_of_reach_is_a_failed_precondition(client: Client) -> None:
    """Never a silent stale list: when the deadline allows no more waiting, the caller hears so."""
    token = service_pb2.FreshnessToken(topic="history", offset=40)
    with pytest.raises(NotReadyError, match="offsets below 40"):
        client.rank(7, freshness_token=token, timeout_s=0.3)


def test_a_batch_answers_each_list_in_order(client: Client, shop: Any, serving: BackgroundServer) -> None:
    """One wrong request is its own error with its field, also where the ranker finds it; lists are made together."""
    at_us = after_all(shop)
    beast = Row("clicks", 900, {"item_id": 666})
    requests = [ListRequest(user, k=1, event_time=at_us, request_id=f"b{user}") for user in range(12)]
    requests[3] = ListRequest(3, k=-1, request_id="b3")
    requests[5] = ListRequest(5, session=[beast], request_id="b5")
    results = client.rank_batch(requests)
    assert [(error.field, error.request_id) for error in (results[3], results[5])] == [
        ("k", "b3"),
        ("session[0].cells[0]", "b5"),
    ]
    assert [found.keys for found in (*results[:3], results[4], *results[6:])] == [
        (user + 1,) for user in (0, 1, 2, 4, 6, 7, 8, 9, 10, 11)
    ]
    assert max(shop.rankers[-1].asked) > 1
    too_many = [ListRequest()] * (serving.server.settings.batch_request_limit + 1)
    with pytest.raises(Exception, match="requests: at most"):
        client.rank_batch(too_many)


def test_a_long_batch_is_answered_whole_and_keeps_nobody_waiting(shop: Any) -> None:
    """Longer than the queue and than the deadline of a single answer; a caller of Rank comes in between."""
    settings = ServerSettings(
        port=0, metrics_port=0, queue_limit=20, deadline_default_ms=1_000, rank_batch_inflight_limit=4
    )
    at_us = after_all(shop)
    with BackgroundServer(lambda: shop.server(settings)) as running, Client(running.target, timeout_s=60) as client:
        ranker = shop.rankers[-1]
        rank = ranker.rank
        ranker.asked.clear()  # of warming up

        def slow(questions: Any) -> Any:
            time.sleep(0.01 * len(questions))
            return rank(questions)

        ranker.rank = slow
        requests = [ListRequest(number % 20, k=1, event_time=at_us) for number in range(150)]
        with ThreadPoolExecutor(1) as pool:
            start_s = time.monotonic()
            batch = pool.submit(client.rank_batch, requests)
            time.sleep(0.3)
            assert client.rank(7, k=1, event_time=at_us).keys == (8,)
            alone_s = time.monotonic() - start_s
            results = batch.result()
            assert time.monotonic() - start_s > max(1.4, 2 * alone_s)
    assert all(isinstance(found, RankedItems) for found in results)
    assert max(ranker.asked) <= 5  # four of the batch, and the one in between


def test_a_server_of_lists_gives_no_scores_and_the_other_way_round(
    serving: BackgroundServer, running: BackgroundServer
) -> None:
    """What the other kind of server answers is FAILED_PRECONDITION, with the name of the task that is served."""
    row = service_pb2.ScoreRequest()
    with grpc.insecure_channel(serving.target) as lists, grpc.insecure_channel(running.target) as scores:
        rank, score = service_grpc.PredictionServiceStub(lists), service_grpc.PredictionServiceStub(scores)
        calls = [
            lambda: rank.Score(row, timeout=10),
            lambda: rank.ScoreBatch(service_pb2.ScoreBatchRequest(requests=[row]), timeout=10),
            lambda: list(rank.ScoreStream(iter([service_pb2.ScoreStreamRequest(request=row)]), timeout=10)),
            lambda: rank.Neighborhood(service_pb2.NeighborhoodRequest(request=row), timeout=10),
            lambda: score.Rank(service_pb2.RankRequest(), timeout=10),
            lambda: score.RankBatch(service_pb2.RankBatchRequest(requests=[service_pb2.RankRequest()]), timeout=10),
        ]
        for number, call in enumerate(calls):
            with pytest.raises(grpc.RpcError, match="next_click" if number < 4 else "fraud") as caught:
                call()
            assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION  # type: ignore[attr-defined]


def test_lists_are_made_while_the_graph_grows(
    shop: Any, ranking_checkpoint: Path, server_of: Callable[..., AbstractContextManager[Client]]
) -> None:
    """Items and clicks that arrive during calls break nothing; what lies after a list's time is not in it."""
    start_us, minute_us = after_all(shop), shop.minute_us
    stop = threading.Event()
    written: list[int] = []

    def write() -> None:
        while not stop.is_set() and len(written) < 600:
            number = len(written)
            at_us = start_us + number * minute_us
            shop.apply([shop.item(1_000 + number, at_us), shop.click(number % 9, 1_000 + number, at_us)])
            written.append(number)

    with server_of(checkpoint=ranking_checkpoint) as client:
        writer = threading.Thread(target=write)
        writer.start()
        try:
            for number in range(80):
                at_us = start_us + (number * 7) * minute_us
                found = client.rank(number % 9, k=1_000, event_time=at_us)
                assert len(set(found.keys)) == len(found.keys)
                assert max(found.keys) <= 1_000 + number * 7
        finally:
            stop.set()
            writer.join()
        last_us = start_us + written[-1] * minute_us
        found = client.rank(written[-1] % 9, k=1_000, event_time=last_us)
    assert 1_000 + written[-1] in found.keys
    assert found.newest_age_us == 0


def test_a_drained_server_of_lists_lets_go_of_the_graph(
    shop: Any, settings: ServerSettings, ranking_checkpoint: Path
) -> None:
    """Index, walks and samplers go with it: who keeps the object of a stopped server keeps no reader of the graph."""
    before = shop.graph.readers()
    running = BackgroundServer(lambda: shop.server(settings, checkpoint=ranking_checkpoint)).start()
    with Client(running.target, timeout_s=20) as client:
        assert len(client.rank(7, k=5, event_time=after_all(shop)).items) == 5
    assert shop.graph.readers() > before
    running.close()
    gc.collect()
    assert shop.graph.readers() == before
    assert running.server.port > 0


def test_a_scrape_counts_what_was_listed(client: Client, shop: Any, serving: BackgroundServer) -> None:
    """Stages, lengths, candidates, sources and fallbacks; the warm-up is none of them."""
    at_us = after_all(shop)
    client.rank(7, k=3, event_time=at_us)
    client.rank(k=2, event_time=at_us)
    assert metric(serving, "nowgraph_requests_total", method="Rank", code="OK") == 2
    for stage in ("total", "retrieve", "forward", "rules", "queue"):
        assert metric(serving, "nowgraph_rank_stage_seconds_count", stage=stage) >= 2
    assert metric(serving, "nowgraph_rank_list_items_sum") == 5
    assert metric(serving, "nowgraph_rank_candidates_sum") == 40
    assert metric(serving, "nowgraph_rank_shown_items_total", source="popular") == 5
    assert metric(serving, "nowgraph_rank_shown_items_total", source="co_visit") == 1
    assert metric(serving, "nowgraph_rank_fallbacks_total") == 1
    info = next(one for one in serving.server.metrics.registry.collect() if one.name == "nowgraph_build")
    assert (info.samples[0].labels["task"], info.samples[0].labels["kind"]) == ("next_click", "ranking")
