"""A visitor's session: ask for a list, click, publish the click, ask again with the token of the click.

click ─► Ingest ─► Kafka ─► graph
           └─ freshness token ─► Rank ─► the next list

At the end a product is listed that no training has seen, others buy it, and the visitor's list is asked once more.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count

from nowgraph.client import Client, FreshnessToken, RankedItem, RankedItems
from nowgraph.client_values import Value
from nowgraph.demo_rank.data import RankDemoData
from nowgraph.demo_rank.settings import RankDemoSettings

NEW_NAME = "a product listed just now"


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
    """A list and what led to it: a click, a product that was listed, or neither, of the first list.

    `before` is the list before, None of the first one. `publish_ms` until Kafka had the events, `list_ms` from then
    until the list was there, waiting for them to reach the graph included.
    """

    clicked: str | None
    before: RankedItems | None
    after: RankedItems
    publish_ms: float
    list_ms: float
    listed: str | None = None
    place_of_listed: int | None = None
    """Where among all that was ranked the product stands that was just listed; None where it does not."""

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
    """The visitor's lists: of somebody unknown, after each click, knowing of it, and after a product was listed.

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
    start_s = time.perf_counter()
    product, token, clock_us = _list_product(client, data, settings, clock_us)
    publish_ms = (time.perf_counter() - start_s) * 1e3
    ranked, list_ms = _ask(client, data, replace(settings, places=settings.looked_at), clock_us, token)
    place = next((item.position for item in ranked.items if item.key == product), None)
    shown = replace(ranked, items=ranked.items[: settings.places])
    yield Step(None, list_now, shown, publish_ms, list_ms, listed=product, place_of_listed=place)


def _list_product(
    client: Client, data: RankDemoData, settings: RankDemoSettings, clock_us: int
) -> tuple[str, FreshnessToken, int]:
    """Lists a product, and lets others buy it after the one clicked last; returns it, the last token and the time.

    A token is of one partition: a list is asked with the newest of each, so that all of it is there.
    """
    product, second_us = new_product(data), 1_000_000
    cells: dict[str, Value] = {"description": NEW_NAME, "first_price": 3.0}
    tokens = [client.ingest("products", product, cells, event_time=clock_us)]
    line = data.first_line + len(data.clicks)
    for buyer in range(1, settings.buyers + 1):
        for bought in (data.clicks[-1], product):
            clock_us += second_us
            cells = {"customer_id": data.visitor - buyer, "product_id": bought, "quantity": 1.0, "unit_price": 3.0}
            tokens.append(client.ingest("lines", line, cells, event_time=clock_us))
            line += 1
    newest = {(token.topic, token.partition): token for token in tokens}
    for token in newest.values():
        client.rank(k=1, event_time=clock_us, freshness_token=token)
    return product, tokens[-1], clock_us + second_us


def new_product(data: RankDemoData) -> str:
    """A key that no product has."""
    return next(key for number in count(1) if (key := f"NEW{number}") not in data.product_names)


def _ask(
    client: Client, data: RankDemoData, settings: RankDemoSettings, clock_us: int, token: FreshnessToken | None
) -> tuple[RankedItems, float]:
    start_s = time.perf_counter()
    found = client.rank(data.visitor, k=settings.places, exclude_seen=True, event_time=clock_us, freshness_token=token)
    return found, (time.perf_counter() - start_s) * 1e3
