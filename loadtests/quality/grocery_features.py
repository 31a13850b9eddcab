"""What a data scientist would know of a household as of a time, in SQL: about 130 columns, none from the future.

history files ─► questions (household, t) ─► one query per group of columns, each with `time <= t` ─► features
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
from boosting import anchors

WINDOWS = (7, 14, 30, 60, 90, 400)
HALF_LIVES = (7, 21, 60, 150)
HORIZON = 30
ACTIVE = 90
LINES_FROM = "transactions l join questions q on l.household_id = q.household_id and l.transaction_timestamp <= q.t"


def questions(database: duckdb.DuckDBPyConnection, first: date) -> None:
    """Make the table of questions: household, t, spend and churn in (t, t+30 days], if active in (t-90 days, t]."""
    asked = anchors("select max(transaction_timestamp) from transactions", HORIZON, first)
    database.execute(f"""
        create table questions as
        with asked as ({asked}),
        counted as (
          select household_id, t,
            count(*) filter (transaction_timestamp > t - to_days({ACTIVE}) and transaction_timestamp <= t) as active,
            count(*) filter (transaction_timestamp > t and transaction_timestamp <= t + to_days({HORIZON})) as lines,
            sum(sales_value) filter (
              transaction_timestamp > t and transaction_timestamp <= t + to_days({HORIZON})) as spend
          from asked cross join transactions group by household_id, t)
        select row_number() over (order by t, household_id) - 1 as question, household_id, t,
          coalesce(spend, 0) as spend, (lines = 0)::int as churn
        from counted where active > 0""")


def _windows() -> str:
    columns = []
    for days in WINDOWS:
        recent = f"filter (age < {days})"
        columns += [
            f"count(*) {recent} as lines_{days}",
            f"count(distinct basket_id) {recent} as baskets_{days}",
            f"coalesce(sum(sales_value) {recent}, 0) as spend_{days}",
            f"coalesce(sum(retail_disc) {recent}, 0) as discount_{days}",
            f"count(distinct product_category) {recent} as categories_{days}",
            f"count(distinct store_id) {recent} as stores_{days}",
            f"max(sales_value) {recent} as largest_{days}",
        ]
    for days in HALF_LIVES:
        columns += [
            f"sum(sales_value * exp(-0.693147 * age / {days})) as decayed_spend_{days}",
            f"sum(exp(-0.693147 * age / {days})) as decayed_lines_{days}",
        ]
    for lag in range(1, 7):
        past = f"filter (age >= {30 * lag} and age < {30 * lag + 30})"
        columns += [f"coalesce(sum(sales_value) {past}, 0) as lag_spend_{lag}", f"count(*) {past} as lag_lines_{lag}"]
    return ", ".join(columns)


def _lines_query() -> str:
    """Sums over windows, decayed sums, past labels, habits."""
    return f"""
        with lines as (
          select question, l.*, p.department, p.product_category, p.brand,
            epoch(q.t - transaction_timestamp) / 86400 as age
          from {LINES_FROM} left join products p using (product_id))
        select question, {_windows()},
          min(age) as recency, max(age) as tenure, count(*) / greatest(max(age), 1) as lines_a_day,
          sum(sales_value) / greatest(max(age), 30) as spend_a_day,
          avg(sales_value) as mean_line, stddev(sales_value) as spread_line, avg(quantity) as mean_quantity,
          max(quantity) as max_quantity, avg((brand = 'Private')::int) as private_share,
          avg(coupon_disc) as coupon_discount, avg((retail_disc > 0)::int) as discounted_share,
          avg(hour(transaction_timestamp - interval 5 hour)) as hour,
          avg((isodow(transaction_timestamp - interval 5 hour) >= 6)::int) as weekend_share,
          mode(store_id) as main_store, arg_min(store_id, age) as last_store, mode(department) as main_department,
          arg_min(department, age) as last_department, arg_min(product_category, age) as last_category,
          arg_min(sales_value, age) as last_value
        from lines group by question"""


def _gaps_query() -> str:
    """The household's rhythm: days between baskets, and how overdue it is."""
    since = ", ".join(
        f"max(epoch(t - bought_at) / 86400) filter (back = {k}) as since_{k}" for k in (2, 3, 4, 5, 8, 12)
    )
    return f"""
        with baskets as (
          select question, q.t, basket_id, max(transaction_timestamp) as bought_at, sum(sales_value) as value
          from {LINES_FROM} group by all),
        gaps as (
          select *, epoch(bought_at - lag(bought_at) over w) / 86400 as gap, row_number() over (w_back) as back
          from baskets window w as (partition by question order by bought_at, basket_id),
            w_back as (partition by question order by bought_at desc, basket_id desc))
        select question, avg(gap) as mean_gap, median(gap) as median_gap, stddev(gap) as spread_gap,
          max(gap) as max_gap,
          avg(gap) filter (back <= 3) as recent_gap, avg(gap) filter (back <= 6) as recent_gap_6,
          epoch(any_value(t) - max(bought_at)) / 86400 / nullif(avg(gap), 0) as overdue,
          epoch(any_value(t) - max(bought_at)) / 86400 / nullif(median(gap), 0) as overdue_median,
          avg(value) as mean_basket, stddev(value) as spread_basket, median(value) as median_basket,
          avg(value) filter (back <= 3) as recent_basket, avg(value) filter (back <= 8) as recent_basket_8,
          {since}
        from gaps group by question"""


def _departments_query(departments: Sequence[str]) -> str:
    """How much of the money went to the largest departments, and how lately."""
    columns = []
    for index, name in enumerate(departments):
        chosen = f"filter (department = '{name}')"
        columns += [
            f"coalesce(sum(sales_value) {chosen}, 0) / nullif(sum(sales_value), 0) as share_{index}",
            f"min(epoch(q.t - transaction_timestamp)) {chosen} / 86400 as since_department_{index}",
        ]
    return f"""
        select question, {", ".join(columns)}, count(distinct department) as departments
        from {LINES_FROM} left join products p using (product_id) group by question"""


_COUPONS_QUERY = """
    select question,
      count(redemption_date) filter (redemption_date > t - to_days(30)) as redeemed_30,
      count(redemption_date) filter (redemption_date > t - to_days(90)) as redeemed_90,
      count(redemption_date) as redeemed, min(epoch(t - redemption_date)) / 86400 as since_redeemed
    from questions q left join coupon_redemptions r on r.household_id = q.household_id and r.redemption_date <= q.t
    group by question"""

_CAMPAIGNS_QUERY = """
    select question, count(c.campaign_id) as campaigns,
      count(*) filter (c.end_date > t) as running,
      count(*) filter (c.end_date > t and campaign_type = 'Type A') as running_a,
      max(epoch(c.end_date - t)) / 86400 as runs_until, min(epoch(t - c.start_date)) / 86400 as since_campaign
    from questions q left join campaign_households h on h.household_id = q.household_id and h.start_date <= q.t
      left join campaigns c on c.campaign_id = h.campaign_id
    group by question"""

_HOUSEHOLDS_QUERY = """
    select question, age, income, home_ownership, marital_status, household_size, household_comp, kids_count,
      epoch(t - timestamp '2017-01-01') / 86400 as day, month(t) as month
    from questions left join households using (household_id)"""

_STORES_QUERY = """
    with main as (
      select question, q.t, mode(store_id) as store
      from transactions l join questions q on l.household_id = q.household_id and l.transaction_timestamp <= q.t
      group by question, q.t),
    asked as (select distinct t, store from main),
    stores as (
      select a.t, a.store, sum(sales_value) as store_spend_30, count(distinct household_id) as store_households_30
      from asked a join transactions l
        on l.store_id = a.store and l.transaction_timestamp <= a.t and l.transaction_timestamp > a.t - to_days(30)
      group by a.t, a.store)
    select question, store_spend_30, store_households_30, store_spend_30 / store_households_30 as store_spend_each
    from main left join stores using (t, store)"""


def features(database: duckdb.DuckDBPyConnection) -> tuple[npt.NDArray[np.float64], list[str], list[int]]:
    """The features of all questions in their order [N, F], their names, and which are codes of categories."""
    departments = [
        row[0]
        for row in database.execute("""
          select department from transactions join products using (product_id)
          where transaction_timestamp < timestamp '2017-03-01' group by 1 order by sum(sales_value) desc limit 12
        """).fetchall()
    ]
    queries = [_lines_query(), _gaps_query(), _departments_query(departments)]
    queries += [_COUPONS_QUERY, _CAMPAIGNS_QUERY, _HOUSEHOLDS_QUERY, _STORES_QUERY]
    columns: list[npt.NDArray[np.float64]] = []
    names: list[str] = []
    categorical: list[int] = []
    for query in queries:
        found = database.execute(
            f"select f.* exclude (question) from questions left join ({query}) f using (question) order by question"
        ).fetchnumpy()
        for name, column in found.items():
            if column.dtype == object or column.dtype.kind in "US":
                categorical.append(len(names))
                columns.append(codes(column))
            else:
                columns.append(np.ma.filled(np.ma.asarray(column).astype(np.float64), np.nan))
            names.append(name)
    return np.column_stack(columns), names, categorical


def codes(values: npt.NDArray[np.object_]) -> npt.NDArray[np.float64]:
    """Texts as small numbers, NaN where there is none."""
    texts = ["" if value is None or value is np.ma.masked else str(value) for value in np.ma.filled(values, None)]
    _, found = np.unique(texts, return_inverse=True)
    return np.where(np.array(texts) == "", np.nan, found.astype(np.float64))


def load(database: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Make views of the history files that `examples/grocery/prepare.py` wrote."""
    tables = "households products transactions campaigns campaign_households coupon_redemptions"
    for table in tables.split():
        database.execute(f"create table {table} as select * from '{folder / table}.parquet'")
