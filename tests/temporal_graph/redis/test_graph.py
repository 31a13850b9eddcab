"""The write face: idempotence, fences, positions, and what it does when Redis forgets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from temporal_graph.errors import SchemaMismatchError
from temporal_graph.redis.errors import RecordsLostError, StaleWriterError, StoreError, StoreLostError
from temporal_graph.redis.graph import RedisGraph
from temporal_graph.redis.shards import Shards
from temporal_graph.schema import Schema, parse_schema

pytestmark = pytest.mark.integration

Payment = Callable[..., bytes]
PLACE, OTHER = ("payments", 0), ("payments", 1)


def keys_of(store: Any) -> int:
    """How many keys the graph has, fences left out."""
    shards, prefix = Shards(store.url), f"{store.namespace}:{store.graph.graph}"
    found = 0
    for shard in shards._placed[0]:
        connection = shard.pool.get_connection()
        connection.send_command("KEYS", prefix + "*")
        found += sum(not key.endswith((b"\xff", b"\xfe")) for key in connection.read_response())
        shard.pool.release(connection)
    shards.close()
    return found


def test_a_batch_is_judged_as_the_native_core_judges_it(cluster: Any, payment: Payment) -> None:
    """Late, malformed and repeated events are told apart, by the record alone."""
    hour = 3_600_000_000
    events = [payment(1, 5), b"\xff", payment(2, 5, known_time_us=5 + hour + 1), payment(1, 5), payment(3, 5)]
    applied = cluster.apply(events)
    assert (applied.applied, applied.duplicate) == (2, 1)
    assert [(one.index, one.reason) for one in applied.rejected] == [(1, "malformed"), (2, "late")]
    assert cluster.apply(events).duplicate == 3


def test_positions_wait_until_what_was_rejected_is_safe(cluster: Any, payment: Payment) -> None:
    """They pass a batch with a rejected event once they are settled, which a writer that was overtaken cannot do."""
    cluster.graph.apply([payment(1, 5), b"\xff"], positions={PLACE: 2})
    assert cluster.graph.positions == {}
    cluster.graph.settle({PLACE: 2})
    assert cluster.graph.positions == {PLACE: 2}
    with RedisGraph.open(cluster.url, cluster.schema, namespace=cluster.namespace) as fresh:
        fresh.claim([PLACE])
        with pytest.raises(StaleWriterError):
            cluster.graph.settle({PLACE: 3})


def test_positions_are_there_with_the_data(cluster: Any, payment: Payment, schema: Schema) -> None:
    """They go on from writer to writer."""
    cluster.graph.apply([payment(1, 5)], positions={PLACE: 7, OTHER: 3})
    cluster.reopen()
    assert cluster.graph.positions == {PLACE: 7, OTHER: 3}
    cluster.graph.apply([payment(2, 5)], positions={PLACE: 8})
    assert cluster.graph.positions == {PLACE: 8, OTHER: 3}


def test_which_topic_the_positions_are_of_is_kept(cluster: Any, redis_stores: Any, schema: Schema) -> None:
    """The first id that anyone gives stands for every writer, as long as the graph does."""
    assert cluster.graph.keep_topic("payments", "first") == "first"
    assert cluster.graph.keep_topic("payments", "second") == "first"
    cluster.reopen()
    assert cluster.graph.keep_topic("payments", "second") == "first"
    other = redis_stores(cluster.url, schema)
    assert other.graph.keep_topic("payments", "second") == "second"


def test_the_brokers_time_and_place_are_kept(cluster: Any, payment: Payment) -> None:
    """A payment without a known time is known when the broker had it."""
    times = {"broker_time_us": np.array([9]), "partition": np.zeros(1, np.int32), "offset": np.array([4])}
    cluster.graph.apply([payment(1, 5, customer=2)], topic="payments", positions={PLACE: 5}, **times)
    from online_sampler import SamplingPlan

    sampler = cluster.sampler(SamplingPlan.from_dict({"num_neighbors": [{"hop1": 5}]}))
    found = sampler.sample_keys("customers", [2, 2], np.array([8, 9]))
    assert np.diff(found.seed_offset).tolist() == [1, 2]


def test_a_writer_that_was_overtaken_writes_nothing(cluster: Any, payment: Payment, schema: Schema) -> None:
    """Once another has claimed its partition, a stale member's batch leaves no row, entry or position."""
    stale = cluster.graph
    stale.apply([payment(1, 5, customer=1)], positions={PLACE: 1})
    stale.apply([payment(2, 5, customer=1)], positions={OTHER: 1})
    with RedisGraph.open(cluster.url, schema, namespace=cluster.namespace) as fresh:
        fresh.claim([PLACE])
        before = keys_of(cluster)
        with pytest.raises(StaleWriterError):
            stale.apply([payment(9, 5, customer=9)], positions={PLACE: 2})
        with pytest.raises(StaleWriterError):
            stale.apply([payment(9, 5, customer=9)], positions={PLACE: 2, OTHER: 2})
        assert keys_of(cluster) == before
        assert fresh.positions == {PLACE: 1, OTHER: 1}
        stale.apply([payment(3, 5, customer=1)], positions={OTHER: 2})  # this one nobody took
        fresh.apply([payment(9, 5, customer=9)], positions={PLACE: 2})
        assert fresh.positions == {PLACE: 2, OTHER: 2}


def test_a_batch_that_was_cut_off_is_made_whole_by_the_next_writer(
    cluster: Any, payment: Payment, schema: Schema, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that dies after the rows and before lists or positions leaves nothing that applying again would miss."""
    clean = keys_of(cluster)
    run, steps = Shards.run, []

    def dies(self: Shards, script: Any, items: Any, **more: Any) -> Any:
        steps.append(script)
        if len(steps) > 1:
            raise KeyboardInterrupt
        return run(self, script, items, **more)

    cluster.graph.claim([PLACE])
    monkeypatch.setattr(Shards, "run", dies)
    with pytest.raises(KeyboardInterrupt):
        cluster.graph.apply([payment(1, 5, customer=4)], positions={PLACE: 1})
    monkeypatch.undo()
    assert keys_of(cluster) == clean + 1  # the row alone
    cluster.reopen()
    assert cluster.graph.positions == {}
    assert cluster.graph.apply([payment(1, 5, customer=4)], positions={PLACE: 1}).duplicate == 1
    assert keys_of(cluster) == clean + 3  # its parent and that one's list


def test_a_graph_that_lost_its_positions_is_begun_anew(
    redis_stores: Any, redis_server: Any, schema: Schema, payment: Payment
) -> None:
    """Redis killed and back empty: the writer is told, and who opens the graph starts from the log's begin."""
    store = redis_stores(redis_server.url, schema)
    store.apply([payment(1, 5)])
    redis_server.kill()
    redis_server.start()
    with pytest.raises(StoreLostError):
        store.apply([payment(2, 5)])
    with pytest.raises(StoreLostError):
        _ = store.graph.positions
    store.reopen()
    assert store.graph.positions == {}
    assert store.graph.apply([payment(1, 5)], positions={PLACE: 1}).applied == 1


def test_another_schema_and_a_retention_are_refused(cluster: Any, schema_text: str) -> None:
    """By name: a graph in Redis is of one schema, and forgets nothing."""
    with pytest.raises(SchemaMismatchError):
        RedisGraph.open(cluster.url, parse_schema(schema_text.replace("amount", "sum")), namespace=cluster.namespace)
    kept = parse_schema(schema_text.replace("lateness: 1h", "lateness: 1h\n    retention: {age: 30d}"))
    with pytest.raises(StoreError, match="'payments' has a retention"):
        RedisGraph.open(cluster.url, kept, namespace=cluster.namespace)


def test_what_a_writer_no_longer_holds_it_calls_complete_no_more(cluster: Any, payment: Payment) -> None:
    """A partition that went to another is as complete as that one says, whatever its first reader caught up with."""
    graph = cluster.graph
    graph.hold([PLACE, OTHER], lambda _: 0)
    graph.set_complete_time(5)
    with RedisGraph.open(cluster.url, cluster.schema, namespace=cluster.namespace) as second:
        second.hold([OTHER], lambda _: 0)
        graph.hold([PLACE], lambda _: 0)
        graph.set_complete_time(9)
        assert cluster.view.state().complete_time_us == 5
        second.set_complete_time(7)
        assert cluster.view.state().complete_time_us == 7


def test_a_partition_begins_where_its_first_reader_found_it(cluster: Any) -> None:
    """Also if that one died before it applied a record: who comes next must not begin behind what is gone by then."""
    cluster.graph.expect({PLACE: 9})
    assert cluster.graph.hold([PLACE], lambda _: 3) == {PLACE: 3}
    cluster.reopen()
    assert cluster.graph.positions == {PLACE: 3}
    assert cluster.graph.hold([PLACE], lambda _: 8) == {PLACE: 3}


def test_a_later_partition_that_lost_its_begin_is_refused(
    redis_stores: Any, shared_redis: Callable[[], str], schema: Schema
) -> None:
    """Nobody read its first records: a graph without them is not the log's. One of another topic is what there is."""
    store = redis_stores(shared_redis(), schema, serves=False)
    store.graph.expect({PLACE: 0})
    with pytest.raises(RecordsLostError, match=r"payments\[1\].* 4"):
        store.graph.hold([PLACE, OTHER], {PLACE: 0, OTHER: 4}.__getitem__)
    assert store.graph.hold([PLACE, ("events", 0)], lambda _: 2) == {PLACE: 2, ("events", 0): 2}
    assert store.graph.hold([OTHER], lambda _: 0) == {OTHER: 0}


def test_a_partition_whose_records_all_expired_is_waited_for_no_more(
    redis_stores: Any, shared_redis: Callable[[], str], schema: Schema
) -> None:
    """Its log begins where it ends: a graph that holds it holds all of it, and serves."""
    store = redis_stores(shared_redis(), schema, serves=False)
    store.graph.expect({PLACE: 500})
    store.graph.hold([PLACE], lambda _: 500)
    assert store.view.state().serves


def test_a_partition_that_came_later_is_waited_for(cluster: Any) -> None:
    """What its log held is unknown until its reader says so, though the graph was begun without it."""
    cluster.graph.hold([PLACE], lambda _: 0)
    cluster.graph.set_complete_time(5)
    assert cluster.view.state().complete_time_us == 5
    cluster.graph.hold([PLACE, OTHER], lambda _: 0)
    assert cluster.view.state().complete_time_us is None


def test_a_step_that_changes_nothing_is_a_write(
    redis_stores: Any, redis_server: Any, schema: Schema, payment: Payment
) -> None:
    """WAIT goes by its connection's last write: what a writer that died left without a replica is not safe yet."""
    store = redis_stores(redis_server.url, schema)
    store.graph.apply([payment(1, 5, customer=1)], positions={PLACE: 1})
    redis_server.say("config", "resetstat")
    assert store.graph.apply([payment(1, 5, customer=1)], positions={PLACE: 1}).duplicate == 1
    rows, lists, positions = 1, 1, 2
    assert f"cmdstat_hset:calls={rows + lists + positions}," in redis_server.say("info", "commandstats")


def test_a_batch_of_no_partition_needs_a_claim(cluster: Any, payment: Payment) -> None:
    """Without positions a batch is written in the name of what was claimed; with nothing claimed it is refused."""
    with pytest.raises(ValueError, match="positions"):
        cluster.graph.apply([payment(1, 5)])
    cluster.graph.claim([PLACE])
    assert cluster.graph.apply([payment(1, 5)]).applied == 1
