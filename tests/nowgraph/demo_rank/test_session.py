from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from nowgraph.client import FreshnessToken
from nowgraph.demo_rank.data import RankDemoData
from nowgraph.demo_rank.session import Step, new_product, play
from nowgraph.demo_rank.settings import RankDemoSettings


def test_each_list_is_asked_with_the_token_of_its_click(visited: Any, data: RankDemoData) -> None:
    """First somebody unknown; then every click is published, and the next list is asked as of it, with its token."""
    steps = list(play(visited, data, RankDemoSettings(places=5, pause_s=2.0)))
    assert [step.clicked for step in steps] == [None, "P1", "P2", None]
    first, click, after, *_ = visited.asked
    assert (first["user"], first["freshness_token"], first["event_time"], first["k"]) == (7, None, 1_000, 5)
    assert (click["table"], click["key"], click["product_id"], click["customer_id"]) == ("lines", 50, "P1", 7)
    assert (click["unit_price"], click["event_time"]) == (2.5, 2_001_000)
    assert after["freshness_token"] == FreshnessToken("lines", 0, 2)
    assert (after["event_time"], after["exclude_seen"]) == (2_001_000, True)
    assert visited.asked[3]["key"] == 51


def test_a_step_says_who_came_and_who_moved(visited: Any, data: RankDemoData) -> None:
    """Beside the list before: a newcomer on top moves the others one down."""
    _, step, *_ = play(visited, data, RankDemoSettings(places=3))
    assert step.changed
    assert [(change.item.key, change.came, change.moved) for change in step.changes] == [
        ("after P1", True, 0),
        ("P0", False, -1),
        ("P1", False, -1),
    ]


def test_a_click_that_nobody_heard_changed_nothing(visited: Any, data: RankDemoData) -> None:
    """The same items in the same order are no change; another order is one."""
    visited.deaf = True
    _, *clicks, _ = play(visited, data, RankDemoSettings(places=3))
    assert [step.changed for step in clicks] == [False, False]
    assert all(change.moved == 0 for change in clicks[0].changes)


def test_a_product_that_is_listed_at_the_end_is_waited_for(visited: Any, data: RankDemoData) -> None:
    """Others buy it after the product clicked last; the list is asked when all of it has reached the graph."""
    *_, step = play(visited, data, RankDemoSettings(places=3, buyers=2))
    listed, *lines = [one for one in visited.asked if "table" in one and one["key"] not in (50, 51)]
    assert (listed["table"], listed["key"], step.listed) == ("products", "NEW1", "NEW1")
    assert [(line["customer_id"], line["product_id"]) for line in lines] == [
        (6, "P2"), (6, "NEW1"), (5, "P2"), (5, "NEW1"),
    ]  # fmt: skip
    assert [line["key"] for line in lines] == [52, 53, 54, 55]
    waited = [one["freshness_token"].topic for one in visited.asked[-3:]]
    assert waited == ["products", "lines", "lines"]
    assert step.place_of_listed is None
    assert (visited.asked[-1]["k"], len(step.after.items)) == (200, 3)
    assert new_product(replace(data, product_names={"NEW1": "taken"})) == "NEW2"


def test_another_order_is_a_change(list_of: Callable[..., Any]) -> None:
    """Also where nobody came."""
    step = Step("P1", list_of("a", "b"), list_of("b", "a"), 0.0, 0.0)
    assert step.changed
    assert [change.moved for change in step.changes] == [1, -1]
