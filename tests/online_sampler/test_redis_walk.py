"""What a walk through Redis asks, and what it does when writers write, shards are lost, or are away."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from online_sampler import Neighborhood, SamplingPlan
from temporal_graph.redis.errors import StoreLostError, StoreNotReadyError, StoreUnavailableError
from temporal_graph.redis.view import RedisView
from temporal_graph.schema import Schema
from temporal_graph.view import GraphView

pytestmark = pytest.mark.integration

Encode = Callable[..., bytes]
PLACE = ("events", 0)


def plan(*hops: object, **more: object) -> SamplingPlan:
    """A plan of these hops."""
    return SamplingPlan.from_dict({"num_neighbors": [{f"hop{i + 1}": hop} for i, hop in enumerate(hops)], **more})


def at(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """int64 [N]."""
    return np.array(values, np.int64)


def keys_of(found: Neighborhood, view: GraphView, hop: int = 1) -> list[Any]:
    """The keys of the rows of a hop, in the order they were reached."""
    names = [table.name for table in found.schema.tables]
    return [view.keys(names[found.table[n]], found.row[n : n + 1])[0] for n in np.flatnonzero(found.hop == hop)]


def test_a_hop_is_one_round(cluster: Any, encode: Encode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hops from four seeds are three reads, however many rows they reach, and again only what changed is sent."""
    cluster.apply(
        [encode("pays", (key,), 100 + key, user_id=(key % 4,), shop_id=(str(key % 7),)) for key in range(200)]
    )
    rounds: list[list[Any]] = []
    read = RedisView.read

    def counted(self: RedisView, *asked: Any) -> Any:
        rounds.append(read(self, *asked))
        return rounds[-1]

    monkeypatch.setattr(RedisView, "read", counted)
    sampler = cluster.sampler(plan(8, 4))
    for sent in (True, False):
        rounds.clear()
        sampler.sample_keys("users", [0, 1, 2, 3], at(500, 500, 500, 500))
        assert len(rounds) == 3
        assert any(found.frames for one in rounds for found in one) == sent


def test_a_reader_beside_a_writer_sees_whole_rows_of_the_past(cluster: Any, encode: Encode) -> None:
    """While a writer writes: every row of an answer whole, none of the future, none missing that its position has."""
    count, batch, number = 3_000, 20, 64

    def write() -> None:
        for first in range(0, count, batch):
            keys = range(first, first + batch)
            cluster.apply([encode("pays", (k,), k, user_id=(0,), amount=float(k), card=str(k)) for k in keys])

    sampler, answers = cluster.sampler(plan(number, 1)), 0
    with ThreadPoolExecutor() as pool:
        writing = pool.submit(write)
        while not writing.done() or not answers:
            cutoff = count if answers % 2 else answers % count
            found = sampler.sample_keys("users", [0], at(cutoff))
            applied = found.position.offsets.get(PLACE, 0)
            keys = keys_of(found, sampler.view)
            top = keys[0] if keys else -1
            assert keys == list(range(top, max(top - number, -1), -1))
            assert min(cutoff + 1, applied) - 1 <= top <= cutoff
            cells = found.columns["pays"]
            assert cells.numerical[:, 0].tolist() == [float(key) for key in keys]
            assert sampler.view.strings("pays", "card", cells.coded[:, 0]) == [str(key) for key in keys]
            answers += 1
        writing.result()
    assert answers > 5


def test_a_graph_serves_once_it_holds_what_its_log_held(
    redis_stores: Any, cluster: Any, shop: Schema, encode: Encode
) -> None:
    """Until the positions that were expected when it was begun are reached, questions are refused."""
    store = redis_stores(cluster.url, shop, serves=False)
    graph, sampler = store.graph, store.sampler(plan(3))
    with pytest.raises(StoreNotReadyError):
        sampler.sample_keys("users", [0], at(100))
    graph.expect({PLACE: 2})
    graph.apply([encode("pays", (1,), 100, user_id=(0,))], positions={PLACE: 1})
    with pytest.raises(StoreNotReadyError):
        sampler.sample_keys("users", [0], at(100))
    graph.apply([encode("pays", (2,), 100, user_id=(0,))], positions={PLACE: 2})
    assert keys_of(sampler.sample_keys("users", [0], at(100)), sampler.view) == [2, 1]


def test_a_lost_shard_is_an_error_and_the_graph_is_built_anew(
    redis_stores: Any, redis_cluster: Any, shop: Schema, encode: Encode
) -> None:
    """One shard flushed: questions and batches are refused, never answered shorter; a writer that opens begins anew."""
    store = redis_stores(redis_cluster.url, shop)
    events = [encode("pays", (key,), 100 + key, user_id=(key % 5,), shop_id=(str(key % 9),)) for key in range(90)]
    store.apply(events)
    sampler = store.sampler(plan(20, 20))
    users, cutoffs = list(range(5)), at(*[500] * 5)
    whole = sampler.sample_keys("users", users, cutoffs)
    lost = next(node for node in redis_cluster.primaries() if "account" not in node.say("keys", "*account"))
    lost.say("flushall")
    with pytest.raises(StoreLostError):
        store.sampler(plan(20, 20)).sample_keys("users", users, cutoffs)
    with pytest.raises(StoreLostError):
        store.apply(events)
    store.reopen()
    assert store.graph.positions == {}
    with pytest.raises(StoreNotReadyError):
        sampler.sample_keys("users", users, cutoffs)
    store.graph.expect({PLACE: 90})
    store.graph.apply(events, positions={PLACE: 90})
    again = sampler.sample_keys("users", users, cutoffs)
    assert len(again.row) == len(whole.row)


@pytest.mark.faults
def test_a_missing_shard_is_a_clear_error_until_its_replica_takes_over(
    redis_stores: Any, redis_cluster: Any, shop: Schema, encode: Encode
) -> None:
    """A shard's primary killed: questions fail by name, then are answered in full by the replica that took over."""
    store = redis_stores(redis_cluster.url, shop)
    events = [encode("pays", (key,), 100 + key, user_id=(key % 5,)) for key in range(60)]
    store.apply(events)
    asked = list(range(5)), at(*[500] * 5)
    whole = store.sampler(plan(20)).sample_keys("users", *asked)
    next(node for node in redis_cluster.primaries() if node is not redis_cluster.nodes[0]).kill()
    seen: set[str] = set()
    sampler = store.sampler(plan(20))
    while "whole" not in seen:
        try:
            found = sampler.sample_keys("users", *asked)
        except StoreUnavailableError as error:
            seen.add(str(error))
        else:
            assert found.row.size == whole.row.size
            seen.add("whole")
    with pytest.raises(StoreUnavailableError, match="0 of 1 replicas"):
        store.apply(events)
    store.reopen()
    assert store.graph.apply(events, positions={PLACE: 60}).duplicate == 60


@pytest.mark.parametrize("kept", [False, True])
def test_a_row_erased_between_its_list_and_its_turn_is_asked_for_anew(
    cluster: Any, encode: Encode, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    """The erasure comes between two rounds of one question: the answer is as of after it, whatever the reader kept."""
    cluster.apply([encode("pays", (key,), 100 + key, user_id=(0,)) for key in range(3)])
    sampler = cluster.sampler(plan(9))
    if kept:
        assert keys_of(sampler.sample_keys("users", [0], at(500)), sampler.view) == [2, 1, 0]
    read, rounds = RedisView.read, []

    def erases(self: RedisView, *asked: Any) -> Any:
        rounds.append(1)
        if len(rounds) == 2:
            cluster.apply([encode("pays", (1,), 200, operation="erase")])
        return read(self, *asked)

    monkeypatch.setattr(RedisView, "read", erases)
    assert keys_of(sampler.sample_keys("users", [0], at(500)), sampler.view) == [2, 0]
    assert sampler.view.row_index("pays", [1]).tolist() == [-1]
