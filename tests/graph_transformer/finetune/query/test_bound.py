"""What a bound query says of its target and windows."""

from __future__ import annotations

from collections.abc import Callable

from graph_transformer.finetune.query import BoundQuery
from graph_transformer.finetune.query.bound import Role
from graph_transformer.finetune.query.syntax import Column, Unit, Window
from graph_transformer.target import Kind, Ranked, Target

Bind = Callable[[str], BoundQuery]
DAY_US = 86_400_000_000


def test_the_target_of_an_entity_has_its_task_table_and_horizon(bound: Bind) -> None:
    """The horizon is the end of the last window, that of ASSUMING included."""
    found = bound("PREDICT COUNT(orders.*, 2, 5) > 0 FOR EACH users.user_id ASSUMING COUNT(orders.*, 0, 1, weeks) > 0")
    assert found.target("churn") == Target(
        Kind.BINARY, "users", event_level=False, horizon_us=7 * DAY_US, task_table="churn"
    )


def test_the_target_of_a_row_has_its_column(bound: Bind) -> None:
    """No horizon, no task table: its outcome is a later version of the row itself."""
    found = bound("PREDICT orders.status FOR EACH orders.order_id")
    assert found.target("status", ("a", "b")) == Target(
        Kind.MULTICLASS, "orders", event_level=True, column="status", classes=("a", "b")
    )


def test_a_forecast_reaches_to_the_end_of_its_last_step(bound: Bind) -> None:
    """Three months ahead are at most 93 days; an assumption's window is not repeated."""
    found = bound(
        "PREDICT SUM(orders.price, 0, 1, months) FORECAST 3 TIMEFRAMES FOR EACH users.user_id "
        "ASSUMING COUNT(orders.*, 0, 40, days) > 0"
    )
    assert found.windows == (Window(0, 3, Unit.MONTHS), Window(0, 40, Unit.DAYS))
    assert (found.horizon_us, found.steps, found.target("spend").outputs) == (93 * DAY_US, 3, 21)


def test_a_ranking_says_what_it_orders_and_has_no_task_table(bound: Bind) -> None:
    """Items by the links that tie interactions to users and to them; what was bought is in the graph already."""
    found = bound("PREDICT LIST_DISTINCT(orders.item_id, 0, 1) RANK TOP 3 FOR EACH users.user_id")
    target = found.target("next")
    assert target.task_table is None
    assert target.ranked == Ranked("orders", "user_id", "item_id", "items", top=3)
    assert bound("PREDICT COUNT(orders.*, 0, 1) FOR EACH users.user_id").target("next").ranked is None


def test_names_keep_their_meaning(bound: Bind) -> None:
    """A cell, the time, a key and a link are told apart."""
    found = bound(
        "PREDICT COUNT(orders.* WHERE orders.price > 1 AND orders.at > 2024-01-01 AND orders.order_id > 1 "
        "AND orders.user_id = 3, 0, 1) FOR EACH users.user_id"
    )
    roles = {name: found.columns[Column("orders", name)].role for name in ("price", "at", "order_id", "user_id")}
    assert roles == {"price": Role.CELL, "at": Role.TIME, "order_id": Role.KEY, "user_id": Role.LINK}


def test_rank_top_of_values_is_explained(bound: Bind) -> None:
    """Values that are listed are classes, and the nearest list of rows is named; else there is nothing to say."""
    users = "FOR EACH users.user_id"
    listed = bound(f"PREDICT LIST_DISTINCT(orders.status, 0, 30) RANK TOP 5 {users}").top_note
    assert listed is not None
    assert listed.startswith("RANK TOP 5: orders.status is no link, so the task is multilabel")
    assert listed.endswith("Rows are ranked by LIST_DISTINCT(orders.item_id, ...).")
    of_row = bound("PREDICT orders.status RANK TOP 2 FOR EACH orders.order_id").top_note
    assert of_row is not None
    assert "the task is multiclass" in of_row
    assert "LIST_DISTINCT" not in of_row
    assert bound(f"PREDICT LIST_DISTINCT(orders.item_id, 0, 30) RANK TOP 5 {users}").top_note is None
    assert bound(f"PREDICT LIST_DISTINCT(orders.status, 0, 30) {users}").top_note is None
