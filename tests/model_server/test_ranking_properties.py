"""What every list keeps, whatever is asked: any request that hypothesis can think of, over real gRPC on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_server.background import BackgroundServer
from model_server.settings import ServerSettings
from nowgraph.client import CategoryCap, Client, Diversity, ItemFilter, ListRequest, ListRules, RankedItems, Row
from temporal_graph.graph import TemporalGraph

pytestmark = pytest.mark.integration
DAYS = 25
ITEMS = 20
LIMITS = {"port": 0, "metrics_port": 0, "deadline_default_ms": 20_000}

columns = st.sampled_from(["color", "tags"])
keys = st.lists(st.integers(-1, ITEMS + 2), max_size=6)
filters = st.sampled_from(
    [
        ItemFilter("color", "red"),
        ItemFilter("color", ["red", "green"], negate=True),
        ItemFilter("tags", ["a", "c"]),
        ItemFilter("price", [0, 2.0]),
        ItemFilter("in_stock", True),
    ]
)
rules = st.builds(
    ListRules,
    allow=st.just([]) | st.lists(st.integers(0, ITEMS - 1), min_size=1, max_size=12),
    deny=keys,
    caps=st.lists(
        st.builds(
            CategoryCap,
            st.sampled_from(["color", "tags"]),
            st.integers(0, 3),
            st.none() | st.sampled_from(["red", "a"]),
        ),
        max_size=2,
    ),
    new_share_min=st.floats(0, 1),
)


@st.composite
def requests(draw: Any, start_us: int, day_us: int) -> ListRequest:
    """Any valid request, at any microsecond of the shop's time."""
    at_us = start_us + draw(st.integers(0, DAYS * day_us))
    session = [
        Row("clicks", 10_000 + number, {"item_id": draw(st.integers(0, ITEMS - 1))}, at_us - draw(st.integers(0, 9)))
        for number in range(draw(st.integers(0, 3)))
    ]
    return ListRequest(
        user=draw(st.none() | st.integers(0, ITEMS + 3)),
        session=session,
        k=draw(st.integers(0, 25)),
        candidates=draw(st.just([]) | keys),
        exclude=draw(keys),
        filters=draw(st.lists(filters, max_size=2)),
        exclude_seen=draw(st.none() | st.booleans()),
        diversity=draw(st.none() | st.builds(Diversity, st.floats(0, 1), columns)),
        rules=draw(st.none() | rules),
        event_time=at_us,
    )


@pytest.fixture(scope="module", params=["counting", "towers and fusion"])
def served(
    request: pytest.FixtureRequest, ranked_world: Any, shop_schema: Any, ranking_checkpoint: Path
) -> Iterator[tuple[Any, Client]]:
    """One shop and one server for all requests, by counts or by the real ranker: nothing asked changes anything."""
    checkpoint = None if request.param == "counting" else ranking_checkpoint
    with TemporalGraph.create(shop_schema, arena_bytes=64 << 20) as graph:
        world = ranked_world(graph)
        with (
            BackgroundServer(lambda: world.server(ServerSettings(**LIMITS), checkpoint=checkpoint)) as running,
            Client(running.target, timeout_s=20) as client,
        ):
            yield world, client


def passes(world: Any, wanted: ItemFilter, key: int) -> bool:
    """Whether an item's cells, as the shop gives them, are kept by a filter."""
    plain = {"price": {float(key % 4)}, "in_stock": {key % 5 != 0}}
    cells = plain.get(wanted.column) or world.categories(key, wanted.column)
    values = wanted.values if isinstance(wanted.values, list) else [wanted.values]
    return bool(cells & set(values)) != wanted.negate


def check(world: Any, asked: ListRequest, found: RankedItems) -> None:
    """The promises of every list."""
    shown = found.keys
    k = asked.k or world.task.target.ranked.top
    assert len(shown) <= k
    assert len(set(shown)) == len(shown)
    assert [item.position for item in found.items] == list(range(1, len(shown) + 1))
    assert not set(shown) & set(asked.exclude)
    assert not asked.candidates or set(shown) <= set(asked.candidates)
    listed_us = {key: world.start_us + key * world.day_us for key in range(ITEMS)}
    assert all(listed_us[key] <= asked.event_time for key in shown)  # never an item of the future
    for item in found.items:
        assert item.is_new == (listed_us[item.key] > asked.event_time - 3 * world.day_us)
    if asked.diversity is None or asked.diversity.weight == 0.0:
        scores = [item.score for item in found.items]
        assert scores == sorted(scores, reverse=True)
    if asked.exclude_seen:
        assert not set(shown) & {row.cells["item_id"] for row in asked.session}
        had_us = world.start_us + ((asked.user or 0) + 1) * world.day_us + world.minute_us
        assert asked.user is None or had_us > asked.event_time or asked.user not in shown
    allowed = asked.rules or ListRules()
    assert not set(shown) & set(allowed.deny)
    assert not allowed.allow or set(shown) <= set(allowed.allow)
    for cap in allowed.caps:
        counts: dict[str, int] = {}
        for key in shown:
            for name in world.categories(key, cap.column):
                counts[name] = counts.get(name, 0) + (cap.value in (None, name))
        assert max(counts.values(), default=0) <= cap.limit
    assert all(passes(world, one, key) for one in asked.filters for key in shown)
    if allowed.new_share_min:
        share = found.applied_rules[-1]
        assert share.rule == "new_share"
        new = sum(item.is_new for item in found.items)
        assert new + share.lacking >= allowed.new_share_min * k - 1e-6
    assert found.fallback == (found.history_count == 0 and found.session_count == 0)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_every_list_keeps_its_promises(served: tuple[Any, Client], data: st.DataObject) -> None:
    """Never an excluded, denied or filtered item, no duplicate, nothing from the future, at most k, scores falling,
    caps held, and the share of new items reached or told.
    """
    world, client = served
    asked = data.draw(requests(world.start_us, world.day_us))
    check(world, asked, client.rank(**{name: getattr(asked, name) for name in asked.__slots__}))


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_batch_says_what_each_request_alone_would(served: tuple[Any, Client], data: st.DataObject) -> None:
    """The scores of every place agree within 1e-5, whatever else is ranked with it; only equals may change places."""
    world, client = served
    drawn = data.draw(st.lists(requests(world.start_us, world.day_us), max_size=6))
    asked = [replace(one, rules=None, diversity=None) for one in drawn]
    together = client.rank_batch(asked)
    for one, found in zip(asked, together, strict=True):
        assert isinstance(found, RankedItems)
        alone = client.rank(**{name: getattr(one, name) for name in one.__slots__})
        assert [item.score for item in found.items] == pytest.approx([item.score for item in alone.items], abs=1e-5)
        score = {item.key: item.score for item in alone.items}
        assert all(score.get(item.key, item.score) == pytest.approx(item.score, abs=1e-5) for item in found.items)
