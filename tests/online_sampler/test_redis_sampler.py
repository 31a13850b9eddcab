"""One contract, three stores: the graph in RAM, in one Redis, and in a Redis Cluster of six nodes answer alike."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol
from unittest.mock import Mock

import numpy as np
import pytest

from online_sampler import Neighborhood, PlanError, Sampler, SamplingPlan, SeedError
from temporal_graph.errors import ArenaFullError
from temporal_graph.graph import TemporalGraph
from temporal_graph.redis.errors import StoreError
from temporal_graph.redis.frames import Version, pack
from temporal_graph.redis.keys import entity, key_bytes
from temporal_graph.redis.scripts import APPEND_VERSIONS
from temporal_graph.reference import ReferenceEvent, ReferenceGraph
from temporal_graph.reference_sampler import ReferencePlan, sample_most_recent
from temporal_graph.schema import Schema
from temporal_graph.view import GraphView

pytestmark = pytest.mark.integration

Encode = Callable[..., bytes]
PLACE = ("events", 0)


class Store(Protocol):
    """A graph that is written and asked."""

    def apply(self, events: Sequence[bytes]) -> Any:
        """Applies events; they are in every answer from then on."""

    def sampler(self, plan: SamplingPlan) -> Any:
        """Samples by a plan; has the `view` that its answers' numbers are of."""

    def close(self) -> None:
        """Ends it."""


class _RamSampler(Sampler):
    def sample_rows(self, table: str, keys: Any, cutoff_time_us: Any, **more: Any) -> Neighborhood:
        return super().sample_rows(table, self.view.row_index(table, keys), cutoff_time_us, **more)


class InRam:
    """The native graph."""

    def __init__(self, schema: Schema) -> None:
        self._graph, self._next = TemporalGraph.create(schema, arena_bytes=1 << 28), 0

    def apply(self, events: Sequence[bytes]) -> Any:
        self._next += len(events)
        return self._graph.apply(events, positions={PLACE: self._next})

    def sampler(self, plan: SamplingPlan) -> Any:
        return _RamSampler(self._graph.view(), plan)

    def close(self) -> None:
        self._graph.close()


@pytest.fixture(params=["ram", "redis", "cluster"])
def store(
    request: pytest.FixtureRequest,
    shop: Schema,
    redis_stores: Any,
    shared_redis: Callable[[], str],
    shared_redis_cluster: Callable[[], str],
) -> Iterator[Store]:
    """An empty graph of the shop, in each store."""
    urls = {"redis": shared_redis, "cluster": shared_redis_cluster}
    made: Store = InRam(shop) if request.param == "ram" else redis_stores(urls[request.param](), shop)
    yield made
    made.close()


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


def around(store: Store, cutoff_time_us: int, number: int = 9) -> list[Any]:
    """The keys of the payments of user 0."""
    sampler = store.sampler(plan(number))
    found = sampler.sample_keys("users", [0], at(cutoff_time_us))
    return keys_of(found, sampler.view)


# ---- the contract ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tick", [0, 1_700_000_000_000_000 >> 22 << 22, (1 << 53) - 45, -(1 << 62), (1 << 62)])
@pytest.mark.parametrize(("event", "known"), [(50, 50), (50, 40), (40, 50)])
def test_each_clock_holds_at_one_microsecond(store: Store, encode: Encode, tick: int, event: int, known: int) -> None:
    """A row is seen when the later of its clocks is the cut-off, and not a microsecond earlier, wherever in time."""
    store.apply([encode("pays", (1,), tick + event, tick + known, user_id=(0,))])
    assert around(store, tick + 50) == [1]
    assert around(store, tick + 49) == []


def test_an_outcome_is_seen_from_when_it_was_known(store: Store, encode: Encode) -> None:
    """A report of fraud changes what a neighbor shows at its known time, not a microsecond earlier."""
    store.apply([encode("pays", (1,), 100, user_id=(0,), amount=7.0)])
    store.apply([encode("pays", (1,), 150, 200, operation="upsert", fraud=True)])
    found = store.sampler(plan(9)).sample_keys("users", [0, 0], at(199, 200))
    assert found.columns["pays"].boolean[:, 1].tolist() == [2, 1]
    assert found.version[found.hop == 1].tolist() == [0, 1]
    assert found.columns["pays"].numerical[:, 0].tolist() == [7.0, 7.0]


def test_the_newest_are_taken_by_visible_time_and_then_by_key(store: Store, encode: Encode) -> None:
    """Of a hub's children the newest come first, of equal times the greater key, in whichever order they arrived."""
    events = [encode("pays", (key,), 100 + key // 2, user_id=(0,)) for key in range(40)]
    random.Random(1).shuffle(events)
    store.apply(events)
    assert around(store, 110, number=4) == [21, 20, 19, 18]
    assert around(store, 10_000, number=3) == [39, 38, 37]


def test_what_was_deleted_or_moved_makes_room_for_older_ones(store: Store, encode: Encode) -> None:
    """Thirty children of a hub are deleted or moved away: until then they are seen, after it the ten before them."""
    store.apply([encode("pays", (key,), 100 + key, user_id=(0,)) for key in range(40)])
    store.apply([encode("pays", (key,), 500, operation="delete") for key in range(10, 25)])
    store.apply([encode("pays", (key,), 500, operation="upsert", user_id=(1,)) for key in range(25, 40)])
    assert around(store, 499, number=5) == [39, 38, 37, 36, 35]
    assert around(store, 500, number=5) == [9, 8, 7, 6, 5]


def test_a_row_that_is_sent_whole_again_keeps_its_place(store: Store, encode: Encode) -> None:
    """A newer insert of the same row with the same parent does not make its link younger."""
    store.apply([encode("pays", (key,), 100 + key, user_id=(0,)) for key in range(4)])
    store.apply([encode("pays", (0,), 900 + again, user_id=(0,), amount=1.0) for again in range(5)])
    assert around(store, 1_000, number=2) == [3, 2]
    store.apply([encode("pays", (0,), 902, operation="upsert", user_id=(1,))])
    assert around(store, 1_000, number=2) == [0, 3]


def test_a_row_whose_first_version_comes_last_goes_back_to_its_place(store: Store, encode: Encode) -> None:
    """News of older versions make links older than they looked, and those between come before them."""
    store.apply([encode("pays", (key,), 100 + key, user_id=(0,)) for key in range(3)])
    store.apply([encode("pays", (9,), 50, user_id=(0,))])
    assert around(store, 1_000, number=1) == [2]
    store.apply([encode("pays", (key,), 5 + key, user_id=(0,), amount=1.0) for key in range(3)])
    assert around(store, 1_000, number=1) == [9]
    assert around(store, 1_000) == [9, 2, 1, 0]


def test_rows_known_by_name_are_bare_and_strangers_are_alone(store: Store, encode: Encode) -> None:
    """A parent that only a foreign key names, even in the future, is a bare row; a key that nobody named is none."""
    store.apply([encode("pays", (1,), 100, user_id=(5,), shop_id=("x",)), encode("pays", (2,), 9_000, user_id=(6,))])
    found = store.sampler(plan(9)).sample_keys("users", [5, 6, 7], at(100, 100, 100))
    assert (found.row >= 0).tolist() == [True, True, True, False]
    assert found.version.tolist() == [-1, 0, -1, -1]
    found = store.sampler(plan(9, 9)).sample_keys("pays", [1], at(100))
    assert found.version.tolist() == [0, -1, -1]


def test_events_are_sampled_around_what_they_name(store: Store, encode: Encode) -> None:
    """A payment that is scored sees its user's earlier ones, never its own row, and no parent that nobody knows."""
    store.apply([encode("pays", (key,), 100 + key, user_id=(0,), card="a") for key in range(4)])
    sampler = store.sampler(plan(2, 2))
    scored = encode("pays", (3,), 103, user_id=(0,), shop_id=("new",), card="unseen", note="é")
    found = sampler.sample_events([scored], at(102))
    assert keys_of(found, sampler.view) == [0]
    assert keys_of(found, sampler.view, hop=2) == [2, 1]
    assert (found.row[0], found.version[0]) == (-1, 0)
    with pytest.raises(SeedError):
        sampler.sample_events([b"\xff"], at(102))


def test_rows_are_shown_as_they_arrived(store: Store, encode: Encode) -> None:
    """A row that is asked about shows its first version and follows that one's links, its outcome left out."""
    store.apply([encode("pays", (1,), 100, user_id=(0,), fraud=True), encode("pays", (0,), 90, user_id=(0,))])
    store.apply([encode("pays", (1,), 200, operation="upsert", user_id=(1,), amount=3.0)])
    sampler = store.sampler(plan(5, 5))
    found = sampler.sample_rows("pays", [1], at(99))
    assert keys_of(found, sampler.view) == [0]
    assert keys_of(found, sampler.view, hop=2) == [0]
    assert found.columns["pays"].boolean[0, 1] == 2
    with pytest.raises(SeedError):
        sampler.sample_rows("pays", [77], at(99))


def test_an_answer_says_where_the_stream_stood(store: Store, encode: Encode) -> None:
    """The position of an answer is that of the last batch before it."""
    store.apply([encode("pays", (1,), 100, user_id=(0,))] * 3)
    assert store.sampler(plan(2)).sample_keys("users", [0], at(100)).position.offsets == {PLACE: 3}


# ---- the same columns, whatever was written --------------------------------------------------------------------------

KEYS: dict[str, list[Any]] = {
    "users": [(number,) for number in range(3)],
    "shops": [("",), ("é",), ("a\0b",), ("a",)],
    "pays": [(number,) for number in (-2, 0, 1, 2, 3, 2**40)],
    "notes": [(region, number) for region in ("eu", "us") for number in (0, -1)],
}
LINKS = {
    "pays": {"user_id": "users", "shop_id": "shops"},
    "notes": {"pay_id": "pays", "answers_region+answers_number": "notes"},
}


def event_of(rng: random.Random, table: str) -> ReferenceEvent:
    """Any event of a table: few keys, few times, so that all of them meet."""
    operation: Any = rng.choice(["insert", "insert", "upsert", "delete"])
    cells: dict[str, Any] = {name: rng.choice([None, *KEYS[to]]) for name, to in LINKS.get(table, {}).items()}
    if table == "pays":
        cells |= {
            "amount": rng.choice([None, -1.5, 2.0]),
            "card": rng.choice([None, "a", "b"]),
            "tags": rng.choice([None, [], ["x", "y"]]),
            "online": rng.choice([None, True, False]),
            "due": rng.choice([None, 7]),
            "note": rng.choice([None, "", "é"]),
            "place": rng.choice([None, [0.5, 1.0]]),
            "fraud": rng.choice([None, True]),
        }
    kept = {
        name: cell for name, cell in cells.items() if rng.random() < 0.7 and (cell is not None or operation != "insert")
    }
    cells = {} if operation == "delete" else kept
    if table == "users":
        return ReferenceEvent(table, operation, rng.choice(KEYS[table]), cells=cells)
    time_us = 1_000 + rng.randrange(6) * (1 << 21)
    known_us = time_us + rng.choice([0, 0, 3 << 20, -5]) if table == "pays" else time_us
    return ReferenceEvent(table, operation, rng.choice(KEYS[table]), time_us, known_us, cells)


def encoded(encode: Encode, event: ReferenceEvent) -> bytes:
    """The event as a RowEvent."""
    times = () if event.table == "users" else (event.event_time_us, event.known_time_us)
    return encode(event.table, event.key, *times, operation=event.operation, **event.cells)


def assert_same(ram: Neighborhood, ram_view: GraphView, found: Neighborhood, view: GraphView) -> None:
    """Column by column: equal numbers, and where numbers are a store's own, equal keys and strings."""
    for name in (
        *(
            "seed_offset",
            "cutoff_time_us",
            "table",
            "hop",
            "parent",
            "link",
            "event_time_us",
            "known_time_us",
            "version",
        ),
        *("edge_offset", "edge_source", "edge_target", "edge_link"),
    ):
        np.testing.assert_array_equal(getattr(found, name), getattr(ram, name), name)
    np.testing.assert_array_equal(found.row < 0, ram.row < 0)
    for index, table in enumerate(ram.schema.tables):
        rows = ram.table == index
        assert view.keys(table.name, found.row[rows]) == ram_view.keys(table.name, ram.row[rows])
        mine, theirs = found.columns[table.name], ram.columns[table.name]
        for name in ("node", "numerical", "boolean", "timestamp", "embedding"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name), name)
        for place, name in enumerate(theirs.coded_names):
            told = [
                [one.unseen[-1 - code] if code < 0 else text for code, text in zip(codes.tolist(), texts, strict=True)]
                for one, codes, texts in (
                    (found, mine.coded[:, place], view.strings(table.name, name, mine.coded[:, place])),
                    (ram, theirs.coded[:, place], ram_view.strings(table.name, name, theirs.coded[:, place])),
                )
            ]
            assert told[0] == told[1]


@pytest.mark.parametrize("seed", range(8))
def test_every_column_is_the_ram_stores_and_every_walk_the_twins(
    cluster: Any, shop: Schema, encode: Encode, seed: int
) -> None:
    """After any events, in any batches, around any key at any cut-off, by one sampler that goes on or by a new one."""
    rng = random.Random(seed)
    ram, twin = InRam(shop), ReferenceGraph(shop)
    number = rng.choice([1, 2, 3])
    hops = [{"default": number}, {"default": 2, rng.choice(shop.edge_types): 0}, {"default": 1}][: rng.randint(1, 3)]
    limit = rng.choice([3, 1_000])
    asked, reference = plan(*hops, node_limit=limit), ReferencePlan(hops, limit)
    going_on = cluster.sampler(asked)
    for _ in range(4):
        events = [event_of(rng, rng.choice(["pays", "pays", "pays", "users", "shops", "notes"])) for _ in range(14)]
        twin.apply(events)
        wire = [encoded(encode, event) for event in events]
        assert [one.reason for one in cluster.apply(wire).rejected] == [one.reason for one in ram.apply(wire).rejected]
        cluster.apply(wire[::3])  # delivered again
        ram_sampler = ram.sampler(asked)
        for sampler, (table, keys) in itertools.product((going_on, cluster.sampler(asked)), KEYS.items()):
            named = [key if len(key) > 1 else key[0] for key in keys]
            times = [1_000 + rng.randrange(7) * (1 << 21) - rng.randrange(2) for _ in keys]
            found, expected = (
                sampler.sample_keys(table, named, at(*times)),
                ram_sampler.sample_keys(table, named, at(*times)),
            )
            assert_same(expected, ram_sampler.view, found, sampler.view)
            walks = sample_most_recent(twin, [(table, key) for key in keys], reference, times)
            assert np.diff(found.seed_offset).tolist() == [len(walk.nodes) for walk in walks]
            assert np.diff(found.edge_offset).tolist() == [len(walk.edges) for walk in walks]
            scored = [encoded(encode, event_of(rng, table)) for _ in keys]
            found, expected = sampler.sample_events(scored, at(*times)), ram_sampler.sample_events(scored, at(*times))
            assert_same(expected, ram_sampler.view, found, sampler.view)
            present = [key for key in named if ram_sampler.view.row_index(table, [key])[0] >= 0]
            if present:
                found = sampler.sample_rows(table, present, at(*times[: len(present)]))
                expected = ram_sampler.sample_rows(table, present, at(*times[: len(present)]))
                assert_same(expected, ram_sampler.view, found, sampler.view)
    ram.close()


def test_what_was_fetched_is_kept_within_bounds(cluster: Any, encode: Encode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once more was fetched than may be kept, the next question begins anew and is answered alike."""
    cluster.apply([encode("pays", (key,), 100 + key, user_id=(0,)) for key in range(50)])
    sampler = cluster.sampler(plan(40))
    first = keys_of(sampler.sample_keys("users", [0], at(500)), sampler.view)
    before = sampler.view
    monkeypatch.setattr("online_sampler.redis_sampler.KEPT_BYTES_MAX", 100)
    assert keys_of(sampler.sample_keys("users", [0], at(500)), sampler.view) == first
    assert sampler.view is not before


def test_a_row_without_versions_is_told_once(cluster: Any, encode: Encode) -> None:
    """Parents that are only named are in every question: the reader's own graph does not grow with each."""
    cluster.apply([encode("pays", (1,), 100, user_id=(0,)), encode("shops", ("later",), 900)])
    sampler = cluster.sampler(plan(4))
    for table, key, bytes_more in (("users", 0, [True, False, False]), ("shops", "later", [True, False])):
        grew = []
        for _ in bytes_more:
            before = sampler._kept_bytes
            assert len(sampler.sample_keys(table, [key], at(500)).table) > 0
            grew.append(sampler._kept_bytes > before)
        assert grew == bytes_more


def test_what_redis_gives_that_is_no_event_is_said(cluster: Any, encode: Encode) -> None:
    """A version whose bytes were damaged there is an error, and no row less in an answer."""
    cluster.apply([encode("pays", (1,), 5, user_id=(0,))])
    names = cluster.view.names(cluster.view.state())
    number, row = names.row(entity(cluster.schema.table_index("pays"), key_bytes((1,))))
    damaged = pack(Version(6, 2, ()), b"\xff")
    cluster.view._shards.run(APPEND_VERSIONS, [(number, (row, damaged))], head=cluster.graph._head([cluster.place]))
    sampler = cluster.sampler(plan(4))
    for _ in range(2):
        with pytest.raises(StoreError, match="malformed"):
            sampler.sample_keys("users", [0], at(9))


def test_what_could_not_be_kept_is_fetched_again(cluster: Any, encode: Encode, monkeypatch: pytest.MonkeyPatch) -> None:
    """A question whose rows do not fit into memory fails; the next one is answered in full, and not by what is left."""
    cluster.apply([encode("pays", (key,), 100 + key, user_id=(0,)) for key in range(5)])
    sampler = cluster.sampler(plan(9))
    with monkeypatch.context() as full:
        full.setattr(TemporalGraph, "apply", Mock(side_effect=ArenaFullError("no room")))
        with pytest.raises(ArenaFullError):
            sampler.sample_keys("users", [0], at(500))
    assert keys_of(sampler.sample_keys("users", [0], at(500)), sampler.view) == [4, 3, 2, 1, 0]


def test_an_answer_says_which_building_of_the_graph_it_is_of(cluster: Any, encode: Encode) -> None:
    """Its generation is the graph's letters as a number, its offsets are the stream's; what was fetched is none."""
    cluster.apply([encode("pays", (key,), 100 + key, user_id=(0,)) for key in range(5)])
    sampler = cluster.sampler(plan(3))
    first = sampler.view
    position = sampler.sample_keys("users", [0], at(500)).position
    assert sampler.view is first  # the first question finds it new already
    assert (position.generation, position.sequence) == (int(cluster.view.state().graph, 16), 0)
    assert position.offsets == {cluster.place: 5}


@pytest.mark.parametrize("strategy", ["uniform", "recency_weighted"])
def test_other_strategies_are_refused_by_name(cluster: Any, strategy: str) -> None:
    """A plan that draws at random is refused, and said to be."""
    with pytest.raises(PlanError, match=strategy):
        cluster.sampler(plan(3, strategy=strategy))


def test_the_last_instant_is_asked_as_the_one_before(cluster: Any, encode: Encode) -> None:
    """A question as of the end of time sees everything, rows known by name too."""
    cluster.apply([encode("pays", (1,), 100, user_id=(0,))])
    assert around(cluster, 2**63 - 1) == [1]
