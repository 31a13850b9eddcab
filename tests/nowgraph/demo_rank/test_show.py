from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from typing import Any

from rich.console import Console

from nowgraph.demo_rank.data import RankDemoData
from nowgraph.demo_rank.session import Step, play
from nowgraph.demo_rank.settings import RankDemoSettings
from nowgraph.demo_rank.show import click_rows, clicks_of, listed_text, name_of, step_table


def printed(step: Step, number: int, data: RankDemoData) -> str:
    """What a person sees."""
    console = Console(width=120, file=StringIO())
    with console.capture() as seen:
        console.print(step_table(step, number, data.product_names))
    return seen.get()


def test_the_lists_stand_side_by_side(visited: Any, data: RankDemoData) -> None:
    """Names, who is new, who moved how far, and why each is there."""
    first, step, *_ = play(visited, data, RankDemoSettings(places=3))
    assert "Nobody knows the visitor yet" in printed(first, 0, data)
    text = printed(step, 1, data)
    assert "Click 1: product 1" in text
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    assert rows == [
        ["1", "product 0", "after P1", "new", "co_visit"],
        ["2", "product 1", "product 0", "↓1", "popular"],
        ["3", "product 2", "product 1", "↓1", "popular"],
    ]


def test_lists_of_other_lengths_stand_side_by_side_too(list_of: Callable[..., Any], data: RankDemoData) -> None:
    """A list may be shorter than the one before, or empty."""
    for before, after in ((("P1", "P2"), ("P1",)), ((), ("P1",)), (("P1",), ())):
        assert "product 1" in printed(Step("P3", list_of(*before), list_of(*after), 0.0, 0.0), 1, data)


def test_the_end_says_what_each_click_changed(visited: Any, data: RankDemoData) -> None:
    """One row a click, and none for the list before the first."""
    steps = list(play(visited, data, RankDemoSettings(places=3)))
    first, second = click_rows(steps, data.product_names)
    assert (first["on"], first["came"], first["moved"], first["co-visited"], first["changed"]) == (
        "product 1", 1, 2, 1, True,
    )  # fmt: skip
    assert (second["click"], second["co-visited"]) == (2, 2)
    assert len(clicks_of(steps)) == 2


def test_the_product_that_was_listed_is_pointed_out(list_of: Callable[..., Any], data: RankDemoData) -> None:
    """At its place, by a name that nobody else has; or it is said that it is not ranked."""
    there = Step(None, list_of("P1"), list_of("P1", "NEW1"), 0.0, 0.0, listed="NEW1", place_of_listed=2)
    gone = Step(None, list_of("P1"), list_of("P1"), 0.0, 0.0, listed="NEW1")
    assert "a product listed just now" in printed(there, 1, data)
    assert "at place 2 of 2." in listed_text([there])
    assert "is not among the 1 that were ranked." in listed_text([gone])
    assert "No product" in listed_text([])


def test_long_names_are_cut(data: RankDemoData) -> None:
    """To the width of a column; a product without a name has its key."""
    assert len(name_of("x", {"x": "n" * 100})) == 32
    assert name_of("unknown", {}) == "unknown"
