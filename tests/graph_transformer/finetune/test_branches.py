"""What a plan follows: parents, their history, details; not what everybody shares, nor what says nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graph_transformer.finetune.branches import (
    CROWDED_MOST,
    DESCENT_MOST,
    HISTORY_LEAST,
    Branch,
    Role,
    grow,
    informative,
    without_dead_ends,
)
from graph_transformer.finetune.degrees import WIDE
from graph_transformer.finetune.examples import Examples
from graph_transformer.target import Kind, Target
from temporal_graph.view import GraphView

DAY_US = 86_400_000_000
NOW_US = 1_600_000_000_000_000
SHOP = """
version: 1
name: shop
tables:
  countries:
    primary_key: {country_id: integer}
    columns: {name: categorical}
  customers:
    primary_key: {customer_id: integer}
    columns: {age: numerical}
    links: {country_id: countries}
  agents:
    primary_key: {agent_id: integer}
  categories:
    primary_key: {category_id: integer}
    columns: {name: categorical}
  products:
    primary_key: {product_id: integer}
    links: {category_id: categories}
  campaigns:
    primary_key: {campaign_id: integer}
    columns: {name: categorical}
  orders:
    primary_key: {order_id: integer}
    time_column: at
    columns:
      total: numerical
      returned: {kind: boolean, outcome: true}
    links: {customer_id: customers, agent_id: agents, campaign_id: campaigns, country_id: countries}
  items:
    primary_key: {item_id: integer}
    time_column: at
    columns: {price: numerical}
    links: {order_id: orders, product_id: products}
"""
CUSTOMERS, A_CUSTOMER, ITEMS = 60, 12, 3
OF_ORDER = "orders.order_id->items.order_id"


@pytest.fixture
def shop(plant: Callable) -> GraphView:
    """Sixty customers with twelve orders of three items each; an agent per customer, two countries, one campaign."""
    random = np.random.default_rng(0)
    rows = [("countries", n, None, {"name": f"c{n}"}) for n in range(2)]
    rows += [("campaigns", 0, None, {"name": "spring"})]
    rows += [("categories", n, None, {"name": f"k{n}"}) for n in range(5)]
    rows += [("products", n, None, {"category_id": n % 5}) for n in range(40)]
    rows += [("customers", n, None, {"age": 30.0, "country_id": n % 2}) for n in range(CUSTOMERS)]
    for order in range(CUSTOMERS * A_CUSTOMER):
        at, customer = NOW_US + order * DAY_US, order % CUSTOMERS
        cells = {"total": 1.0, "customer_id": customer, "agent_id": customer // 3, "campaign_id": 0}
        rows.append(("orders", order, at, cells | {"country_id": customer % 2}))
        for item in range(ITEMS):
            key = order * ITEMS + item
            cells = {"price": 1.0, "order_id": order, "product_id": int(random.integers(0, 40))}
            rows.append(("items", key, at, cells))
    return plant(SHOP, rows)


def questions(view: GraphView, target: Target) -> Examples:
    """Every customer at the end of all orders, or the last orders just before they happened."""
    if target.event_level:
        event, _ = view.times("orders")
        row = np.argsort(event)[-100:]
        time, cutoff = event[row], event[row] - 1
    else:
        row = np.arange(CUSTOMERS)
        time = cutoff = np.full(CUSTOMERS, NOW_US + CUSTOMERS * A_CUSTOMER * DAY_US)
    return Examples(row, time, cutoff, time, np.zeros(len(row), dtype=np.float32))


def by_link(branches: list[Branch]) -> dict[tuple[int, str], Branch]:
    """Branches by hop and link."""
    return {branch.key: branch for branch in branches}


ENTITY = Target(Kind.BINARY, "customers", event_level=False, horizon_us=DAY_US)
EVENT = Target(Kind.BINARY, "orders", event_level=True, column="returned")


def test_an_entity_s_history_its_details_and_their_parents_are_followed(shop: GraphView) -> None:
    """Customer, orders, items, and the category by a product that says nothing itself."""
    found = by_link(grow(shop, ENTITY, questions(shop, ENTITY), most=64))
    orders = found[1, "customers.customer_id->orders.customer_id"]
    assert (orders.role, orders.wanted, orders.degrees.median) == (Role.HISTORY, A_CUSTOMER, A_CUSTOMER)
    assert found[1, "customers.country_id->countries.country_id"].wanted == 1
    assert (found[2, OF_ORDER].role, found[2, OF_ORDER].wanted) == (Role.DETAIL, ITEMS)
    assert found[3, "items.product_id->products.product_id"].wanted == 1
    assert found[4, "products.category_id->categories.category_id"].role is Role.FOLD


def test_nothing_leads_back_to_where_it_came_from(shop: GraphView) -> None:
    """A customer's order is not followed to its customer, its item not to its order."""
    found = by_link(grow(shop, ENTITY, questions(shop, ENTITY), most=64))
    assert (2, "orders.customer_id->customers.customer_id") not in found
    assert (3, "items.order_id->orders.order_id") not in found


def test_one_goes_down_again_from_a_parent_of_one_s_own_not_from_everybody_s(shop: GraphView) -> None:
    """An agent's other orders are taken (the agent serves three customers); a campaign's and a country's are not."""
    found = by_link(grow(shop, ENTITY, questions(shop, ENTITY), most=64))
    agent = found[3, "agents.agent_id->orders.agent_id"]
    assert (agent.role, agent.wanted) == (Role.DESCENT, DESCENT_MOST)
    for hub in ((3, "campaigns.campaign_id->orders.campaign_id"), (2, "countries.country_id->orders.country_id")):
        assert found[hub].wanted == 0
        assert "hub" in found[hub].why
    assert found[2, "orders.agent_id->agents.agent_id"].wanted == 1  # says nothing itself, but leads on
    assert found[2, "countries.country_id->customers.country_id"].wanted == 0
    assert "without a time" in found[2, "countries.country_id->customers.country_id"].why


def test_an_event_sees_its_parents_history_but_no_hub_s(shop: GraphView) -> None:
    """The customer's and the agent's orders, not those of everybody's campaign; its own items are not known yet."""
    found = by_link(grow(shop, EVENT, questions(shop, EVENT), most=8))
    assert found[1, "orders.customer_id->customers.customer_id"].role is Role.PARENT
    assert found[2, "customers.customer_id->orders.customer_id"].wanted == 8
    assert found[2, "agents.agent_id->orders.agent_id"].wanted == 8
    hub = found[2, "campaigns.campaign_id->orders.campaign_id"]
    assert (hub.wanted, hub.degrees.share) == (0, 1.0)
    assert found[1, OF_ORDER].wanted == 0
    assert "before the event" in found[1, OF_ORDER].why
    assert not any(branch.role is Role.DESCENT for branch in found.values())


def test_a_crowded_parent_gives_few_rows(plant: Callable) -> None:
    """Ten parents among hundreds of events, each with more children than are counted: some of them, not most."""
    text = """
version: 1
name: taps
tables:
  gates:
    primary_key: {gate_id: integer}
  taps:
    primary_key: {tap_id: integer}
    time_column: at
    columns: {valid: {kind: boolean, outcome: true}}
    links: {gate_id: gates}
"""
    count = 10 * (WIDE + 100)
    view = plant(text, [("taps", n, NOW_US + n, {"gate_id": n % 10}) for n in range(count)])
    row = np.arange(count - 200, count)
    time = NOW_US + row
    examples = Examples(row, time, time - 1, time, np.zeros(len(row), dtype=np.float32))
    target = Target(Kind.BINARY, "taps", event_level=True, column="valid")
    found = by_link(grow(view, target, examples, most=64))
    assert found[2, "gates.gate_id->taps.gate_id"].wanted == CROWDED_MOST


def test_a_history_that_nobody_has_yet_gets_a_few(plant: Callable) -> None:
    """An entity's table without rows so far is followed a little, as it may fill."""
    text = SHOP
    view = plant(text, [("customers", n, None, {"age": 1.0}) for n in range(CUSTOMERS)])
    found = by_link(grow(view, ENTITY, questions(view, ENTITY), most=64))
    assert found[1, "customers.customer_id->orders.customer_id"].wanted == HISTORY_LEAST
    assert (1, "customers.country_id->countries.country_id") in found
    assert found[1, "customers.country_id->countries.country_id"].wanted == 0


def test_parents_that_say_nothing_and_lead_nowhere_are_dropped(shop: GraphView) -> None:
    """Without the descent from agents, agents go too; countries have a name and stay."""
    branches = grow(shop, ENTITY, questions(shop, ENTITY), most=64)
    left = [branch for branch in branches if branch.role is not Role.DESCENT]
    found = by_link(without_dead_ends(shop.schema, left))
    assert (2, "orders.agent_id->agents.agent_id") not in found
    assert (2, "orders.campaign_id->campaigns.campaign_id") in found
    assert not informative(shop.schema, "agents")
    assert informative(shop.schema, "orders")


DESK = """
version: 1
name: desk
tables:
  accounts:
    primary_key: {account_id: integer}
    columns: {city: categorical}
  users:
    primary_key: {user_id: integer}
    columns: {role: categorical}
    links: {account_id: accounts}
  tickets:
    primary_key: {ticket_id: integer}
    time_column: at
    columns: {escalated: {kind: boolean, outcome: true}}
    links: {account_id: accounts, user_id: users}
"""


def test_what_is_named_twice_is_followed_once(plant: Callable) -> None:
    """A ticket names its account and its user, and the user the account: no second way to the same rows."""
    rows = [("users", n, None, {"role": "r", "account_id": n // 3}) for n in range(30)]
    rows += [("tickets", n, NOW_US + n, {"account_id": n % 30 // 3, "user_id": n % 30}) for n in range(600)]
    view = plant(DESK, rows)
    row = np.arange(500, 600)
    examples = Examples(row, NOW_US + row, NOW_US + row - 1, NOW_US + row, np.zeros(100, dtype=np.float32))
    event = Target(Kind.BINARY, "tickets", event_level=True, column="escalated")
    found = by_link(grow(view, event, examples, most=64))
    back = found[2, "users.account_id->accounts.account_id"]
    assert (back.wanted, back.degrees.fresh) == (0, 0)
    assert found[2, "users.user_id->tickets.user_id"].wanted > 0
    everyone = Examples(np.arange(10), *(np.full(10, NOW_US + 600),) * 3, np.zeros(10, dtype=np.float32))
    entity = Target(Kind.BINARY, "accounts", event_level=False, horizon_us=DAY_US)
    found = by_link(grow(view, entity, everyone, most=64))
    twice = found[2, "users.user_id->tickets.user_id"]
    assert (twice.wanted, twice.why) == (0, "off: the same table is followed from nearer")
    # The account's users are there already, but which ticket is whose is said by the link.
    assert found[2, "tickets.user_id->users.user_id"].wanted == 1
