"""Seeds of every kind, the time rule at one microsecond, limits, and what is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

from online_sampler import Neighborhood, PlanError, Sampler, SamplingPlan, SeedError
from temporal_graph.graph import TemporalGraph
from temporal_graph.time_rule import ALWAYS_US

Encode = Callable[..., bytes]
USER_TO_PAYS = "users.user_id->pays.user_id"
PAYS_TO_USER = "pays.user_id->users.user_id"


def plan(*hops: object, **more: object) -> SamplingPlan:
    """A plan of these hops."""
    return SamplingPlan.from_dict({"num_neighbors": [{f"hop{i + 1}": hop} for i, hop in enumerate(hops)], **more})


def at(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """int64 [N]."""
    return np.array(values, np.int64)


def around_user(graph: TemporalGraph, cutoff_time_us: int) -> list[int]:
    """Rows of the payments of user 0 that a question at the cut-off sees."""
    found = Sampler(graph.view(), plan(9)).sample_keys("users", [0], at(cutoff_time_us))
    return [int(row) for row in found.row[1:]]


# ---- the time rule --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tick", [0, 1 << 22, (1 << 22) - 1, 1_700_000_000_000_000 >> 22 << 22])
@pytest.mark.parametrize(("event", "known"), [(50, 50), (50, 40), (40, 50)])
def test_each_clock_holds_at_one_microsecond(
    graph: TemporalGraph, encode: Encode, tick: int, event: int, known: int
) -> None:
    """A row is seen when the later of its clocks is the cut-off, and not a microsecond earlier, at any tick's edge."""
    graph.apply([encode("pays", (1,), tick + event, tick + known, user_id=(0,))])
    assert around_user(graph, tick + 50) == [0]
    assert around_user(graph, tick + 49) == []


def test_an_outcome_is_seen_from_when_it_was_known(graph: TemporalGraph, encode: Encode) -> None:
    """A report of fraud changes what a neighbor shows at its known time, not a microsecond earlier."""
    graph.apply([encode("pays", (1,), 100, user_id=(0,), amount=7.0)])
    graph.apply([encode("pays", (1,), 150, 200, operation="upsert", fraud=True)])
    sampler = Sampler(graph.view(), plan(9))
    found = sampler.sample_keys("users", [0, 0], at(199, 200))
    assert found.columns["pays"].boolean[:, 1].tolist() == [2, 1]
    assert found.version[found.hop == 1].tolist() == [0, 1]
    assert found.event_time_us[found.hop == 1].tolist() == [100, 100]
    assert found.columns["pays"].numerical[:, 0].tolist() == [7.0, 7.0]


def test_a_parent_that_is_not_yet_visible_is_bare(graph: TemporalGraph, encode: Encode) -> None:
    """A shop that opens later is shown by name only, with its cells from the microsecond on that it is visible."""
    graph.apply([encode("shops", ("s",), 500, score=3.0), encode("pays", (1,), 100, shop_id=("s",))])
    found = Sampler(graph.view(), plan(9)).sample_keys("pays", [1, 1], at(499, 500))
    shop = found.hop == 1
    assert found.version[shop].tolist() == [-1, 0]
    assert found.event_time_us[shop].tolist() == [ALWAYS_US, 500]
    scores = found.columns["shops"].numerical[:, 0]
    assert np.isnan(scores[0])
    assert scores[1] == 3.0


def test_a_deleted_parent_is_hidden(graph: TemporalGraph, encode: Encode) -> None:
    """From its deletion on a parent is no neighbor; a microsecond before, it is."""
    graph.apply([encode("shops", ("s",), 50), encode("pays", (1,), 100, shop_id=("s",))])
    graph.apply([encode("shops", ("s",), 300, operation="delete")])
    found = Sampler(graph.view(), plan(9)).sample_keys("pays", [1, 1], at(299, 300))
    assert np.diff(found.seed_offset).tolist() == [2, 1]


def test_a_batch_is_seen_whole_or_not_at_all(graph: TemporalGraph, encode: Encode) -> None:
    """A sampler made before a batch sees it in its next call: every call pins the graph anew."""
    sampler = Sampler(graph.view(), plan(9))
    assert len(sampler.sample_keys("users", [0], at(10)).row) == 1
    graph.apply([encode("pays", (i,), 5, user_id=(0,)) for i in range(3)])
    assert len(sampler.sample_keys("users", [0], at(10)).row) == 4


# ---- seeds ----------------------------------------------------------------------------------------------------------


def test_a_row_is_never_its_own_neighbor(graph: TemporalGraph, encode: Encode) -> None:
    """Whatever the cut-off and however long the way, the seed's row is passed over and does not count."""
    graph.apply([encode("pays", (i,), 10 + i, user_id=(0,)) for i in range(4)])
    found = Sampler(graph.view(), plan(1, 2, 1, 4)).sample_rows("pays", at(3, 1), at(100, 100))
    for b, seed in enumerate((3, 1)):
        low, high = found.seed_offset[b : b + 2]
        rows = found.row[low:high][found.table[low:high] == 2].tolist()
        assert rows.count(seed) == 1
        assert rows[0] == seed
        assert rows[1:3] == [row for row in (3, 2, 1, 0) if row != seed][:2]


def test_a_scored_row_hides_its_outcome_and_its_future(graph: TemporalGraph, encode: Encode) -> None:
    """A seed shows how it arrived: later changes, a moved link and its outcome are not there, whatever the cut-off."""
    graph.apply([encode("pays", (1,), 100, user_id=(0,), amount=7.0, fraud=False)])
    graph.apply([encode("pays", (1,), 200, operation="upsert", user_id=(5,), amount=8.0, fraud=True)])
    view = graph.view()
    found = Sampler(view, plan(9)).sample_rows("pays", at(0), at(10_000))
    assert found.columns["pays"].numerical[0, 0] == 7.0
    assert found.columns["pays"].boolean[0, 1] == 2
    assert view.keys("users", found.row[1:]) == [0]
    assert (found.version[0], found.event_time_us[0]) == (0, 100)


def test_a_row_as_of_its_cut_off_is_the_entity_of_its_key(graph: TemporalGraph, encode: Encode) -> None:
    """Asked as of a time, a row is shown as it stood then, outcome included: to the microsecond what its key shows."""
    graph.apply([encode("pays", (1,), 100, user_id=(0,), amount=7.0, fraud=False)])
    graph.apply([encode("pays", (1,), 200, 250, operation="upsert", user_id=(5,), amount=8.0, fraud=True)])
    view = graph.view()
    sampler = Sampler(view, plan(9))
    cutoffs = at(99, 100, 249, 250)
    found = sampler.sample_rows("pays", at(0, 0, 0, 0), cutoffs, as_of=True)
    seeds = found.hop == 0
    assert found.version[seeds].tolist() == [-1, 0, 0, 1]
    assert found.columns["pays"].boolean[:, 1].tolist() == [2, 0, 0, 1]
    assert found.columns["pays"].numerical[1:, 0].tolist() == [7.0, 7.0, 8.0]
    assert view.keys("users", found.row[~seeds]) == [0, 0, 5]
    by_key = sampler.sample_keys("pays", [1, 1, 1, 1], cutoffs)
    assert by_key.row.tolist() == found.row.tolist()
    assert by_key.columns["pays"].coded.tolist() == found.columns["pays"].coded.tolist()
    arrived = sampler.sample_rows("pays", at(0), at(250))
    assert (arrived.version[0], arrived.columns["pays"].boolean[0, 1]) == (0, 2)


def test_an_unknown_key_is_a_seed_alone(graph: TemporalGraph, encode: Encode) -> None:
    """Never seen keys, integer, text and composite, give a neighborhood of one bare node."""
    graph.apply([encode("notes", ("eu", 1), 10)])
    sampler = Sampler(graph.view(), plan(9))
    for table, keys in (("users", [404]), ("shops", ["nowhere"]), ("notes", [("us", 1)])):
        found = sampler.sample_keys(table, keys, at(100))
        assert (found.row.tolist(), found.version.tolist(), found.parent.tolist()) == ([-1], [-1], [-1])
        assert np.isnan(found.columns[table].numerical).all()
    assert sampler.sample_keys("notes", [("eu", 1)], at(100)).row.tolist() == [0]


def test_an_event_is_scored_before_it_is_in_the_graph(graph: TemporalGraph, encode: Encode) -> None:
    """A payment's own cells and links are used, parents never seen are left out, nothing is written to the graph."""
    graph.apply([encode("pays", (i,), 10 + i, user_id=(0,), card="a") for i in range(3)])
    view = graph.view()
    payment = encode("pays", (9,), 50, 60, user_id=(0,), shop_id=("new",), amount=5.0, card="a", note="new", fraud=True)
    found = Sampler(view, plan(9, 2)).sample_events([payment], at(49))
    assert found.row.tolist() == [-1, 0, 2, 1]
    assert (found.event_time_us[0], found.known_time_us[0], found.version[0]) == (50, 60, 0)
    cells = found.columns["pays"]
    assert (cells.numerical[0, 0], cells.boolean[0].tolist()) == (5.0, [2, 2])
    assert view.strings("pays", "card", cells.coded[0, :1]) == ["a"]
    assert [found.unseen[-1 - code] for code in cells.coded[0, 2:]] == ["new"]
    assert view.row_count("shops") == 0


def test_strings_the_graph_has_never_stored_come_with_the_sample(graph: TemporalGraph, encode: Encode) -> None:
    """Each such cell of each event has a negative code that names its string; stored strings and nulls are as ever."""
    graph.apply([encode("pays", (1,), 10, card="a", tags=["x"], note="hello")])
    view = graph.view()
    sampler = Sampler(view, plan(9))
    events = [
        encode("pays", (8,), 50, card="b", tags=["y", "x"], note="hello"),
        encode("pays", (9,), 50, card="a", tags=["x"], note="grüße \0 und mehr, lang genug für einen eigenen Block"),
        encode("pays", (10,), 50, card="b", tags=[]),
    ]
    found = sampler.sample_events(events, at(49, 49, 49))
    coded = found.columns["pays"].coded
    assert (coded < 0).tolist() == [[True, True, False], [False, False, True], [True, True, False]]
    assert sorted(-1 - coded[coded < 0]) == list(range(len(found.unseen)))
    shown = [
        [found.unseen[-1 - code] if code < 0 else text for code, text in zip(column, texts, strict=True)]
        for name, column in zip(("card", "tags", "note"), coded.T.tolist(), strict=True)
        for texts in [view.strings("pays", name, np.array(column, np.int32))]
    ]
    long = "grüße \0 und mehr, lang genug für einen eigenen Block"
    assert shown == [["b", "a", "b"], ["x\x1fy", "x", ""], ["hello", long, None]]
    assert [view.dictionary_size("pays", name) for name in ("card", "tags", "note")] == [2, 2, 2]


def test_strings_of_one_sample_are_not_those_of_the_next(graph: TemporalGraph, encode: Encode) -> None:
    """A sample keeps its own strings however often its sampler is asked again; rows of the graph bring none."""
    graph.apply([encode("pays", (1,), 10, card="a")])
    sampler = Sampler(graph.view(), plan(9))
    kept = sampler.sample_events([encode("pays", (2,), 50, card="kept")], at(49))
    for number in range(5):
        other = sampler.sample_events([encode("pays", (3,), 50, card=str(number))], at(49))
        assert (other.unseen, other.columns["pays"].coded[0, 0]) == ((str(number),), -1)
        del other
        assert sampler.sample_rows("pays", at(0), at(49)).unseen == ()
    assert kept.unseen == ("kept",)
    graph.apply([encode("pays", (2,), 50, card="kept")])
    stored = sampler.sample_events([encode("pays", (2,), 50, card="kept")], at(49))
    assert (stored.unseen, stored.columns["pays"].coded[0, 0] > 0) == ((), True)


def test_an_event_without_a_time_has_none(graph: TemporalGraph, encode: Encode) -> None:
    """Where a time is missing the seed is without time, whatever the events before it said."""
    sampler = Sampler(graph.view(), plan(9))
    assert sampler.sample_events([encode("pays", (1,), 50, 60)], at(99)).event_time_us.tolist() == [50]
    found = sampler.sample_events([encode("pays", (2,))], at(99))
    assert (found.event_time_us.tolist(), found.known_time_us.tolist()) == ([ALWAYS_US], [ALWAYS_US])


def test_an_event_that_arrived_meanwhile_is_not_its_own_neighbor(graph: TemporalGraph, encode: Encode) -> None:
    """The row of the scored payment, applied before the score is asked for, is excluded."""
    graph.apply([encode("pays", (i,), 10, user_id=(0,)) for i in range(3)])
    found = Sampler(graph.view(), plan(9, 9)).sample_events([encode("pays", (1,), 10, user_id=(0,))], at(10))
    assert sorted(found.row[found.hop == 2].tolist()) == [0, 2]


def test_each_seed_has_its_own_cut_off(graph: TemporalGraph, encode: Encode) -> None:
    """Seeds of one request are disjoint: the same rows may appear for each, each cut at its own time."""
    graph.apply([encode("pays", (i,), 10 + i, user_id=(0,)) for i in range(4)])
    found = Sampler(graph.view(), plan(9)).sample_keys("users", [0, 0, 0], at(9, 11, 99))
    assert np.diff(found.seed_offset).tolist() == [1, 3, 5]
    assert found.cutoff_time_us.tolist() == [9, 11, 99]


# ---- plans ----------------------------------------------------------------------------------------------------------


def test_a_number_of_zero_switches_a_link_off(graph: TemporalGraph, encode: Encode) -> None:
    """Parents are followed however small the number, unless it is 0; so are children."""
    graph.apply([encode("pays", (i,), 10 + i, user_id=(0,), shop_id=("s",)) for i in range(4)])
    view = graph.view()

    def links(*hops: object) -> list[str]:
        found = Sampler(view, plan(*hops)).sample_rows("pays", at(3), at(99))
        return [found.schema.edge_types[link] for link in found.link[1:]]

    assert links({"default": 0, PAYS_TO_USER: 1}) == [PAYS_TO_USER]
    assert (
        links({"default": 0, PAYS_TO_USER: 7}, {"default": 0, USER_TO_PAYS: 2}) == [PAYS_TO_USER] + [USER_TO_PAYS] * 2
    )
    assert len(links({"default": 1, PAYS_TO_USER: 0})) == 1
    assert links(0) == []


def test_the_node_limit_stops_rows_not_edges(graph: TemporalGraph, encode: Encode) -> None:
    """At the limit no row is added, the seed counted; edges to rows already in are still recorded."""
    graph.apply([encode("pays", (i,), 10 + i, user_id=(0,)) for i in range(6)])
    view = graph.view()
    for limit in (1, 2, 4, 7, 8):
        found = Sampler(view, plan(9, 9, 9, node_limit=limit)).sample_keys("users", [0], at(99))
        assert len(found.row) == min(limit, 7)
    found = Sampler(view, plan(9, 9, 9, 9, node_limit=3)).sample_rows("pays", at(5), at(99))
    assert found.row.tolist() == [5, 0, 4]
    assert len(found.edge_source) == 3  # pay 5 to its user, the user to pay 4, pay 4 back to its user


def test_eight_hops_are_walked(graph: TemporalGraph, encode: Encode) -> None:
    """A chain of notes that answer one another is followed to the eighth, and no further."""
    chain = {"answers_region+answers_number": ("eu", 0)}
    graph.apply([encode("notes", ("eu", 0), 1)])
    graph.apply(
        [
            encode("notes", ("eu", i), 1 + i, **(chain | {"answers_region+answers_number": ("eu", i - 1)}))
            for i in range(1, 12)
        ]
    )
    found = Sampler(graph.view(), plan(*[1] * 8)).sample_keys("notes", [("eu", 11)], at(99))
    assert found.hop.tolist() == list(range(9))


def test_a_plan_for_another_schema_is_refused(graph: TemporalGraph) -> None:
    """A link that the view's schema lacks is a PlanError when the sampler is made."""
    with pytest.raises(PlanError, match=USER_TO_PAYS):
        Sampler(graph.view(), plan({"default": 1, "users.user_id->pays.user": 2}))


# ---- refusals -------------------------------------------------------------------------------------------------------


def test_what_is_no_seed_is_refused_with_its_place(graph: TemporalGraph, encode: Encode) -> None:
    """Unknown rows and tables, unequal lengths and bytes that are no event raise SeedError; the sampler goes on."""
    graph.apply([encode("pays", (1,), 10, user_id=(0,))])
    sampler = Sampler(graph.view(), plan(3))
    with pytest.raises(SeedError, match="seed 1 is no row of table pays"):
        sampler.sample_rows("pays", at(0, 1), at(5, 5))
    with pytest.raises(SeedError, match="seed 0 is no row"):
        sampler.sample_rows("pays", at(-1), at(5))
    with pytest.raises(SeedError, match="no table 'payments'"):
        sampler.sample_rows("payments", at(0), at(5))
    with pytest.raises(SeedError, match="as many cut-offs"):
        sampler.sample_rows("pays", at(0), at(5, 6))
    with pytest.raises(SeedError, match="event 1 is no seed"):
        sampler.sample_events([encode("pays", (2,), 10), b"\xff\xff"], at(5, 5))
    with pytest.raises(SeedError, match="bytes"):
        sampler.sample_events(["text"], at(5))  # type: ignore[list-item]
    assert len(sampler.sample_rows("pays", at(0), at(5)).row) == 2


def test_samplers_of_many_threads_agree(graph: TemporalGraph, encode: Encode) -> None:
    """One sampler a thread, all at once, over one graph: each sees what a single one sees."""
    graph.apply([encode("pays", (i,), 10 + i, user_id=(i % 7,), shop_id=(str(i % 3),)) for i in range(300)])
    view, rows = graph.view(), np.arange(300, dtype=np.int64)
    samplers = [Sampler(view, plan(5, 4, 3, strategy="uniform"), seed=1) for _ in range(4)]
    found: list[Neighborhood] = []

    def run(sampler: Sampler) -> None:
        found.extend(sampler.sample_rows("pays", rows, rows + 9, request=3) for _ in range(20))

    threads = [threading.Thread(target=run, args=(sampler,)) for sampler in samplers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 80
    assert all(one.row.tolist() == found[0].row.tolist() for one in found)
