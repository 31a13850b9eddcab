"""The floors of the helpdesk example, on its tasks' own questions, and the ceiling its generator knows.

LightGBM twice for tickets: on the raw columns of the row asked, and with features of the past made by hand.

Usage: python loadtests/quality/helpdesk_floor.py HISTORY_FOLDER [--json out.json] [--draws 20] [--seeds 5]
"""

from __future__ import annotations

import argparse
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from boosting import (
    EXAMPLES,
    Figures,
    Part,
    anchors,
    binary_figures,
    boosted,
    measured,
    number_figures,
    report,
    splits_of,
    within,
    write,
)
from grocery_features import codes

TICKETS = splits_of(EXAMPLES / "helpdesk" / "escalation.yaml")
USAGE = splits_of(EXAMPLES / "helpdesk" / "usage.yaml")
NEVER = np.datetime64("2025-01-01")
TABLES = ("plans", "accounts", "users", "releases", "agents", "sessions", "tickets", "closed_tickets")
WORDS = """select distinct unnest(string_split(subject, ' ')) from tickets where opened < timestamp '2023-06-01'"""
TAGS = """select distinct unnest(tags) from tickets where opened < timestamp '2023-06-01'"""

RAW = """
    select t.ticket_id, priority, t.component, agent_id::varchar as agent, team, industry, country, employees,
      newsletter::int as newsletter, plan_code, role, epoch(answer_due - t.opened) / 3600 as due, len(tags) as tags,
      hour(t.opened) as hour, isodow(t.opened) as weekday, epoch(t.opened - signed_up) / 86400 as account_days,
      epoch(t.opened - hired) / 86400 as agent_days, epoch(t.opened - last_training) / 86400 as training_days,
      epoch(t.opened - invited) / 86400 as user_days, t.user_number is null as mail, {words}
    from tickets t join accounts using (account_code) join agents using (agent_id)
      left join users u on u.account_code = t.account_code and u.user_number = t.user_number order by ticket_id"""


def known_outcomes(who: str, columns: tuple[str, ...]) -> str:
    """Features of the outcomes of `columns`' earlier tickets that were known when a ticket was opened."""
    same = " and ".join(f"p.{column} = t.{column}" for column in columns)
    rates = []
    for days in (3, 7, 14, 30, 90, 600):
        recent = f"filter (p.opened > t.opened - to_days({days}))"
        rates += [
            f"count(p.escalated) {recent} as {who}_known_{days}",
            f"avg(p.escalated::int) {recent} as {who}_rate_{days}",
        ]
    for days in (5, 20, 60):
        weight = f"exp(-epoch(t.opened - p.opened) / 86400 / {days})"
        rates.append(f"(sum(p.escalated::int * {weight}) + 0.17) / (sum({weight}) + 1) as {who}_decayed_{days}")
    return f"""
        select t.ticket_id, {", ".join(rates)}, arg_max(p.escalated::int, p.closed) as {who}_last,
          min(epoch(t.opened - p.closed)) filter (p.escalated) / 86400 as {who}_since_escalated,
          avg(p.minutes_spent) as {who}_minutes,
          avg(p.minutes_spent) filter (p.opened > t.opened - to_days(14)) as {who}_minutes_14
        from tickets t left join known p on {same} and p.closed < t.opened group by t.ticket_id order by t.ticket_id"""


BUSY = """
    select t.ticket_id, count(p.ticket_id) filter (p.opened > t.opened - to_days(1)) as component_tickets_1,
      count(p.ticket_id) filter (p.opened > t.opened - to_days(3)) as component_tickets_3,
      count(p.ticket_id) as component_tickets_14,
      count(p.ticket_id) filter (p.account_code = t.account_code) as account_tickets_14
    from tickets t left join tickets p
      on p.component = t.component and p.opened < t.opened and p.opened > t.opened - to_days(14)
    group by t.ticket_id order by t.ticket_id"""

RELEASES = """
    select t.ticket_id, min(epoch(t.opened - released)) / 86400 as release_days,
      min(epoch(t.opened - released)) filter (kind = 'major') / 86400 as major_days,
      arg_max(kind = 'major', released)::int as last_major, arg_max(changed_lines, released) as last_changed
    from tickets t left join releases r on r.component = t.component and r.released < t.opened
    group by t.ticket_id order by t.ticket_id"""

SESSIONS = """
    select t.ticket_id, count(minutes) as sessions_30, sum(minutes) as minutes_30,
      sum(minutes) filter (started > opened - to_days(7)) as minutes_7
    from tickets t left join sessions s
      on s.account_code = t.account_code and s.started < t.opened and s.started > t.opened - to_days(30)
    group by t.ticket_id order by t.ticket_id"""

QUESTIONS = f"""
    create table questions as
    with asked as ({anchors("select max(started) from sessions", 14, USAGE["train"][0])})
    select row_number() over (order by t, account_code) - 1 as question, account_code, t,
      count(minutes) filter (started > t - to_days(30) and started <= t) as active,
      coalesce(sum(minutes) filter (started > t and started <= t + to_days(14)), 0) as label
    from asked cross join accounts join sessions using (account_code) group by account_code, t having active > 0"""


def usage_features() -> list[str]:
    """The SQL of what is known of an account as of a time."""
    columns = []
    for days in (2, 7, 14, 28, 60, 120, 600):
        recent = f"filter (age < {days})"
        columns += [
            f"count(*) {recent} as sessions_{days}",
            f"coalesce(sum(minutes) {recent}, 0) as minutes_{days}",
            f"count(distinct user_number) {recent} as users_{days}",
            f"count(distinct started::date) {recent} as days_{days}",
            f"avg(minutes) {recent} as mean_{days}",
        ]
    for days in (5, 15, 40, 120):
        columns.append(f"sum(minutes * exp(-age / {days})) / {days} as decayed_{days}")
    for lag in range(1, 7):
        columns.append(f"coalesce(sum(minutes) filter (age >= {14 * lag} and age < {14 * lag + 14}), 0) as lag_{lag}")
    past = f"""
        select question, {", ".join(columns)}, min(age) as recency, max(age) as tenure,
          avg((device = 'phone')::int) as phone_share, mode(component) as main_component
        from (
          select question, s.*, epoch(t - started) / 86400 as age
          from questions q join sessions s on s.account_code = q.account_code and s.started <= t)
        group by question order by question"""
    account = """
        select question, industry, country, employees, plan_code, newsletter::int as newsletter,
          epoch(any_value(t) - any_value(signed_up)) / 86400 as account_days, count(invited) as invited,
          count(*) filter (invited > t - to_days(30)) as new_users
        from questions join accounts using (account_code)
          left join users u on u.account_code = questions.account_code and u.invited <= t
        group by all order by question"""
    tickets = """
        select question, count(p.ticket_id) as tickets, count(*) filter (p.escalated) as escalated,
          min(epoch(t - p.closed)) filter (p.escalated) / 86400 as since_escalated,
          sum(exp(-epoch(t - p.closed) / 86400 / 15)) filter (p.escalated) as away,
          count(*) filter (p.escalated and p.closed > t - to_days(14)) as escalated_14
        from questions q left join known p on p.account_code = q.account_code and p.closed <= t
        group by question order by question"""
    waiting = """
        select question, count(p.ticket_id) as opened_14, count(*) filter (p.closed > t) as waiting,
          count(*) filter (p.closed > t and p.priority in ('high', 'urgent')) as waiting_high
        from questions q left join known p
          on p.account_code = q.account_code and p.opened <= t and p.opened > t - to_days(14)
        group by question order by question"""
    return [past, account, tickets, waiting]


class Columns:
    """Columns gathered from queries that answer in the same order; the first column of each is the question's."""

    def __init__(self, database: duckdb.DuckDBPyConnection, *queries: str) -> None:
        self.names: list[str] = []
        self.categorical: list[int] = []
        columns = []
        for query in queries:
            for name, column in list(database.execute(query).fetchnumpy().items())[1:]:
                if column.dtype == object or column.dtype.kind in "US":
                    self.categorical.append(len(self.names))
                    columns.append(codes(column))
                else:
                    columns.append(np.ma.filled(np.ma.asarray(column).astype(np.float64), np.nan))
                self.names.append(name)
        self.values = np.column_stack(columns)

    def parts(self, label: Any, times: Any, splits: dict[str, tuple[date, date]]) -> dict[str, Part]:
        """The questions of each split."""
        chosen = {name: within(times, interval) for name, interval in splits.items()}
        return {name: Part(self.values[rows], label[rows]) for name, rows in chosen.items()}


def load(database: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Make tables of the history files, and of the truth."""
    for table in TABLES:
        database.execute(f"create table {table} as select * from '{folder / table}.parquet'")
    for table in ("escalation", "usage"):
        database.execute(f"create table true_{table} as select * from '{folder / 'truth' / table}.parquet'")
    database.execute("create table known as select * from tickets join closed_tickets using (ticket_id)")


def escalation(database: duckdb.DuckDBPyConnection, budget: dict[str, int], content: dict[str, Any]) -> Figures:
    """Floors and ceiling of escalation.yaml."""
    truth = database.execute(
        "select * from tickets join true_escalation using (ticket_id) order by ticket_id"
    ).fetchnumpy()
    label = truth["escalated"].astype(np.float64)
    # Tickets that are still open when the history ends have no known outcome: nobody is measured on them.
    times = np.where(truth["closed"] < np.datetime64(TICKETS["test"][1]), truth["opened"], NEVER)
    test, refit = within(times, TICKETS["test"]), within(times, TICKETS["refit"])
    words = [f"contains(subject, '{word}')::int as word_{word}" for (word,) in database.execute(WORDS).fetchall()]
    words += [f"list_contains(tags, '{tag}')::int as tag_{tag}" for (tag,) in database.execute(TAGS).fetchall()]
    raw = RAW.format(words=", ".join(words))
    past = [known_outcomes("agent", ("agent_id",)), known_outcomes("account", ("account_code",))]
    past += [known_outcomes("user", ("account_code", "user_number")), known_outcomes("component", ("component",))]
    past += [BUSY, RELEASES, SESSIONS]
    rows: Figures = {"constant": measured(binary_figures, label[test], [np.full(test.sum(), label[refit].mean())])}
    for who, queries in (("LightGBM, raw columns", [raw]), ("LightGBM, hand features", [raw, *past])):
        columns = Columns(database, *queries)
        if len(queries) > 1:
            last = np.nan_to_num(columns.values[test, columns.names.index("account_last")], nan=label[refit].mean())
            rows["last value (account)"] = measured(binary_figures, label[test], [last])
        tuned, runs = boosted("binary", columns.parts(label, times, TICKETS), columns.categorical, **budget)
        rows[f"{who} ({len(columns.names)})"] = measured(binary_figures, label[test], runs)
        content[who] = tuned.parameters | {"rounds": tuned.rounds, "validation": tuned.loss}
    rows["ceiling: the true probability"] = measured(binary_figures, label[test], [truth["probability"][test]])
    return rows


def usage(database: duckdb.DuckDBPyConnection, budget: dict[str, int], content: dict[str, Any]) -> Figures:
    """Floors and ceiling of usage.yaml."""
    database.execute(QUESTIONS)
    asked = database.execute("""
        select question, t, label, coalesce(sum(expected), 0) as expected from questions q
          left join true_usage u on u.account_code = q.account_code and day >= t and day < t + to_days(14)
        group by all order by question""").fetchnumpy()
    label, test = asked["label"].astype(np.float64), within(asked["t"], USAGE["test"])
    columns = Columns(database, *usage_features())
    parts = columns.parts(label, asked["t"], USAGE)
    last = columns.values[test, columns.names.index("minutes_14")]
    rows: Figures = {
        "constant (median)": measured(
            number_figures, label[test], [np.full(test.sum(), np.median(parts["refit"].label))]
        ),
        "last value": measured(number_figures, label[test], [last]),
    }
    for objective in ("l1", "l2", "tweedie"):
        tuned, runs = boosted(objective, parts, columns.categorical, **budget)
        rows[f"LightGBM {objective} ({len(columns.names)})"] = measured(number_figures, label[test], runs)
        content[f"usage {objective}"] = tuned.parameters | {"rounds": tuned.rounds, "validation": tuned.loss}
    rows["ceiling: the true expectation"] = measured(
        number_figures, label[test], [asked["expected"][test].astype(float)]
    )
    content["questions"] = {name: len(part.label) for name, part in parts.items()}
    return rows


def main() -> None:
    """Measures and prints floors and ceilings."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("history", type=Path, help="what examples/helpdesk/prepare.py wrote")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    budget = {"draws": arguments.draws, "seeds": arguments.seeds}
    content: dict[str, Any] = {}
    with duckdb.connect(config={"threads": 1}) as database:
        load(database, arguments.history)
        for title, measure in (("ticket is escalated", escalation), ("minutes of the next 14 days", usage)):
            content[title] = measure(database, budget, content)
            report(title, content[title])
    if arguments.json is not None:
        write(arguments.json, content)


if __name__ == "__main__":
    main()
