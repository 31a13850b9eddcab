"""A session played against a client that needs no server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nowgraph.client import FreshnessToken, GraphPosition, RankedItem, RankedItems
from nowgraph.client_lists import RankTiming
from nowgraph.demo_rank.data import RankDemoData


class Visited:
    """A client of a shop that lists, on top, what comes after each click of the visitor; it keeps what it was asked."""

    def __init__(self) -> None:
        self.clicked: list[str] = []
        self.asked: list[dict[str, Any]] = []
        self.deaf = False
        self.visitor: int | None = None

    def ingest(self, table: str, key: int, cells: dict[str, Any], *, event_time: int) -> FreshnessToken:
        """Takes a click."""
        self.asked.append({"table": table, "key": key, **cells, "event_time": event_time})
        if not self.deaf and cells.get("customer_id") == self.visitor:
            self.clicked.insert(0, f"after {cells['product_id']}")
        return FreshnessToken(table, 0, len(self.asked))

    def rank(self, user: int | None = None, **asked: Any) -> RankedItems:
        """What comes after the clicks, the newest first, and then the best sellers."""
        self.asked.append({"user": user, **asked})
        self.visitor = self.visitor if user is None else user
        return ranked(*[*self.clicked, *(f"P{number}" for number in range(9))][: asked["k"]])


def ranked(*keys: str) -> RankedItems:
    """A list of these keys."""
    items = tuple(
        RankedItem(key, -float(place), place, ("co_visit",) if key.startswith("after") else ("popular",), False)
        for place, key in enumerate(keys, start=1)
    )
    timing = RankTiming(0, 0, 0, 0, 0, 0)
    return RankedItems("", "t", items, (), False, 0, 0, None, len(keys), "v", 0, GraphPosition(1, 1, {}), timing)


@pytest.fixture
def visited() -> Visited:
    """A client."""
    return Visited()


@pytest.fixture
def list_of() -> Callable[..., RankedItems]:
    """Makes a list of keys."""
    return ranked


@pytest.fixture
def data() -> RankDemoData:
    """A shop of nine products, and two clicks."""
    names = {f"P{number}": f"product {number}" for number in range(9)}
    return RankDemoData("a shop", Path("tables"), "", names, dict.fromkeys(names, 2.5), 7, ("P1", "P2"), 1_000, 50)
