"""What was erased is gone from the graph in Redis, for readers and byte by byte, as it is from the graph in RAM."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from online_sampler import Sampler, SamplingPlan, SeedError
from online_sampler.redis_sampler import RedisSampler
from protos.nowgraph.v1 import row_event_pb2 as pb
from temporal_graph.graph import TemporalGraph
from temporal_graph.redis import lock
from temporal_graph.redis.graph import RedisGraph
from temporal_graph.redis.shards import Shards
from temporal_graph.schema import parse_schema

pytestmark = pytest.mark.integration

SCHEMA = parse_schema("""
version: 1
name: people
tables:
  people:
    primary_key: {name: string}
    columns: {note: text}
  orders:
    primary_key: {id: string}
    time_column: at
    columns: {card: categorical}
    links: {person: {table: people, erase: true}, agent: people, before: orders}
  lines:
    primary_key: {id: integer}
    time_column: at
    columns: {note: text}
    links: {order: {table: orders, erase: true}}
""")
PEOPLE = ["ann", "bob", "eve"]
ORDERS = ["o1", "o2", "o3", "o4"]
LINES = [1, 2, 3]
KEYS: dict[str, list[Any]] = {"people": PEOPLE, "orders": ORDERS, "lines": LINES}
PLACES = [("events", 0), ("events", 1)]
OPERATIONS = {"insert": 1, "upsert": 2, "delete": 3, "erase": 4}


def event(table: str, key: str | int, at: int | None, operation: str = "insert", **cells: str | None) -> bytes:
    """A RowEvent; links are text keys, and so are columns."""
    made = pb.RowEvent(table=table, operation=OPERATIONS[operation])  # type: ignore[arg-type]
    part = made.key.parts.add()
    if isinstance(key, int):
        part.integer = key
    else:
        part.text = key
    if at is not None:
        made.event_time_us = at
    for name, value in cells.items():
        cell = made.cells.add(column=name)
        if value is None:
            cell.null = pb.NULL_VALUE_UNSPECIFIED
        else:
            cell.text = value
    return made.SerializeToString()


def any_event(rng: random.Random, number: int) -> bytes:
    """Any event of few times, and of the first so many keys of each table."""
    at = rng.randrange(8)
    table = rng.choice(["people", "orders", "orders", "orders", "lines"])
    key = rng.choice(KEYS[table][:number])
    if rng.random() < 0.17:
        return event(table, key, at, "erase")
    if table == "people":
        return event("people", key, None, note=f"note of {key}")
    operation = rng.choice(["insert", "upsert", "upsert", "delete"])
    links = {"person": PEOPLE, "agent": PEOPLE, "before": ORDERS} if table == "orders" else {"order": ORDERS}
    cells: dict[str, str | None] = {
        name: rng.choice([None, *to[:number]]) for name, to in links.items() if rng.random() < 0.7
    }
    cells |= {"card" if table == "orders" else "note": rng.choice(["a", "b"])}
    if operation == "insert":
        cells = {name: value for name, value in cells.items() if value is not None}
    return event(table, key, at, operation, **({} if operation == "delete" else cells))


def shown(sampler: Any) -> list[Any]:
    """All that is seen around every key at every cut-off, in words."""
    told: list[Any] = []
    for table, keys in KEYS.items():
        for cutoff in (2, 5, 9):
            found = sampler.sample_keys(table, keys, np.full(len(keys), cutoff))
            names = [one.name for one in SCHEMA.tables]
            rows = [
                None if row < 0 else sampler.view.keys(names[index], np.array([row]))[0]
                for index, row in zip(found.table.tolist(), found.row.tolist(), strict=True)
            ]
            cells = {}
            for name, columns in found.columns.items():
                for place, coded in enumerate(columns.coded_names):
                    cells[name, coded] = sampler.view.strings(name, coded, columns.coded[:, place])
            arrays = ("seed_offset", "table", "hop", "parent", "link", "version", "event_time_us", "known_time_us")
            told.append((table, cutoff, rows, cells, [getattr(found, name).tolist() for name in arrays]))
    return told


def plans() -> list[SamplingPlan]:
    """A narrow one and a wide one."""
    return [
        SamplingPlan.from_dict({"num_neighbors": hops})
        for hops in ([{"hop1": 1}, {"hop2": 1}], [{"hop1": 9}, {"hop2": 9}, {"hop3": 9}])
    ]


def held(store: Any, *needles: bytes) -> list[bytes]:
    """The Redis keys of a store that hold one of these bytes, in themselves or in their values."""
    shards = Shards(store.url)
    found = []
    for shard in shards._placed[0]:
        connection = shard.pool.get_connection()

        def say(*words: Any, connection: Any = connection) -> Any:
            connection.send_command(*words)
            return connection.read_response()

        for key in say("KEYS", store.namespace + ":*"):
            kind = say("TYPE", key)
            read = {b"string": ("GET", key), b"zset": ("ZRANGE", key, 0, -1), b"set": ("SMEMBERS", key)}
            value = say(*read.get(kind, ("HGETALL", key)))
            if isinstance(value, dict):
                value = [*value.keys(), *value.values()]
            text = b"|".join([key, *([value] if isinstance(value, bytes) else value)])
            found += [key for needle in needles if needle in text]
        shard.pool.release(connection)
    shards.close()
    return found


class Writers:
    """Two writers of one graph in Redis, each of a partition of its own; and the graph in RAM."""

    def __init__(self, store: Any) -> None:
        self.store = store
        other = RedisGraph.open(store.url, SCHEMA, namespace=store.namespace)
        self.graphs = [store.graph, other]
        for graph, place in zip(self.graphs, PLACES, strict=True):
            graph.claim([place])
        self.ram = TemporalGraph.create(SCHEMA, arena_bytes=1 << 26)

    def apply(self, number: int, events: Sequence[bytes]) -> Any:
        """Applies a batch to both graphs."""
        self.ram.apply(events)
        return self.graphs[number].apply(events)

    def assert_same(self) -> None:
        """The same is seen in both."""
        self.assert_same_as(self.store)

    def assert_same_as(self, store: Any) -> None:
        """The same is seen in the graph in RAM and in another in Redis."""
        for each in plans():
            assert shown(RedisSampler(store.view, each)) == shown(Sampler(self.ram.view(), each))

    def close(self) -> None:
        """Closes what the store does not."""
        self.graphs[1].close()
        self.ram.close()


@pytest.fixture(params=["one", "six"])
def writers(
    request: pytest.FixtureRequest,
    redis_stores: Any,
    shared_redis: Callable[[], str],
    shared_redis_cluster: Callable[[], str],
) -> Iterator[Writers]:
    """Two writers, over one Redis and over the cluster."""
    made = Writers(redis_stores((shared_redis if request.param == "one" else shared_redis_cluster)(), SCHEMA))
    yield made
    made.close()


@pytest.mark.parametrize("seed", [0, 1, 2, *(pytest.param(seed, marks=pytest.mark.faults) for seed in range(3, 60))])
def test_any_log_with_erasures_gives_the_graph_of_ram(writers: Writers, seed: int) -> None:
    """Two writers, records twice and out of order: every neighborhood is that of RAM, in between and at the end."""
    rng = random.Random(seed)
    number = 1 + seed % 3
    readers = [RedisSampler(writers.store.view, each) for each in plans()]
    log: list[bytes] = []
    for _ in range(6):
        events = [any_event(rng, number) for _ in range(rng.randint(1, 7))] + rng.sample(log, min(len(log), 3))
        log += events
        writers.apply(rng.randrange(2), events)
        for each, reader in zip(plans(), readers, strict=True):
            assert shown(reader) == shown(Sampler(writers.ram.view(), each)), seed
    writers.assert_same()


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.faults) for seed in range(1, 9))])
def test_writers_at_the_same_time_give_the_graph_of_ram(writers: Writers, seed: int) -> None:
    """Each writes its half, both erase, neither waits for the other's batches."""
    rng = random.Random(seed)
    halves = [[[any_event(rng, 3) for _ in range(5)] for _ in range(12)] for _ in writers.graphs]
    with ThreadPoolExecutor(2) as pool:
        futures = [
            pool.submit(lambda graph=graph, half=half: [graph.apply(batch) for batch in half])
            for graph, half in zip(writers.graphs, halves, strict=True)
        ]
        for future in futures:
            future.result(120)
    for half in halves:
        for batch in half:
            writers.ram.apply(batch)
    writers.assert_same()


HISTORIES: dict[str, list[bytes]] = {
    "what was its own once, by a change that is gone": [
        event("orders", "o1", 1, person="ann"),
        event("people", "ann", 2, "erase"),
        event("orders", "o1", 5, card="a"),
        event("people", "ann", 6, "erase"),
    ],
    "what was its own by a change that came after the erasure": [
        event("people", "ann", 2, "erase"),
        event("orders", "o1", 1, person="ann"),
        event("lines", 1, 5, order="o1"),
        event("people", "ann", 6, "erase"),
    ],
    "an entry that stood for a later version too": [
        event("orders", "o1", 1, agent="ann"),
        event("orders", "o1", 5, "upsert", agent="ann"),
        event("orders", "o1", 2, "erase"),
        event("people", "ann", 3, "erase"),
    ],
    "a row named by erased ones alone, and one named by others": [
        event("orders", "o1", 1, person="ann", agent="bob", before="o2"),
        event("orders", "o3", 1, agent="bob"),
        event("people", "ann", 3, "erase"),
    ],
    "down three tables, and the times in any order": [
        event("lines", 1, 4, order="o1", note="a"),
        event("orders", "o1", 4, person="ann"),
        event("people", "ann", 3, "erase"),
        event("people", "ann", 5, "erase"),
        event("people", "ann", 4, "erase"),
        event("lines", 1, 4, order="o1", note="a"),
        event("lines", 2, 9, order="o1", note="a"),
    ],
}


@pytest.mark.parametrize("history", HISTORIES.values(), ids=list(HISTORIES))
@pytest.mark.parametrize("writers", ["one"], indirect=True)
def test_the_corners_of_the_rule(writers: Writers, history: list[bytes]) -> None:
    """Each event by itself and by another writer than the one before; then all of them once more."""
    for number, each in enumerate(history * 2):
        writers.apply(number % 2, [each])
        writers.assert_same()


def family(count: int = 3) -> list[bytes]:
    """A person with orders and their lines; and what names the person from outside."""
    orders = [
        event("orders", f"SECRETorder{i}", 3, person="SECRETann", agent="bob", card="SECRETcard") for i in range(count)
    ]
    lines = [event("lines", i, 3, order=f"SECRETorder{i}", note="SECRETnote") for i in range(count)]
    outside = [
        event("orders", "o1", 3, person="eve", agent="SECRETann"),
        event("orders", "o2", 3, before="SECRETorder1"),
    ]
    return [event("people", "SECRETann", None, note="SECRETnote"), *orders, *lines, *outside]


ERASE = event("people", "SECRETann", 4, "erase")


def test_no_byte_of_what_was_erased_is_left(writers: Writers) -> None:
    """In no key and no value of Redis; late records leave nothing either, and what others hold of theirs stays."""
    writers.apply(0, family())
    assert held(writers.store, b"SECRET")
    assert writers.apply(1, [ERASE]).applied == 1
    assert held(writers.store, b"SECRET") == []
    assert writers.apply(0, family()).erased == 7
    assert held(writers.store, b"SECRET") == []
    assert held(writers.store, b"eve")
    assert writers.apply(1, [ERASE]).duplicate == 1
    later = event("orders", "SECRETorder1", 5, card="a")
    writers.apply(1, [later])
    writers.assert_same()
    assert held(writers.store, b"SECRETorder1")
    assert not held(writers.store, b"SECRETann", b"SECRETcard", b"SECRETnote")


def test_what_was_removed_is_counted(writers: Writers) -> None:
    """Rows, versions and links by table, by the writer that removed them."""
    writers.apply(0, [*family(), event("orders", "SECRETorder0", 3, "upsert", card="b")])
    graph = writers.graphs[0]
    assert graph.erasures == 0
    writers.apply(0, [ERASE])
    assert graph.erasures == 1
    for table in KEYS:
        mine, theirs = graph.erased(table), writers.ram.view().erased(table)
        assert (mine.rows, mine.versions, mine.links) == (theirs.rows, theirs.versions, theirs.links), table


def test_a_reader_that_keeps_rows_answers_without_what_was_erased(writers: Writers) -> None:
    """It has fetched the rows before; with the next question it begins anew."""
    writers.apply(0, family())
    sampler = RedisSampler(writers.store.view, plans()[1])
    before = sampler.sample_keys("people", ["SECRETann"], np.array([9]))
    assert len(before.row) > 7
    writers.apply(1, [ERASE])
    after = sampler.sample_keys("people", ["SECRETann"], np.array([9]))
    assert after.row.tolist() == [-1]
    assert sampler.view.row_index("orders", ["SECRETorder0"]).tolist() == [-1]
    with pytest.raises(SeedError):
        sampler.sample_rows("orders", ["SECRETorder0"], np.array([9]))


class _Died(BaseException):
    """The writer is gone."""


@pytest.mark.parametrize("stride", [17, pytest.param(1, marks=pytest.mark.faults)])
@pytest.mark.parametrize("writers", ["one"], indirect=True)
def test_an_erasure_that_was_cut_off_anywhere_is_done_by_the_next(
    writers: Writers, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each step in turn the eraser dies; another writer writes meanwhile; who applies the batch again ends it."""
    run = Shards.run
    monkeypatch.setattr(lock, "PATIENCE_S", 0.05)
    batch = [ERASE, event("people", "bob", 3, "erase"), event("orders", "o4", 3, person="SECRETann", agent="bob")]
    writers.ram.apply([*family(), *batch, event("orders", "SECRETorder1", 5, agent="eve")])
    died = 0
    for step in range(3, 400, stride):
        store = _fresh(writers, step)
        graph = store.graph
        graph.claim(PLACES[:1])
        graph.apply(family(), positions={PLACES[0]: 1})
        left = [step]

        def dies(self: Shards, *args: Any, left: list[int] = left, **more: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                raise _Died
            return run(self, *args, **more)

        monkeypatch.setattr(Shards, "run", dies)
        try:
            graph.apply(batch, positions={PLACES[0]: 2})
            ended = True
        except _Died:
            ended = False
            died += 1
        monkeypatch.setattr(Shards, "run", run)
        assert ended or graph.positions == {PLACES[0]: 1} or left[0] <= 0
        other = RedisGraph.open(store.url, SCHEMA, namespace=store.namespace)
        other.apply([event("orders", "SECRETorder1", 5, agent="eve")], positions={PLACES[1]: 1})
        other.apply(batch, positions={PLACES[0]: 2})
        other.close()
        assert held(store, b"SECRETann", b"SECRETcard", b"bob", b"SECRETorder2") == [], step
        writers.assert_same_as(store)
        store.graph.close()
        if ended:
            break
    assert died * stride > 30


def _fresh(writers: Writers, number: int) -> Any:
    """Another graph beside that of the writers."""
    return type(writers.store)(writers.store.url, SCHEMA, f"{writers.store.namespace}x{number}", serves=True)


def test_readers_go_on_while_an_eraser_is_at_work(writers: Writers, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each of its steps a question is answered: with all of the person or less, never refused; then without."""
    writers.graphs[0].claim(PLACES[:1])
    writers.apply(0, family())
    run, sampler, whole = Shards.run, RedisSampler(writers.store.view, plans()[1]), []

    def asks(self: Shards, *args: Any, **more: Any) -> Any:
        done = run(self, *args, **more)
        monkeypatch.setattr(Shards, "run", run)
        whole.append(len(sampler.sample_keys("people", ["SECRETann", "bob"], np.array([9, 9])).row))
        monkeypatch.setattr(Shards, "run", asks)
        return done

    monkeypatch.setattr(Shards, "run", asks)
    writers.graphs[0].apply([ERASE])
    monkeypatch.setattr(Shards, "run", run)
    writers.ram.apply([ERASE])
    assert len(whole) > 10
    assert whole[0] > whole[-1]
    writers.assert_same()
