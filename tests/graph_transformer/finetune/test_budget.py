"""Numbers are cut until the rows that are really sampled fit the budget; what matters least goes first."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pytest

from graph_transformer.finetune.branches import Branch, Role, grow
from graph_transformer.finetune.budget import Budget, by_hop, even
from graph_transformer.finetune.examples import Examples
from graph_transformer.target import Kind, Target
from temporal_graph.view import GraphView

DAY_US = 86_400_000_000
NOW_US = 1_600_000_000_000_000
SHOP = """
version: 1
name: shop
tables:
  customers:
    primary_key: {customer_id: integer}
  teams:
    primary_key: {team_id: integer}
  products:
    primary_key: {product_id: integer}
    columns: {price: numerical}
  orders:
    primary_key: {order_id: integer}
    time_column: at
    columns: {total: numerical, tax: numerical, weight: numerical}
    links: {customer_id: customers, team_id: teams}
  visits:
    primary_key: {visit_id: integer}
    time_column: at
    links: {customer_id: customers}
  items:
    primary_key: {item_id: integer}
    time_column: at
    columns: {price: numerical}
    links: {order_id: orders, product_id: products}
"""
ORDERS, VISITS = (1, "customers.customer_id->orders.customer_id"), (1, "customers.customer_id->visits.customer_id")
ITEMS, PRODUCTS = (2, "orders.order_id->items.order_id"), (3, "items.product_id->products.product_id")
TEAM, AGAIN = (2, "orders.team_id->teams.team_id"), (3, "teams.team_id->orders.team_id")
TARGET = Target(Kind.BINARY, "customers", event_level=False, horizon_us=DAY_US)
CUSTOMERS = 20


@pytest.fixture
def shop(plant: Callable) -> GraphView:
    """Twenty customers with fifty orders of four items and fifty visits each; ten teams, two customers to one."""
    rows = []
    for n in range(CUSTOMERS * 50):
        customer = n % CUSTOMERS
        cells = {"total": 1.0, "tax": 1.0, "weight": 1.0, "customer_id": customer, "team_id": customer // 2}
        rows.append(("orders", n, NOW_US + n, cells))
        rows.append(("visits", n, NOW_US + n, {"customer_id": customer}))
        for item in range(4):
            cells = {"price": 1.0, "order_id": n, "product_id": n * 4 + item}
            rows.append(("items", n * 4 + item, NOW_US + n, cells))
    return plant(SHOP, rows)


@pytest.fixture
def examples() -> Examples:
    """Every customer after all orders."""
    time = np.full(CUSTOMERS, NOW_US + CUSTOMERS * 50)
    return Examples(np.arange(CUSTOMERS), time, time, time, np.zeros(CUSTOMERS, dtype=np.float32))


def wanted(branches: Iterable[Branch]) -> set[tuple[int, str]]:
    """Keys of what is followed."""
    return {branch.key for branch in branches if branch.wanted}


def test_all_that_is_wanted_is_had_where_it_fits(shop: GraphView, examples: Examples) -> None:
    """A wide budget cuts nothing."""
    branches = grow(shop, TARGET, examples, most=64)
    numbers = Budget(shop, TARGET, examples, 100_000.0).numbers(branches)
    assert set(numbers) == wanted(branches)
    assert (numbers[ORDERS], numbers[VISITS], numbers[ITEMS], numbers[AGAIN]) == (50, 50, 4, 16)


@pytest.mark.parametrize("rows", [60, 160, 300])
def test_what_is_sampled_stays_within_the_budget(shop: GraphView, examples: Examples, rows: int) -> None:
    """The cost of the rows counted is at most the budget, and most of it is used."""
    branches = grow(shop, TARGET, examples, most=64)
    budget = Budget(shop, TARGET, examples, float(rows))
    numbers = budget.numbers(branches)
    assert 0.5 * rows <= budget.cost(numbers, branches) <= rows
    assert all(number <= next(b.wanted for b in branches if b.key == key) for key, number in numbers.items())


def test_the_least_important_goes_first(shop: GraphView, examples: Examples) -> None:
    """Under a tight budget details and going down again are gone, the customer's own history is not."""
    branches = grow(shop, TARGET, examples, most=64)
    assert {ITEMS, PRODUCTS, TEAM, AGAIN} <= wanted(branches)
    numbers = Budget(shop, TARGET, examples, 9.5).numbers(branches)
    assert set(numbers) == {ORDERS, VISITS}
    assert (numbers[ORDERS], numbers[VISITS]) == (4, 4)


def test_tables_that_say_more_get_more_rows(shop: GraphView, examples: Examples) -> None:
    """Orders, with three columns, twice as many as visits, which have none."""
    branches = [b for b in grow(shop, TARGET, examples, most=64) if b.key in (ORDERS, VISITS)]
    numbers = Budget(shop, TARGET, examples, 70.0).numbers(branches)
    assert numbers[ORDERS] >= 1.5 * numbers[VISITS]


def test_going_down_again_brings_the_parent_it_starts_from(shop: GraphView, examples: Examples) -> None:
    """A descent is had with the link up, or neither is: teams have nothing to say themselves."""
    branches = [b for b in grow(shop, TARGET, examples, most=64) if b.key in (ORDERS, TEAM, AGAIN)]
    for rows in (5.0, 70.0, 200.0):
        numbers = Budget(shop, TARGET, examples, rows).numbers(branches)
        assert (TEAM in numbers) == (AGAIN in numbers) == (rows > 5)


def test_rows_that_complete_others_cost_half(shop: GraphView, examples: Examples) -> None:
    """Products, a row to each item, count in part; the mean and p95 count all rows."""
    branches = [b for b in grow(shop, TARGET, examples, most=64) if b.role is not Role.DESCENT]
    budget = Budget(shop, TARGET, examples, 1e6)
    numbers = {ORDERS: 2, ITEMS: 4, PRODUCTS: 1}
    rows = budget.count(numbers, [PRODUCTS])
    assert (rows.mean, rows.p95, rows.cost) == (19.0, 19.0, 15.0)
    assert budget.cost(numbers, branches) == 15.0
    assert budget.count({}, []).mean == 1.0


def test_numbers_by_hop_and_round() -> None:
    """Keys become one mapping per hop; larger numbers are multiples of four."""
    assert by_hop({ORDERS: 8, AGAIN: 4}) == [{ORDERS[1]: 8}, {}, {AGAIN[1]: 4}]
    assert [even(n) for n in (3.9, 7.0, 8.0, 13.9, 64.0)] == [3, 7, 8, 12, 64]
