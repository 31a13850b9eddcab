from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import redis

from temporal_graph.redis.errors import StoreError, StoreUnavailableError
from temporal_graph.redis.frames import Version, pack
from temporal_graph.redis.keys import SLICES, Names, entity, key_bytes, time_bytes
from temporal_graph.redis.scripts import APPEND_VERSIONS, COUNT_FENCES, RAISE_FENCES, READ
from temporal_graph.redis.shards import CALL_ITEMS_MAX, Shards, _borrowed

pytestmark = pytest.mark.integration


def fences(names: Names) -> list[Any]:
    """An item for the fence of every slice."""
    return [(number, (names.fence(number),)) for number in range(SLICES)]


def test_replies_come_in_the_order_of_the_items(shards: Shards) -> None:
    """Whatever shard each went to, and in however many calls; what is dropped is gone, and nothing else."""
    one, other = Names("order"), Names("orders")
    some = fences(one)[::3]
    assert len(some) > CALL_ITEMS_MAX
    shards.run(RAISE_FENCES, some)
    shards.run(RAISE_FENCES, fences(other))
    assert shards.run(COUNT_FENCES, fences(one)) == [int(number % 3 == 0) for number in range(SLICES)]
    shards.drop(b"order*", keep=b"orders")
    assert not any(shards.run(COUNT_FENCES, fences(one)))
    assert all(shards.run(COUNT_FENCES, fences(other)))
    assert shards.bytes_used() > 0


def test_a_cluster_is_its_three_shards(shared_redis_cluster: Callable[[], str]) -> None:
    """Each slice is asked of the node that owns it."""
    shards = Shards(shared_redis_cluster())
    assert len(shards) == 3
    shards.close()


def test_a_slot_that_moves_is_never_taken_for_an_empty_one(redis_cluster: Any) -> None:
    """While a slot is between two shards its slices are unavailable, not lost; once it has moved they are found."""
    shards, names = Shards(redis_cluster.url), Names("moving")
    impatient = Shards(redis_cluster.url, patience_s=0.2)
    cluster = redis.RedisCluster.from_url(redis_cluster.url)
    number, row = names.row(entity(0, key_bytes((1,))))
    shards.run(RAISE_FENCES, [(number, (names.fence(number),))])
    shards.run(APPEND_VERSIONS, [(number, (row, pack(Version(5, 1, ()), b"event")))], head=[0, 0])
    want = time_bytes(9) + bytes(4) + time_bytes(0)
    [whole] = shards.run(READ, [(number, (row, want))], head=[b""])
    slot = cluster.keyslot(str(number))
    source = cluster.nodes_manager.get_node_from_slot(slot)
    target = next(node for node in cluster.get_primaries() if node != source)
    here, there = (redis.Redis(host=node.host, port=node.port) for node in (source, target))
    its_id, other_id = (one.execute_command("CLUSTER MYID").decode() for one in (here, there))
    there.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", its_id)
    here.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", other_id)
    for key in [*here.scan_iter(match=f"*{{{number}}}*")]:
        assert here.execute_command("MIGRATE", target.host, target.port, key, 0, 1_000) == b"OK"
        with pytest.raises(StoreUnavailableError):
            impatient.run(READ, [(number, (row, want)), (number, (names.fence(number), want))], head=[b""])
    for one in (there, here):
        one.execute_command("CLUSTER SETSLOT", slot, "NODE", other_id)
    assert shards.run(READ, [(number, (row, want))], head=[b""]) == [whole]
    shards.close()
    impatient.close()


def test_what_is_frozen_or_gone_is_said_in_time(redis_server: Any) -> None:
    """A Redis that does not answer is an error within the bound, and is used again once it does."""
    shards, names = Shards(redis_server.url, timeout_s=0.5, patience_s=1.0), Names("frozen")
    shards.run(RAISE_FENCES, fences(names)[:1])
    redis_server.freeze()
    begun_s = time.monotonic()
    with pytest.raises(StoreUnavailableError):
        shards.run(COUNT_FENCES, fences(names)[:1])
    assert time.monotonic() - begun_s < 4
    redis_server.thaw()
    assert shards.run(COUNT_FENCES, fences(names)[:1]) == [1]
    redis_server.kill()
    with pytest.raises(StoreUnavailableError):
        shards.run(COUNT_FENCES, fences(names)[:1])
    with pytest.raises(StoreUnavailableError):
        Shards(redis_server.url, timeout_s=0.2)
    redis_server.start()
    assert shards.run(COUNT_FENCES, fences(names)[:1]) == [0]
    shards.close()


def test_a_write_counts_once_the_replicas_have_it(
    shared_redis: Callable[[], str], shared_redis_cluster: Callable[[], str]
) -> None:
    """One replica is asked for where every shard has any; asked of one Redis alone, it is refused."""
    cluster, names = Shards(shared_redis_cluster()), Names("replica")
    assert cluster._replicas == 1
    cluster.run(RAISE_FENCES, fences(names))
    cluster.close()
    alone = Shards(shared_redis(), replicas=1, timeout_s=0.5, patience_s=0.5)
    with pytest.raises(StoreUnavailableError, match="0 of 1 replicas"):
        alone.run(RAISE_FENCES, fences(names)[:1])
    alone.close()


def test_a_replica_that_comes_later_is_waited_for(
    shared_redis_cluster: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster that had none when the writer came: once it has, writes count when a replica has them."""
    monkeypatch.setattr(Shards, "_told", lambda *_: "0")
    cluster, names = Shards(shared_redis_cluster()), Names("later")
    assert cluster._replicas == 0
    monkeypatch.undo()
    cluster.run(RAISE_FENCES, fences(names)[:1])
    assert cluster._replicas == 0  # not asked with every write
    cluster._next_count_s = 0.0
    cluster.run(RAISE_FENCES, fences(names)[:1])
    assert cluster._replicas == 1
    cluster.close()


def test_a_redis_that_evicts_is_refused(redis_server: Any) -> None:
    """Rows that it forgot would be missing from answers without a word; what has no time to live may be safe."""
    redis_server.say("config", "set", "maxmemory-policy", "allkeys-lru")
    with pytest.raises(StoreError, match=r"allkeys-lru.*noeviction"):
        Shards(redis_server.url)
    redis_server.say("config", "set", "maxmemory-policy", "volatile-lru")
    Shards(redis_server.url).close()


def test_a_redis_that_is_kept_busy_is_asked_again(redis_server: Any) -> None:
    """Another's script that does not end makes it unavailable, which passes, and nothing else."""
    shards, names = Shards(redis_server.url, patience_s=0.3), Names("busy")
    shards.run(RAISE_FENCES, fences(names)[:1])
    redis_server.say("config", "set", "busy-reply-threshold", "10")
    endless = redis.Redis(port=redis_server.port)
    thread = threading.Thread(target=lambda: suppress_errors(endless.eval, "while true do end", 0))
    thread.start()
    deadline_s = time.monotonic() + 20
    while "BUSY" not in redis_server.say("ping"):
        assert time.monotonic() < deadline_s
    with pytest.raises(StoreUnavailableError, match="BUSY"):
        shards.run(COUNT_FENCES, fences(names)[:1])
    redis_server.say("script", "kill")
    thread.join()
    assert shards.run(COUNT_FENCES, fences(names)[:1]) == [1]
    shards.close()
    endless.close()


def test_replies_that_nobody_read_are_not_taken_for_others(redis_server: Any) -> None:
    """A connection whose use ended in an error is not used again: replies of that use may still come on it."""
    shards, names = Shards(redis_server.url), Names("unread")
    shards.run(RAISE_FENCES, fences(names)[:1])
    [shard] = shards._placed[0]
    with suppress(redis.ResponseError), _borrowed(shard) as connection:
        connection.send_packed_command(connection.pack_commands([("NONSENSE",), ("INFO",), ("INFO",)]))
        connection.read_response()
        raise AssertionError("no such command")
    assert shards.run(COUNT_FENCES, fences(names)[:1]) == [1]
    shards.close()


def suppress_errors(call: Callable[..., Any], *words: Any) -> None:
    """A script that is killed is an error to who began it."""
    with suppress(redis.ResponseError):
        call(*words)


def test_what_is_no_url_is_said(shared_redis: Callable[[], str]) -> None:
    """Without quoting it: it may hold a password."""
    with pytest.raises(StoreError, match="URL") as refused:
        Shards("http://secret@host")
    assert "secret" not in str(refused.value)
