"""No sampled row lies beyond its seed's cut-off, however late events arrive and while they arrive."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pytest

from online_sampler import Neighborhood, Sampler, SamplingPlan
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import parse_schema

SCHEMA = """
version: 1
name: stream
tables:
  users: {primary_key: {user_id: integer}}
  shops: {primary_key: {shop_id: integer}}
  pays:
    primary_key: {pay_id: integer}
    time_column: at
    known_time: {column: known}
    links: {user_id: users, shop_id: shops}
"""
EDGES = 10_000_000
EVENTS = 400_000
BATCH = 4_000
START_US = 1_700_000_000_000_000
Int64 = npt.NDArray[np.int64]


@dataclass
class Stream:
    """Payments in the order they arrive; one in twenty arrives late, and was known only then."""

    event_time_us: Int64
    known_time_us: Int64
    user: Int64
    shop: Int64

    @cached_property
    def user_of_row(self) -> Int64:
        """Users by row: a user's row is made when a payment first names it."""
        users, first = np.unique(self.user, return_index=True)
        return users[np.argsort(first)]


@pytest.fixture
def stream() -> Stream:
    """Times a few milliseconds apart, so that many share a tick of the lists; a few users and shops are hubs."""
    random = np.random.default_rng(3)
    event = START_US + np.sort(random.integers(0, EVENTS * 2_000, EVENTS))
    late = random.random(EVENTS) < 0.05
    known = np.where(late, event + random.integers(1, 60_000_000, EVENTS), event)
    order = np.argsort(known, kind="stable")
    event, known = event[order], known[order]
    user = (10_000 * random.random(EVENTS) ** 3).astype(np.int64)
    shop = (1_000 * random.random(EVENTS) ** 3).astype(np.int64)
    # One late event in ten says that it was known at once: lists then grow in the middle, as in a backfill.
    known = np.where(random.random(EVENTS) < 0.005, event, known)
    return Stream(event, known, user, shop)


@pytest.fixture
def graph() -> Iterator[TemporalGraph]:
    """An empty graph of the stream's schema."""
    with TemporalGraph.create(parse_schema(SCHEMA), arena_bytes=1 << 30) as graph:
        yield graph


def test_ten_million_edges_under_ingest_know_no_future(graph: TemporalGraph, stream: Stream) -> None:
    """While one thread ingests, 5 % late, every row of 10 million sampled edges had happened and was known."""
    done = threading.Event()

    def append(low: int) -> None:
        batch = slice(low, low + BATCH)
        graph.append(
            "pays",
            np.arange(low, low + BATCH),
            event_time_us=stream.event_time_us[batch],
            known_time_us=stream.known_time_us[batch],
            parents={"user_id": stream.user[batch], "shop_id": stream.shop[batch]},
        )

    def ingest() -> None:
        for low in range(BATCH, EVENTS, BATCH):
            append(low)
            if done.wait(0.02):
                break

    append(0)
    view = graph.view()
    plans = [
        SamplingPlan.from_dict({"num_neighbors": [{"hop1": 1}, {"hop2": 60}, {"hop3": 1}], "strategy": strategy})
        for strategy in ("most_recent", "uniform", "recency_weighted")
    ]
    samplers = [Sampler(view, plan, seed=i) for i, plan in enumerate(plans)]
    writer = threading.Thread(target=ingest)
    writer.start()
    random = np.random.default_rng(5)
    edges = during = turn = 0
    try:
        while edges < EDGES:
            count = view.row_count("pays")
            rows = random.integers(0, count, 1_000)
            # From long ago to the newest: also moments at which late events were not yet known.
            cutoffs = stream.event_time_us[random.integers(0, count, 1_000)] - random.integers(0, 2, 1_000)
            found = samplers[turn % 3].sample_rows("pays", rows, cutoffs)
            assert_no_future(found, stream)
            edges += len(found.edge_source)
            during += len(found.edge_source) * writer.is_alive()
            turn += 1
    finally:
        done.set()
        writer.join()
    assert during > EDGES // 100, "the writer was done before anything was sampled"


def assert_no_future(found: Neighborhood, stream: Stream) -> None:
    """Rows of the one stream are indices into it: their true clocks, not the sample's, are held to the cut-off."""
    pays = found.table == found.schema.table_index("pays")
    cutoff = np.repeat(found.cutoff_time_us, np.diff(found.seed_offset))
    rows = found.row[pays]
    assert (found.event_time_us[pays] == stream.event_time_us[rows]).all()
    assert (found.known_time_us[pays] == stream.known_time_us[rows]).all()
    neighbors = pays & (found.hop > 0)
    rows = found.row[neighbors]
    assert (stream.event_time_us[rows] <= cutoff[neighbors]).all(), "a row of the future"
    assert (stream.known_time_us[rows] <= cutoff[neighbors]).all(), "a row before it was known"
    down = found.edge_link == found.schema.edge_types.index("users.user_id->pays.user_id")
    users = stream.user_of_row[found.row[found.edge_source[down]]]
    assert (stream.user[found.row[found.edge_target[down]]] == users).all(), "a row of another user"


def test_the_newest_of_what_was_known_are_taken(graph: TemporalGraph, stream: Stream) -> None:
    """Against the stream sorted by hand: the most recent rows of a user at a cut-off are the last known by then."""
    count = 20_000
    graph.append(
        "pays",
        np.arange(count),
        event_time_us=stream.event_time_us[:count],
        known_time_us=stream.known_time_us[:count],
        parents={"user_id": stream.user[:count], "shop_id": stream.shop[:count]},
    )
    visible = np.maximum(stream.event_time_us, stream.known_time_us)[:count]
    random = np.random.default_rng(8)
    users = random.choice(stream.user[:count], 200)
    cutoffs = random.choice(visible, 200) - random.integers(0, 2, 200)
    plan = SamplingPlan.from_dict({"num_neighbors": [{"hop1": 12}]})
    found = Sampler(graph.view(), plan).sample_keys("users", users.tolist(), cutoffs)
    for b, (user, cutoff) in enumerate(zip(users, cutoffs, strict=True)):
        rows = np.flatnonzero((stream.user[:count] == user) & (visible <= cutoff))
        newest = rows[np.lexsort((rows, visible[rows]))][::-1][:12]
        low, high = found.seed_offset[b : b + 2]
        assert found.row[low + 1 : high].tolist() == newest.tolist()
