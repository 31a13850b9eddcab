"""Co-visits, histories and degrees are those of a plain walk over the twin, at every cut-off."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import pytest

from online_sampler.co_visits import CoVisits, CoVisitWalk, Histories
from online_sampler.errors import SeedError
from temporal_graph.errors import SchemaError
from temporal_graph.graph import TemporalGraph
from temporal_graph.reference import HIDDEN, Operation, ReferenceEvent, ReferenceGraph
from temporal_graph.schema import Schema
from temporal_graph.time_rule import ALWAYS_US

Encode = Callable[..., bytes]

USER, ITEM = "pays.user_id->users.user_id", "pays.shop_id->shops.shop_id"
OF_USER, OF_ITEM = "users.user_id->pays.user_id", "shops.shop_id->pays.shop_id"

# Ticks of the lists are 2**22 microseconds: few times, so that many are equal, on both sides of a tick's boundary.
BASE_US = 1_700_000_000_000_000 >> 22 << 22
TIMES = [BASE_US + tick * (1 << 22) + offset for tick in range(3) for offset in range(-2, 3)]
USERS = [(user,) for user in range(4)]
SHOPS = [(shop,) for shop in "abcdef"]
SEEDS = pytest.mark.parametrize("seed", range(40))


def events(random: Random) -> list[ReferenceEvent]:
    """Payments that arrive, some late, and then move to other users and shops or are deleted; users and shops too."""
    found = []
    for _ in range(random.randint(20, 80)):
        event_time_us = random.choice(TIMES)
        known_time_us = random.choice(TIMES) if random.random() < 0.2 else event_time_us
        kind = random.random()
        if kind < 0.07:
            table, key = random.choice([("users", random.choice(USERS)), ("shops", random.choice(SHOPS))])
            operation: Operation = random.choice(["delete", "upsert"])
            found.append(ReferenceEvent(table, operation, key, event_time_us, event_time_us))
        elif kind < 0.8:
            cells = {"user_id": random.choice(USERS), "shop_id": random.choice(SHOPS)}
            cells = {name: cell for name, cell in cells.items() if random.random() < 0.95}
            key = (random.randrange(60),)
            found.append(ReferenceEvent("pays", "insert", key, event_time_us, known_time_us, cells))
        else:
            operation = random.choice(["upsert", "upsert", "delete"])
            choices: dict[str, list[Any]] = {"user_id": [*USERS, None], "shop_id": [*SHOPS, None]}
            if operation == "delete":
                choices = {}
            moved = {name: random.choice(keys) for name, keys in choices.items() if random.random() < 0.6}
            key = (random.randrange(60),)
            found.append(ReferenceEvent("pays", operation, key, event_time_us, known_time_us, moved))
    # Which of two events of a row with equal clocks is later is the graph's own test.
    return list({(e.table, e.key, e.event_time_us, e.known_time_us): e for e in found}.values())


@dataclass
class Twin:
    """The walk in plain Python, over keys: what an interaction is, and who took what around it."""

    graph: ReferenceGraph

    def interactions(self, user: Any, cutoff_time_us: int) -> list[tuple[int, Any, Any]]:
        """(time, interaction, item) of a user, oldest first."""
        found = self.graph.children(OF_USER, user, cutoff_time_us)
        return [
            (time, pay, item)
            for time, pay in found
            if (item := self.graph.parent(ITEM, pay, cutoff_time_us)) is not None
        ]

    def visits(self, item: Any, user: Any, cutoff_time_us: int, limit: int) -> list[tuple[Any, Any]]:
        """(interaction, user) of the newest interactions of an item by others."""
        found = []
        for _, pay in reversed(self.graph.children(OF_ITEM, item, cutoff_time_us)):
            other = self.graph.parent(USER, pay, cutoff_time_us)
            if other is not None and other != user:
                found.append((pay, other))
        return found[:limit]

    def walk(
        self, item: Any, user: Any, cutoff_time_us: int, visits: int, window: int, exponent: float
    ) -> tuple[int, dict[Any, list[float]]]:
        """How many visits there were, and forward, backward and same weight of each other item."""
        weights: dict[Any, list[float]] = {}
        found = self.visits(item, user, cutoff_time_us, visits) if self.names(item, cutoff_time_us) else []
        for pay, other in found:
            theirs = self.interactions(other, cutoff_time_us)
            at = [each[1] for each in theirs].index(pay)
            time = theirs[at][0]
            after = [one for moment, _, one in theirs[at:] if moment > time][:window]
            before = [one for moment, _, one in reversed(theirs[:at]) if moment < time][:window]
            same = [one for moment, each, one in theirs if moment == time and each != pay]
            for kind, taken in enumerate([after, before, same]):
                for gap, one in enumerate(taken, start=1):
                    if one != item:
                        weights.setdefault(one, [0.0, 0.0, 0.0])[kind] += 1.0 if kind == 2 else gap**-exponent
        return len(found), weights

    def names(self, item: Any, cutoff_time_us: int) -> bool:
        """Whether an interaction may name the item: it is not deleted."""
        return self.graph.state("shops", item, cutoff_time_us) != HIDDEN


@dataclass
class World:
    """The same events in both graphs."""

    graph: TemporalGraph
    twin: Twin
    walk: CoVisitWalk

    def key(self, table: str, row: int) -> Any:
        """The twin's key of a row."""
        key = self.graph.view().keys(table, np.array([row], np.int64))[0]
        return (key,)

    def rows(self, table: str, keys: Sequence[Any]) -> Any:
        """The rows of keys, -1 for those that nobody named."""
        return self.graph.view().row_index(table, [key[0] for key in keys])


def world(shop: Schema, encode: Encode, seed: int) -> World:
    """Both graphs after the seed's events, the native one in two batches."""
    found = events(Random(seed))
    graph, twin = TemporalGraph.create(shop, arena_bytes=1 << 26), ReferenceGraph(shop)
    twin.apply(found)
    encoded = [
        encode(e.table, e.key, e.event_time_us, e.known_time_us, operation=e.operation, **e.cells) for e in found
    ]
    for batch in (encoded[: len(encoded) // 2], encoded[len(encoded) // 2 :]):
        graph.apply(batch)
    return World(graph, Twin(twin), CoVisitWalk(graph.view(), "pays", "user_id", "shop_id"))


def questions(keys: Sequence[Any], random: Random) -> tuple[list[Any], list[int]]:
    """Each key at three cut-offs."""
    return [key for key in keys for _ in range(3)], [random.choice(TIMES) for _ in range(3 * len(keys))]


def pairs_of(both: World, found: CoVisits, histories: Histories, b: int) -> dict[int, dict[Any, Any]]:
    """History entry -> other item's key -> weights, of question b."""
    pairs: dict[int, dict[Any, Any]] = {int(h): {} for h in range(histories.offset[b], histories.offset[b + 1])}
    for p in range(found.offset[b], found.offset[b + 1]):
        item = both.key("shops", found.item[p])
        assert item not in pairs[int(found.history[p])], "an item twice for one entry"
        pairs[int(found.history[p])][item] = found.weight[p].tolist()
    return pairs


@SEEDS
def test_histories_are_the_twins(shop: Schema, encode: Encode, seed: int) -> None:
    """The newest interactions of each user at its cut-off, with their items and clocks; nobody has none."""
    both, random = world(shop, encode, seed), Random(seed)
    users, cutoffs = questions([*USERS, (99,)], random)
    limit = random.randint(0, 12)
    found = both.walk.histories(both.rows("users", users), np.array(cutoffs, np.int64), limit)
    assert len(found) == len(users)
    for b, (user, cutoff) in enumerate(zip(users, cutoffs, strict=True)):
        expected = both.twin.interactions(user, cutoff)[::-1][:limit]
        entries = range(found.offset[b], found.offset[b + 1])
        assert [both.key("pays", found.interaction[h]) for h in entries] == [pay for _, pay, _ in expected]
        assert [both.key("shops", found.item[h]) for h in entries] == [item for _, _, item in expected]
        assert [found.visible_time_us[h] for h in entries] == [time for time, _, _ in expected]
        shown = [both.twin.graph.shown_version("pays", pay, cutoff)[1] for _, pay, _ in expected]
        assert [found.event_time_us[h] for h in entries] == shown


@SEEDS
def test_co_visits_are_the_twins(shop: Schema, encode: Encode, seed: int) -> None:
    """Every pair, its three weights, the totals and the visits, of histories of the graph and of sessions."""
    both, random = world(shop, encode, seed), Random(seed)
    users, cutoffs = questions([*USERS, (99,)], random)
    visits, window = random.choice([1, 3, 8, 50]), random.choice([1, 2, 5, 20])
    exponent = random.choice([0.0, 0.35, 1.0])
    user_row, cutoff = both.rows("users", users), np.array(cutoffs, np.int64)
    sessions = [random.choices(SHOPS, k=random.randrange(3)) for _ in users]
    offset = np.cumsum([0, *map(len, sessions)])
    items = both.rows("shops", [item for session in sessions for item in session])
    histories = both.walk.histories(user_row, cutoff, 4).with_sessions(offset, items, np.zeros(len(items), np.int64))
    found = both.walk.walk(histories, user_row, cutoff, visits=visits, window=window, exponent=exponent)
    assert (np.diff(found.history) >= 0).all()
    for b, user in enumerate(users):
        pairs, walked = pairs_of(both, found, histories, b), set()
        for h in range(histories.offset[b], histories.offset[b + 1]):
            row, count, expected = int(histories.item[h]), 0, {}
            if row >= 0 and row not in walked:
                walked.add(row)
                item = both.key("shops", row)
                count, expected = both.twin.walk(item, user, cutoffs[b], visits, window, exponent)
            assert found.visits[h] == count
            assert pairs[h] == {item: pytest.approx(weights, rel=1e-5) for item, weights in expected.items()}
            total = np.sum(list(expected.values()), axis=0) if expected else np.zeros(3)
            assert found.total[h].tolist() == pytest.approx(total.tolist(), rel=1e-5)


@SEEDS
def test_degrees_are_the_twins(shop: Schema, encode: Encode, seed: int) -> None:
    """The visible interactions of an item, whoever's, and when the first and the last came."""
    both = world(shop, encode, seed)
    items, cutoffs = questions([*SHOPS, ("nowhere",)], Random(seed))
    found = both.walk.degrees(both.rows("shops", items), np.array(cutoffs, np.int64))
    for n, (item, cutoff) in enumerate(zip(items, cutoffs, strict=True)):
        times = [time for time, _ in both.twin.graph.children(OF_ITEM, item, cutoff)]
        expected = (len(times), times[0], times[-1]) if times else (0, ALWAYS_US, ALWAYS_US)
        assert (found.count[n], found.first_us[n], found.last_us[n]) == expected


@pytest.fixture
def baskets(graph: TemporalGraph, encode: Encode) -> TemporalGraph:
    """User 0 took a, then b and c at once, then d; user 1 took b, then a. Times are 10, 20, 20, 30; 15, 25."""
    taken = [(0, "a", 10), (0, "b", 20), (0, "c", 20), (0, "d", 30), (1, "b", 15), (1, "a", 25)]
    graph.apply(
        [encode("pays", (key,), at, at, user_id=(user,), shop_id=(shop,)) for key, (user, shop, at) in enumerate(taken)]
    )
    return graph


def walked(graph: TemporalGraph, session: list[str], user: int, cutoff_time_us: int, **plan: Any) -> dict[str, Any]:
    """The weights of what was taken around one session's items, by item."""
    view = graph.view()
    walk = CoVisitWalk(view, "pays", "user_id", "shop_id")
    users, cutoff = np.array([user]), np.array([cutoff_time_us])
    items = view.row_index("shops", session)
    histories = walk.histories(np.array([-1]), cutoff, 9).with_sessions(np.array([0, len(items)]), items, items)
    found = walk.walk(histories, users, cutoff, **plan)
    names = view.keys("shops", found.item)
    return {str(name): weight.tolist() for name, weight in zip(names, found.weight, strict=True)}


def test_weights_fall_with_the_distance_in_places(baskets: TemporalGraph) -> None:
    """After b came d, before it a, with it c; what is taken at the same time takes no place of its own."""
    assert walked(baskets, ["b"], 1, 30, exponent=1.0) == {"c": [0, 0, 1], "d": [1, 0, 0], "a": [0, 1, 0]}
    assert walked(baskets, ["a"], 1, 30, exponent=1.0) == {
        "b": [1, 0, 0],
        "c": [0.5, 0, 0],
        "d": [pytest.approx(1 / 3), 0, 0],
    }
    assert walked(baskets, ["a"], 1, 30, exponent=1.0, window=1) == {"b": [1, 0, 0]}


def test_nothing_after_the_cutoff_is_counted_of_anybody(baskets: TemporalGraph) -> None:
    """d follows b from the microsecond on in which it is visible."""
    assert "d" in walked(baskets, ["b"], 1, 30)
    assert "d" not in walked(baskets, ["b"], 1, 29)
    assert walked(baskets, ["b"], 1, 14) == {}


def test_the_user_s_own_interactions_are_no_visits(baskets: TemporalGraph) -> None:
    """Asked for user 0, b was taken by user 1 alone; asked for nobody, by both."""
    assert walked(baskets, ["b"], 0, 30) == {"a": [1, 0, 0]}
    assert walked(baskets, ["b"], -1, 30)["a"] == [1, 1, 0]
    assert walked(baskets, ["b"], -1, 30, visits=1)["a"] == [0, 1, 0]  # the newest, user 0's


def test_an_answer_that_is_kept_is_not_written_over(baskets: TemporalGraph) -> None:
    """Memory serves the next walk only when every array of the one before is gone."""
    walk = CoVisitWalk(baskets.view(), "pays", "user_id", "shop_id")
    nobody, cutoff = np.array([-1]), np.array([30])
    histories = [walk.histories(np.array([user]), cutoff, 9) for user in (0, 1)]
    kept = walk.walk(histories[0], nobody, cutoff)
    weight, expected = kept.weight, kept.weight.copy()
    del kept
    for history in histories * 3:
        assert not np.shares_memory(walk.walk(history, nobody, cutoff).weight, weight)
    assert (weight == expected).all()


def test_long_lists_are_walked_as_short_ones(graph: TemporalGraph, encode: Encode) -> None:
    """With lists of several blocks on both sides, visits and places are still the newest before the cut-off."""
    graph.apply(
        [encode("pays", (key,), 10 * key, 10 * key, user_id=(0,), shop_id=("ab"[key % 2],)) for key in range(3_000)]
    )
    walk = CoVisitWalk(graph.view(), "pays", "user_id", "shop_id")
    cutoff = np.array([10 * 2_000])
    degrees = walk.degrees(graph.view().row_index("shops", ["a", "b"]), np.repeat(cutoff, 2))
    assert degrees.count.tolist() == [1_001, 1_000]
    assert (degrees.first_us.tolist(), degrees.last_us.tolist()) == ([0, 10], [20_000, 19_990])
    histories = walk.histories(np.array([0]), cutoff, 2_500)
    assert (len(histories.item), histories.visible_time_us[0]) == (2_001, 20_000)
    found = walk.walk(histories, np.array([-1]), cutoff, visits=300, window=1, exponent=1.0)
    assert found.visits[:3].tolist() == [300, 300, 0]
    assert found.weight.tolist() == [[299.0, 300.0, 0.0], [300.0, 300.0, 0.0]]


def test_of_many_interactions_those_that_moved_are_counted_still(graph: TemporalGraph, encode: Encode) -> None:
    """Beyond the bound only the ends are told apart: the deleted first row is left out, the moved one is not."""
    graph.apply([encode("pays", (key,), 10 * key, 10 * key, user_id=(0,), shop_id=("a",)) for key in range(1_026)])
    graph.apply(
        [
            encode("pays", (500,), 20_000, 20_000, operation="upsert", shop_id=("b",)),
            encode("pays", (0,), 20_000, 20_000, operation="delete"),
        ]
    )
    walk = CoVisitWalk(graph.view(), "pays", "user_id", "shop_id")
    row = graph.view().row_index("shops", ["a", "a", "b"])
    degrees = walk.degrees(row, np.array([19_999, 20_000, 20_000]))
    assert degrees.count.tolist() == [1_026, 1_025, 1]
    assert degrees.first_us.tolist() == [0, 10, 20_000]


def test_a_session_stands_before_the_history_newest_first() -> None:
    """Each session is turned round and put in front of its own user's interactions; its rows are -1."""
    graph_s = Histories(*(np.array(a) for a in ([0, 2, 2, 3], [7, 6, 5], [1, 2, 3], [20, 10, 5], [21, 11, 6])))
    both = graph_s.with_sessions(np.array([0, 2, 3, 3]), np.array([8, -1, 9]), np.array([30, 31, 40]))
    assert both.offset.tolist() == [0, 4, 5, 6]
    assert both.interaction.tolist() == [-1, -1, 7, 6, -1, 5]
    assert both.item.tolist() == [-1, 8, 1, 2, 9, 3]
    assert both.event_time_us.tolist() == [31, 30, 20, 10, 40, 5]
    assert both.visible_time_us.tolist() == [31, 30, 21, 11, 40, 6]
    for offset, item, times in (([0, 1], [1], [1]), ([0, 1, 0, 1], [1], [1]), ([0, 0, 0, 1], [1], [1, 2])):
        with pytest.raises(SeedError, match="sessions"):
            graph_s.with_sessions(np.array(offset), np.array(item), np.array(times))


def test_what_is_no_row_or_no_link_is_refused(baskets: TemporalGraph) -> None:
    """Unknown tables, links and rows, unequal arrays and numbers out of range are named."""
    view = baskets.view()
    for names in (("nothing", "user_id", "shop_id"), ("pays", "user", "shop_id")):
        with pytest.raises(SchemaError):
            CoVisitWalk(view, *names)
    with pytest.raises(SeedError, match="user_id"):
        CoVisitWalk(view, "pays", "user_id", "user_id")
    walk = CoVisitWalk(view, "pays", "user_id", "shop_id")
    one, two = np.array([0]), np.array([0, 0])
    histories = walk.histories(one, one, 5)
    with pytest.raises(SeedError, match="cut-offs"):
        walk.histories(two, one, 5)
    with pytest.raises(SeedError, match="limit"):
        walk.histories(one, one, -1)
    with pytest.raises(SeedError, match="users"):
        walk.histories(np.array([2]), one, 5)
    with pytest.raises(SeedError, match="shops"):
        walk.degrees(np.array([4]), one)
    with pytest.raises(SeedError, match="histories"):
        walk.walk(histories, two, two)
    with pytest.raises(SeedError, match="window"):
        walk.walk(histories, one, one, window=0)
    with pytest.raises(SeedError, match="exponent"):
        walk.walk(histories, one, one, exponent=float("nan"))


def test_a_second_thread_is_refused_while_one_is_inside(baskets: TemporalGraph) -> None:
    """The memory is one thread's: the second call says so, and the first is not disturbed."""
    walk = CoVisitWalk(baskets.view(), "pays", "user_id", "shop_id")
    users, cutoff = np.zeros(1 << 16, np.int64), np.full(1 << 16, 30)
    histories = walk.histories(users, cutoff, 9)
    expected = walk.walk(histories, users, cutoff).weight
    stop, found, refused = threading.Event(), [], []

    def keep_walking() -> None:
        while not stop.is_set():
            found.append(walk.walk(histories, users, cutoff).weight)

    first = threading.Thread(target=keep_walking)
    first.start()
    for _ in range(100_000):
        try:
            walk.degrees(users[:2], cutoff[:2])
        except RuntimeError as error:
            refused.append(str(error))
            break
    stop.set()
    first.join()
    assert refused == ["a co-visit walk belongs to one thread, and another one is in it"]
    assert all((weight == expected).all() for weight in found)
