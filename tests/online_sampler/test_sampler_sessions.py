"""Sessions: events that a request brings, as rows around their seeds, and which of them are refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from online_sampler import Neighborhood, Sampler, SamplingPlan, SeedError
from protos.nowgraph.v1 import row_event_pb2
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import parse_schema
from temporal_graph.time_rule import ALWAYS_US

Encode = Callable[..., bytes]
USER_TO_PAYS = "users.user_id->pays.user_id"
SHOP_TO_PAYS = "shops.shop_id->pays.shop_id"
NOTE_TO_ANSWERS = "notes.region+number->notes.answers_region+answers_number"
# Clicks have no key, views neither key nor time, and both lead twice to users.
WALL = """
version: 1
name: wall
tables:
  users: {primary_key: {user_id: integer}}
  items: {primary_key: {item_id: integer}}
  clicks:
    time_column: at
    columns: {place: categorical}
    links: {user_id: users, friend_id: users, item_id: items}
  views:
    links: {user_id: users, item_id: items}
"""


def plan(*hops: object, **more: object) -> SamplingPlan:
    """A plan of these hops."""
    return SamplingPlan.from_dict({"num_neighbors": [{f"hop{i + 1}": hop} for i, hop in enumerate(hops)], **more})


def at(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """int64 [N]."""
    return np.array(values, np.int64)


def around(
    graph: TemporalGraph, user: int, session: list[bytes], cutoff_time_us: int, *hops: object, **more: object
) -> Neighborhood:
    """The neighborhood of one user of the shop with a session of payments."""
    view = graph.view()
    rows = view.row_index("users", [user])
    sampler = Sampler(view, plan(*(hops or (9, 9)), **more))
    return sampler.sample_sessions("users", rows, [session], at(cutoff_time_us), link=USER_TO_PAYS)


def payments(found: Neighborhood) -> list[float]:
    """Amounts of the payments one link from the seed, in order."""
    columns = found.columns["pays"]
    amounts: list[float] = columns.numerical[found.hop[columns.node] == 1, 0].tolist()
    return amounts


# ---- what a session is ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["most_recent", "uniform", "recency_weighted"])
def test_an_empty_session_changes_nothing(graph: TemporalGraph, encode: Encode, strategy: str) -> None:
    """Without events every array is that of `sample_keys`, of known and unknown entities, by any strategy."""
    graph.apply([encode("pays", (i,), 10 + i, user_id=(i % 3,), shop_id=("s",), card=str(i % 2)) for i in range(60)])
    view = graph.view()
    keys, cutoffs = [0, 404, 2], at(99, 99, 40)
    asked = plan(7, 3, 2, strategy=strategy)
    by_key = Sampler(view, asked).sample_keys("users", keys, cutoffs, request=5)
    rows = view.row_index("users", keys)
    found = Sampler(view, asked).sample_sessions("users", rows, [[], [], ()], cutoffs, link=USER_TO_PAYS, request=5)
    for name in ("table", "row", "hop", "parent", "link", "event_time_us", "known_time_us", "version", "seed_offset"):
        assert getattr(found, name).tolist() == getattr(by_key, name).tolist()
    for name in ("edge_source", "edge_target", "edge_link", "edge_offset"):
        assert getattr(found, name).tolist() == getattr(by_key, name).tolist()
    assert found.columns["pays"].coded.tolist() == by_key.columns["pays"].coded.tolist()


def test_a_session_stands_before_what_the_graph_holds(graph: TemporalGraph, encode: Encode) -> None:
    """Newest first whatever the order given, of equal times the later given, counted in the number of the link."""
    graph.apply([encode("pays", (i,), 10 + i, user_id=(0,), amount=float(i)) for i in range(3)])
    session = [encode("pays", (50 + i,), time, user_id=(0,), amount=50.0 + i) for i, time in enumerate((5, 30, 30, 20))]
    assert payments(around(graph, 0, session, 40)) == [52.0, 51.0, 53.0, 50.0, 2.0, 1.0, 0.0]
    assert payments(around(graph, 0, session, 40, 5)) == [52.0, 51.0, 53.0, 50.0, 2.0]
    assert payments(around(graph, 0, session, 40, 2)) == [52.0, 51.0]
    assert payments(around(graph, 0, session, 40, 0)) == []
    found = around(graph, 0, session, 40, 5)
    assert found.row.tolist() == [0, -1, -1, -1, -1, 2]
    assert found.event_time_us.tolist() == [ALWAYS_US, 30, 30, 20, 5, 12]
    assert found.version[1:].tolist() == [0] * 5
    assert found.parent[1:].tolist() == [0] * 5
    assert found.edge_source.tolist() == [0] * 5
    assert found.edge_target.tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("strategy", ["uniform", "recency_weighted"])
def test_chance_draws_only_what_the_graph_holds(graph: TemporalGraph, encode: Encode, strategy: str) -> None:
    """The session is taken whole; the rest of the number is drawn, each row once."""
    graph.apply([encode("pays", (i,), 10 + i, user_id=(0,), amount=float(i)) for i in range(40)])
    session = [encode("pays", (90,), 60, amount=90.0), encode("pays", (91,), 61, amount=91.0)]
    drawn = [payments(around(graph, 0, session, 99, 6, strategy=strategy))]
    view = graph.view()
    sampler = Sampler(view, plan(6, strategy=strategy))
    for request in range(30):
        found = sampler.sample_sessions("users", at(0), [session], at(99), link=USER_TO_PAYS, request=request)
        drawn.append(payments(found))
    assert all(amounts[:2] == [91.0, 90.0] and len(set(amounts)) == 6 for amounts in drawn)
    assert len({tuple(sorted(amounts[2:])) for amounts in drawn}) > 5


def test_an_unknown_entity_has_its_session(graph: TemporalGraph, encode: Encode) -> None:
    """Nobody's session is a whole neighborhood: its rows, the parents they name, and what the graph knows of those."""
    graph.apply([encode("shops", ("s",), 5, score=3.0), encode("pays", (1,), 10, user_id=(7,), shop_id=("s",))])
    session = [encode("pays", (9,), 30, user_id=(404,), shop_id=("s",)), encode("pays", (8,), 20, shop_id=("new",))]
    found = around(graph, 404, session, 40, 9, 9, 9)
    assert found.row.tolist() == [-1, -1, -1, 0, 0]
    assert found.hop.tolist() == [0, 1, 1, 2, 3]
    assert (found.version[0], found.columns["shops"].numerical.tolist()) == (-1, [[3.0]])


def test_each_session_belongs_to_its_seed(graph: TemporalGraph, encode: Encode) -> None:
    """Seeds of one request have their own sessions and cut-offs, some of them none."""
    graph.apply([encode("pays", (i,), 10, user_id=(i,), amount=float(i)) for i in range(3)])
    sessions = [[encode("pays", (9,), 20, amount=9.0)], [], [encode("pays", (9,), 15, amount=8.0)] * 2]
    view = graph.view()
    found = Sampler(view, plan(9)).sample_sessions(
        "users", view.row_index("users", [0, 1, 2]), sessions, at(20, 20, 15), link=USER_TO_PAYS
    )
    assert np.diff(found.seed_offset).tolist() == [3, 2, 3]
    assert payments(found) == [9.0, 0.0, 1.0, 8.0, 2.0]
    assert found.columns["pays"].node.tolist() == [1, 2, 4, 6, 7]


def test_cells_are_those_of_the_event(graph: TemporalGraph, encode: Encode) -> None:
    """A row of a session shows all it says, an outcome too, and strings that the graph has never stored."""
    graph.apply([encode("pays", (1,), 10, user_id=(0,), card="a", amount=1.0)])
    session = [
        encode("pays", (8,), 20, 25, card="new", amount=8.0, fraud=True, tags=["y", "x"], place=[1.0, 2.0]),
        encode("pays", (9,), 30, card="a", amount=9.0, note="said", due=77, online=False),
    ]
    found = around(graph, 0, session, 40)
    cells = found.columns["pays"]
    assert cells.numerical[:, 0].tolist() == [9.0, 8.0, 1.0]
    assert cells.boolean.tolist() == [[0, 2], [2, 1], [2, 2]]
    assert cells.timestamp[:, 0].tolist() == [77, ALWAYS_US, ALWAYS_US]
    assert cells.embedding[1].tolist() == [1.0, 2.0]
    card, tags, note = cells.coded.T.tolist()
    assert card[0] == card[2] > 0
    assert [found.unseen[-1 - code] for code in (card[1], tags[1], note[0])] == ["new", "x\x1fy", "said"]
    assert (found.event_time_us[2], found.known_time_us[2]) == (20, 25)


def test_a_session_reaches_to_when_it_is_asked(graph: TemporalGraph, encode: Encode) -> None:
    """Of a graph read up to an earlier cut-off, what came since is in the session, and nothing after the question."""
    graph.apply([encode("pays", (1,), 10, user_id=(0,), amount=1.0), encode("pays", (2,), 30, user_id=(0,))])
    sampler = Sampler(graph.view(), plan(9))
    session = [encode("pays", (2,), 30, amount=2.0), encode("pays", (3,), 40, amount=3.0)]
    found = sampler.sample_sessions("users", at(0), [session], at(20), link=USER_TO_PAYS, asked_time_us=at(40))
    assert payments(found) == [3.0, 2.0, 1.0]
    with pytest.raises(SeedError, match="event 1 of session 0 is no row of it: after_question"):
        sampler.sample_sessions("users", at(0), [session], at(20), link=USER_TO_PAYS, asked_time_us=at(39))
    with pytest.raises(SeedError, match="as many cut-offs, times"):
        sampler.sample_sessions("users", at(0), [session], at(20), link=USER_TO_PAYS, asked_time_us=at(40, 40))


# ---- what the graph already holds -----------------------------------------------------------------------------------


def test_what_the_graph_shows_of_the_seed_is_not_there_twice(graph: TemporalGraph, encode: Encode) -> None:
    """From the microsecond on that the graph's row is visible it counts, and the event before."""
    graph.apply([encode("pays", (1,), 10, 30, user_id=(0,), amount=1.0), encode("users", (0,), country="de")])
    session = [encode("pays", (1,), 10, amount=100.0), encode("pays", (2,), 11, amount=2.0)]
    before, after = around(graph, 0, session, 29), around(graph, 0, session, 30)
    assert (payments(before), before.row[1:].tolist()) == ([2.0, 100.0], [-1, -1])
    assert (payments(after), after.row[1:].tolist()) == ([2.0, 1.0], [-1, 0])


def test_a_row_that_the_graph_has_of_another_is_the_same_node(graph: TemporalGraph, encode: Encode) -> None:
    """A payment the graph knows without its user, reached again by its shop, is the session's: two edges, one row."""
    graph.apply([encode("pays", (1,), 10, shop_id=("s",), amount=1.0), encode("pays", (2,), 11, shop_id=("s",))])
    graph.apply([encode("users", (0,))])
    found = around(graph, 0, [encode("pays", (1,), 10, shop_id=("s",), amount=100.0)], 20, 9, 9, 9)
    assert found.row.tolist() == [0, -1, 0, 1]
    assert payments(found) == [100.0]
    edges = list(zip(found.edge_source.tolist(), found.edge_target.tolist(), strict=True))
    assert edges == [(0, 1), (1, 2), (2, 3), (2, 1)]


def test_of_one_key_the_newest_is_taken(graph: TemporalGraph, encode: Encode) -> None:
    """The same event sent twice is one row; of two versions of a row, the later is shown."""
    graph.apply([encode("users", (0,))])
    one, other = encode("pays", (1,), 10, amount=1.0), encode("pays", (1,), 12, amount=2.0)
    assert payments(around(graph, 0, [one, one], 20)) == [1.0]
    assert payments(around(graph, 0, [other, one], 20)) == [2.0]


def test_a_row_is_not_of_its_own_session(graph: TemporalGraph, encode: Encode) -> None:
    """A note that answers itself is no neighbor of itself; answers of composite keys are found as those of others."""
    graph.apply([encode("notes", ("eu", i), 10 + i) for i in range(3)])
    view = graph.view()
    answers = {"answers_region+answers_number": ("eu", 0)}
    session = [encode("notes", ("eu", i), 20 + i, **answers) for i in (0, 1, 7)] + [encode("notes", ("us", 1), 30)] * 2
    sampler = Sampler(view, plan(9, 9))
    found = sampler.sample_sessions("notes", at(0), [session], at(50), link=NOTE_TO_ANSWERS)
    assert found.row.tolist() == [0, -1, -1, -1]
    assert found.event_time_us.tolist() == [10, 30, 27, 21]


# ---- tables without keys, without time ------------------------------------------------------------------------------


@pytest.fixture
def wall() -> Iterator[TemporalGraph]:
    """A graph of clicks and views, with user 0 and items 0 and 1."""
    with TemporalGraph.create(parse_schema(WALL), arena_bytes=1 << 26) as graph:
        for table in ("users", "items"):
            graph.append(table, np.arange(2), event_time_us=at(ALWAYS_US, ALWAYS_US))
        yield graph


def of_wall(table: str, time_us: int | None, event_id: str = "", **links: int) -> bytes:
    """A click or a view of an item."""
    event = row_event_pb2.RowEvent(table=table, operation=row_event_pb2.OPERATION_INSERT, event_id=event_id)
    if time_us is not None:
        event.event_time_us = time_us
    for name, value in links.items():
        event.cells.add(column=name, integer=value)
    return event.SerializeToString()


def walled(graph: TemporalGraph, table: str, session: list[bytes]) -> Neighborhood:
    """The neighborhood of user 0 at 100 with a session of clicks or views."""
    sampler = Sampler(graph.view(), plan(9, 9))
    return sampler.sample_sessions("users", at(0), [session], at(100), link=f"users.user_id->{table}.user_id")


def test_rows_without_keys_are_told_by_their_ids(wall: TemporalGraph) -> None:
    """Each event is a row of its own; one with an id that is in the graph, or twice in the session, is one row."""
    wall.apply([of_wall("clicks", 10, "first", user_id=0, item_id=0)])
    clicks = [
        of_wall("clicks", 10, "first", item_id=0),
        of_wall("clicks", 20, "second", item_id=1),
        of_wall("clicks", 20, "second", item_id=1),
        of_wall("clicks", 30, item_id=1),
        of_wall("clicks", 30, item_id=1),
    ]
    found = walled(wall, "clicks", clicks)
    hop = found.hop == 1
    assert found.row[hop].tolist() == [-1, -1, -1, 0]
    assert found.event_time_us[hop].tolist() == [30, 30, 20, 10]
    assert found.row[found.hop == 2].tolist() == [1, 0]


def test_rows_without_time_come_in_the_order_given(wall: TemporalGraph) -> None:
    """The last given is the newest; a time that such an event says is not its row's."""
    views = [of_wall("views", None, item_id=0), of_wall("views", 10_000, item_id=1)]
    found = walled(wall, "views", views)
    assert found.row.tolist() == [0, -1, -1, 1, 0]
    assert found.event_time_us.tolist() == [ALWAYS_US] * 5


def test_no_link_leads_back_to_the_seed(wall: TemporalGraph) -> None:
    """Neither the session's link nor another to the same row gives an edge back; another user is reached."""
    clicks = [of_wall("clicks", 20, user_id=0, friend_id=0), of_wall("clicks", 10, user_id=0, friend_id=1)]
    found = walled(wall, "clicks", clicks)
    assert found.row.tolist() == [0, -1, -1, 1]
    assert found.edge_source.tolist() == [0, 0, 2]


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b"\xff\xff", "malformed"),
        (("shops", ("s",), 10), 'wrong_table: of table "shops", the link\'s rows are of "pays"'),
        (("pays", (1,), 41), "after_question"),
        (("pays", (1,), 10, 41), "after_question"),
        (("pays", (1,)), "missing_event_time"),
        (("pays", (1,), ALWAYS_US), "bad_event_time"),
        (("pays", (1,), 10, ALWAYS_US), "bad_known_time"),
        (("pays", (), 10), "missing_key"),
    ],
)
def test_a_bad_event_is_named(graph: TemporalGraph, encode: Encode, bad: Any, why: str) -> None:
    """What is no row of its session is refused with both places and the reason; the sampler goes on."""
    graph.apply([encode("pays", (0,), 10, user_id=(0,))])
    good = encode("pays", (5,), 40, 40, user_id=(0,))
    event = bad if isinstance(bad, bytes) else encode(*bad)
    sampler = Sampler(graph.view(), plan(9))
    with pytest.raises(SeedError, match=f"event 2 of session 1 is no row of it: {why}"):
        sampler.sample_sessions("users", at(0, 0), [[good], [good, good, event]], at(40, 40), link=USER_TO_PAYS)
    found = sampler.sample_sessions("users", at(0, 0), [[good], []], at(40, 40), link=USER_TO_PAYS)
    assert np.diff(found.seed_offset).tolist() == [3, 2]
    assert len(sampler.sample_keys("users", [0], at(40)).row) == 2


def test_a_row_of_another_is_no_row_of_the_session(graph: TemporalGraph, encode: Encode) -> None:
    """An event may name its seed, or nobody, but no other row, known or not; of an unknown seed nobody can tell."""
    graph.apply([encode("users", (0,)), encode("users", (1,))])
    for other in (1, 404):
        with pytest.raises(SeedError, match='event 0 of session 0 is no row of it: wrong_parent: link "user_id"'):
            around(graph, 0, [encode("pays", (1,), 10, user_id=(other,))], 40)
        assert len(around(graph, 99, [encode("pays", (1,), 10, user_id=(other,))], 40).row) == 2
    assert len(around(graph, 0, [encode("pays", (1,), 10, user_id=None)], 40).row) == 2


def test_a_delete_is_no_row(graph: TemporalGraph, encode: Encode) -> None:
    """A delete is refused; a patch is a row of what it says."""
    graph.apply([encode("users", (0,))])
    with pytest.raises(SeedError, match="bad_operation: a delete"):
        around(graph, 0, [encode("pays", (1,), 10, operation="delete")], 40)
    assert payments(around(graph, 0, [encode("pays", (1,), 10, operation="upsert", amount=3.0)], 40)) == [3.0]


def test_what_does_not_fit_the_call_is_refused(graph: TemporalGraph, encode: Encode) -> None:
    """Unequal lengths, links of other tables, rows beyond the table, what is no event, and endless sessions."""
    graph.apply([encode("pays", (0,), 10, user_id=(0,))])
    sampler = Sampler(graph.view(), plan(9))
    event = encode("pays", (1,), 10)

    def refused(match: str, table: str, rows: list[int], sessions: Any, link: str = USER_TO_PAYS) -> None:
        with pytest.raises(SeedError, match=match):
            sampler.sample_sessions(table, at(*rows), sessions, at(*[40] * len(rows)), link=link)

    refused("as many cut-offs, times and sessions as seeds", "users", [0, 0], [[event]])
    refused("does not lead from table 'users'", "users", [0], [[event]], SHOP_TO_PAYS)
    refused("does not lead from table 'users'", "users", [0], [[event]], "pays.user_id->users.user_id")
    refused("does not lead from table 'buyers'", "buyers", [0], [[event]])
    refused("seed 0 is no row of table users", "users", [1], [[event]])
    refused("not so event 1 of session 0", "users", [0], [[event, "text"]])
    refused("not so event 0 of session 1", "users", [0, 0], [[event], event])
    refused("not so the one of session 0", "users", [0], [None])
    refused("session 0 has 4097 events, at most 4096", "users", [0], [[event] * 4097])
    assert len(sampler.sample_sessions("users", at(0), [[event] * 4096], at(40), link=USER_TO_PAYS).row) == 3
