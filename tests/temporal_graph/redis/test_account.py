from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from temporal_graph.redis.account import Account, State, field_of, place_of
from temporal_graph.redis.errors import StoreError, StoreLostError, StoreNotReadyError
from temporal_graph.redis.keys import SLICES, entity, key_bytes
from temporal_graph.redis.scripts import COUNT_FENCES
from temporal_graph.redis.shards import Shards
from temporal_graph.redis.view import ListWant, Want
from temporal_graph.schema import Schema

PLACE, OTHER = ("a/b", 0), ("é", 12)


def test_partitions_come_back_from_their_names() -> None:
    """A topic may hold the sign that parts it from its number."""
    assert [place_of(field_of(place)) for place in (PLACE, OTHER)] == [PLACE, OTHER]


@pytest.mark.parametrize(
    ("positions", "until", "serves"),
    [({}, None, False), ({}, {}, True), ({PLACE: 1}, {PLACE: 2}, False), ({PLACE: 2}, {PLACE: 2, OTHER: 0}, True)],
)
def test_a_graph_serves_from_its_expected_positions_on(positions: Any, until: Any, serves: bool) -> None:
    """Not before anyone said which they are, nor while one of them is ahead."""
    assert State("x", positions, until).serves == serves


@pytest.mark.integration
def test_of_two_that_begin_at_once_one_is_heard(shards: Shards, schema: Schema) -> None:
    """The second to replace the same graph takes the first one's; the older graph's keys are gone."""
    account = Account(shards, schema, "begin")
    with pytest.raises(StoreNotReadyError):
        account.serving()
    first = account.begin(None)
    assert account.begin(None) == first
    second = account.begin(first)
    assert second.graph != first.graph
    assert account.state() == second
    assert account.whole(second.graph)
    assert not account.whole(first.graph)


@pytest.mark.integration
def test_a_graph_whose_account_is_lost_leaves_nothing_behind(shards: Shards, schema: Schema) -> None:
    """The shard with the account emptied: the next graph drops what the other shards still have of the last."""
    account, other = Account(shards, schema, "orphan"), Account(shards, schema, "orphan00")
    lost, kept = account.begin(account.state()), other.begin(other.state())
    shards.drop(b"orphan:{0}account", keep=b"-")
    assert account.state() is None
    account.begin(None)
    names = account.names(lost.graph)
    assert not any(shards.run(COUNT_FENCES, [(number, (names.fence(number),)) for number in range(SLICES)]))
    assert other.whole(kept.graph)


@pytest.mark.integration
def test_a_reader_of_a_graph_that_is_dropped_is_told(
    redis_stores: Any, shared_redis: Callable[[], str], schema: Schema, payment: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asked for the graph before another was begun: what goes under it is lost, and no shorter answer."""
    store = redis_stores(shared_redis(), schema)
    store.apply([payment(1, 5, customer=7)])
    names = store.view.names(store.view.state())
    customer = Want(entity(0, key_bytes((7,))), 9, lists=(ListWant(0, 4, 9),))
    [whole] = store.view.read(names, [customer])
    assert len(whole.lists[0]) == 1
    (_, row), (_, children) = names.row(customer.entity), names.children(customer.entity, 0)
    shards, drop = Shards(store.url), Shards.drop

    def one_pass(self: Shards, pattern: bytes, *, keep: bytes, **_: Any) -> None:
        drop(self, pattern, keep=keep)
        monkeypatch.undo()
        drop(self, children, keep=row + b"-")  # as the next pass may, before it comes to the row
        with pytest.raises(StoreLostError):
            store.view.read(names, [customer])

    monkeypatch.setattr(Shards, "drop", one_pass)
    account = Account(shards, schema, store.namespace)
    assert account.begin(account.state()).graph != store.graph.graph
    shards.close()


@pytest.mark.integration
def test_who_was_frozen_while_it_dropped_drops_nothing_of_what_came_since(
    shards: Shards, schema: Schema, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thawed, it goes on with the keys of all graphs but its own, of which another has taken the place."""
    account, drop, begun = Account(shards, schema, "thawed"), Shards.drop, []

    def frozen(self: Shards, pattern: bytes, **options: Any) -> None:
        monkeypatch.undo()
        begun.append(account.begin(account.state()))
        drop(self, pattern, **options)

    monkeypatch.setattr(Shards, "drop", frozen)
    account.begin(account.state())
    assert account.state() == begun[0]
    assert account.whole(begun[0].graph)


@pytest.mark.integration
def test_the_first_to_say_what_is_expected_is_heard(shards: Shards, schema: Schema) -> None:
    """Members of a group that begin at once agree on when the graph serves."""
    account = Account(shards, schema, "expect")
    graph = account.begin(account.state()).graph
    account.expect(graph, {PLACE: 3})
    account.expect(graph, {})
    state = account.state()
    assert state is not None
    assert state.until == {PLACE: 3}


@pytest.mark.integration
def test_a_graph_is_complete_up_to_its_furthest_behind_partition(shards: Shards, schema: Schema) -> None:
    """Once every partition's writer has said up to when it holds all."""
    account = Account(shards, schema, "complete")
    graph = account.begin(account.state()).graph
    account.expect(graph, {PLACE: 0, OTHER: 0})

    def complete_time_us() -> int | None:
        state = account.state()
        assert state is not None
        return state.complete_time_us

    account.complete(graph, [PLACE], 7)
    assert complete_time_us() is None
    account.complete(graph, [OTHER], 5)
    assert complete_time_us() == 5
    account.complete(graph, [OTHER], 9)
    assert complete_time_us() == 7


@pytest.mark.integration
def test_a_namespace_is_a_word(shared_redis: Callable[[], str], schema: Schema) -> None:
    """What would mean something in a key or a pattern is refused."""
    shards = Shards(shared_redis())
    with pytest.raises(StoreError, match="namespace"):
        Account(shards, schema, "a{b}*")
    shards.close()


def test_another_layout_is_begun_anew_and_not_read(cluster: Any, payment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph without the mark of this layout is refused to readers, and the next writer begins another."""
    cluster.apply([payment(1, 5)])
    before = cluster.graph.graph
    monkeypatch.setattr("temporal_graph.redis.account._LAYOUT", ":another")
    with pytest.raises(StoreNotReadyError, match="another version"):
        cluster.view.state()
    cluster.reopen()
    assert cluster.graph.graph != before
    assert cluster.graph.positions == {}
