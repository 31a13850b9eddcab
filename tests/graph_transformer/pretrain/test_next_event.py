from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graph_transformer.finetune.examples import TableLabels
from graph_transformer.pretrain.next_event import NONE_US, LinkTimes, NextEvents
from graph_transformer.pretrain.questions import NOT_ASKED
from graph_transformer.pretrain.seeds import seeds_of
from graph_transformer.task import Task

DAY_US = 86_400_000_000
LINK = "customers.customer_id->orders.customer_id"


@pytest.fixture(scope="module")
def end_us(shop: Any) -> int:
    """A time in the middle of the shop's life."""
    return int(shop.time_us[900])


@pytest.fixture(scope="module")
def times(shop: Any, end_us: int) -> LinkTimes:
    """The orders of each customer until then."""
    return LinkTimes(shop.view, shop.view.schema.table("orders").link("customer_id"), end_us)


def next_of(shop: Any, buyer: int, after_us: int, end_us: int) -> int:
    """The plain reading: from a time to the customer's next order, strictly later and before the end."""
    later = shop.time_us[(shop.customer == buyer) & (shop.time_us > after_us) & (shop.time_us < end_us)]
    return int(later.min()) - after_us if len(later) else NONE_US


def test_gaps_are_to_the_next_row_strictly_later(shop: Any, times: LinkTimes, end_us: int) -> None:
    """Of every customer and many times, those of orders among them, the gap is what a plain search finds."""
    buyers = np.array(shop.view.keys("customers", np.arange(60)))
    random = np.random.default_rng(0)
    rows = random.integers(0, 60, 400)
    after = np.where(random.random(400) < 0.5, random.choice(shop.time_us[:880], 400), shop.time_us[0] - 5)
    expected = [next_of(shop, buyers[row], int(at), end_us) for row, at in zip(rows, after, strict=True)]
    assert times.gap_us(rows, after).tolist() == expected
    assert set(times.gap_us(np.full(3, -1), after[:3]).tolist()) == {NONE_US}


def test_nothing_after_the_period_is_an_answer(shop: Any, times: LinkTimes, end_us: int) -> None:
    """An order one microsecond before the end is one, an order at the end is none."""
    last, buyer = end_us, int(shop.customer[900])
    row = shop.view.row_index("customers", [buyer])
    before = np.array([last - 1])
    assert times.gap_us(row, before).tolist() == [NONE_US]
    longer = LinkTimes(shop.view, shop.view.schema.table("orders").link("customer_id"), end_us + 1)
    assert longer.gap_us(row, before).tolist() == [1]


def test_events_ask_about_what_they_point_to(shop: Any, task: Task, end_us: int) -> None:
    """An order asks for its customer's next one; the bins rise with the gap; an end without one leaves a range."""
    seeds = seeds_of(shop.view, task.target, None, end_us=end_us, seed=0)
    events = NextEvents(shop.view, task.target, seeds)
    assert [question.name for question in events.questions] == [f"next {LINK} of customer_id"]
    chosen = np.arange(len(seeds))
    answers = events.answers(chosen)
    buyer = shop.customer[np.array(shop.view.keys("orders", seeds.row))]
    gap = np.array([next_of(shop, who, int(at), end_us) for who, at in zip(buyer, seeds.time_us, strict=True)])
    low, high = answers.low[:, 0], answers.high[:, 0]
    there = gap != NONE_US
    assert bool((low[there] == high[there]).all())
    order = np.argsort(gap[there])
    assert bool((np.diff(low[there][order]) >= 0).all())
    assert bool((high[~there] == events.questions[0].classes - 1).all())
    # The less of the period was left, the less is known of an event that did not come.
    left = end_us - seeds.time_us[~there]
    assert bool((np.diff(low[~there][np.argsort(left)]) >= 0).all())


def test_entities_ask_about_themselves(shop: Any, entity_task: Task, entity_labels: TableLabels, end_us: int) -> None:
    """A customer asked at a time is asked for its own next order; past labels as rows are never asked for."""
    seeds = seeds_of(shop.view, entity_task.target, entity_labels, end_us=end_us, seed=0)
    events = NextEvents(shop.view, entity_task.target, seeds)
    assert [question.name for question in events.questions] == [f"next {LINK} of the seed"]
    assert NOT_ASKED not in events.answers(np.arange(len(seeds))).low
