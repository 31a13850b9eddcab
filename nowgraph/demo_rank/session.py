"""A visitor's session: ask for a list, click, publish the click, ask again with the token of the click.

click ─► Ingest ─► Kafka ─► graph
           └─ freshness token ─► Rank ─► the next list
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from nowgraph.client import Client, FreshnessToken, RankedItem, RankedItems
from nowgraph.demo_rank.data import RankDemoData
from nowgraph.demo_rank.settings import RankDemoSettings


@dataclass(frozen=True, slots=True)
class Change:
    """A place of a list beside the list before: who is there, and from which place; None is a newcomer."""

    item: RankedItem
    before: int | None

    @property
    def came(self) -> bool:
        """Whether the item was not in the list before."""
        return self.before is None

    @property
    def moved(self) -> int:
        """How many places up, below 0 down; 0 of a newcomer."""
        return 0 if self.before is None else self.before - self.item.position


@dataclass(frozen=True, slots=True)
class Step:
    """A list and what led to it: the click (None before the first), and how long it took from the click to the list.

    `before` is the list before the click, None of the first one. `publish_ms` until Kafka had the click, `list_ms` from
    then until the list was there, waiting for the click to reach the graph included.
    """

    clicked: str | None
    before: RankedItems | None
    after: RankedItems
    publish_ms: float
    list_ms: float

    @property
    def changes(self) -> tuple[Change, ...]:
        """Each place of the list beside the list before."""
        before = {} if self.before is None else {item.key: item.position for item in self.before.items}
        return tuple(Change(item, before.get(item.key)) for item in self.after.items)

    @property
    def changed(self) -> bool:
        """Whether the list shows other items, or the same in another order."""
        return self.before is None or self.before.keys != self.after.keys


def play(client: Client, data: RankDemoData, settings: RankDemoSettings) -> Iterator[Step]:
    """The visitor's lists: the first of somebody unknown, then one after each click that knows of the click.

    Raises ClientError.
    """
    clock_us = data.start_us
    list_now, list_ms = _ask(client, data, settings, clock_us, None)
    yield Step(None, None, list_now, 0.0, list_ms)
    for number, product in enumerate(data.clicks):
        clock_us += round(settings.pause_s * 1e6)
        start_s = time.perf_counter()
        token = client.ingest(
            "lines",
            data.first_line + number,
            {
                "customer_id": data.visitor,
                "product_id": product,
                "quantity": 1.0,
                "unit_price": data.prices.get(product),
            },
            event_time=clock_us,
        )
        publish_ms = (time.perf_counter() - start_s) * 1e3
        list_before = list_now
        list_now, list_ms = _ask(client, data, settings, clock_us, token)
        yield Step(product, list_before, list_now, publish_ms, list_ms)


def _ask(
    client: Client, data: RankDemoData, settings: RankDemoSettings, clock_us: int, token: FreshnessToken | None
) -> tuple[RankedItems, float]:
    start_s = time.perf_counter()
    found = client.rank(data.visitor, k=settings.places, exclude_seen=True, event_time=clock_us, freshness_token=token)
    return found, (time.perf_counter() - start_s) * 1e3
