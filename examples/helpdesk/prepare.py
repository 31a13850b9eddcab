"""Simulates a software service and its helpdesk, from a seed: the history files, and the truth beside them.

    agents' form ─┐                       accounts' habits ─┐
    releases     ─┼─► escalated tickets ─►  fewer sessions ─┴─► OUT/*.parquet, OUT/truth/*.parquet
    temper, words ┘     (known days later)

What drives the outcomes is in no column: an agent's form drifts over weeks, an account has a temper, a major release
makes its component's tickets burn for days, an escalated ticket keeps its account away. Past outcomes tell of them.
`truth/` has the probability and the expectation the outcomes were drawn with: the ceiling that no model passes.

Usage: python examples/helpdesk/prepare.py out/ [--seed 7] [--accounts 600]
"""

from __future__ import annotations

import argparse
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

START = np.datetime64(datetime(2023, 1, 1), "us")
DAYS = 547
DAY_US = 86_400_000_000
AGENTS = 36
COMPONENTS = (
    "search",
    "billing",
    "reports",
    "login",
    "import",
    "export",
    "mobile",
    "mail",
    "graphs",
    "roles",
    "backup",
)
LATE_COMPONENT_DAY = 440
"""The last component is launched then: no training split of the tasks has a ticket about it."""
PLANS = {"free": (0.0, 0.6), "team": (29.0, 1.0), "business": (99.0, 1.5), "enterprise": (499.0, 2.0)}
"""Monthly price, and how much more its users do."""
INDUSTRIES = ("retail", "health", "transport", "education", "media", "public", "energy", "finance")
COUNTRIES = ("AT", "BR", "CA", "DE", "FR", "IN", "JP", "NL", "PL", "SE", "US", "ZA")
TAGS = {"slow": 0.3, "data_loss": 1.0, "question": -0.9, "invoice": 0.2, "access": 0.0, "layout": -0.3, "crash": 0.7}
WORDS = {
    "outage": 0.9,
    "broken": 0.5,
    "again": 0.4,
    "wrong": 0.2,
    "missing": 0.2,
    "change": -0.2,
    "how": -0.6,
    "idea": -0.9,
}
PRIORITIES = {"low": -0.4, "normal": 0.0, "high": 0.5, "urgent": 0.9}
MAJOR_DAYS, MAJOR_EFFECT = 5.0, 2.0
AWAY_DAYS, AWAY_EFFECT = 15.0, 1.2
BASE_LOGIT = -3.1

Floats = npt.NDArray[np.float64]
Columns = dict[str, Any]


class World:
    """What is hidden, and the rows it leaves behind; `tables` maps a file to its columns."""

    def __init__(self, seed: int, accounts: int) -> None:
        self.random = random = np.random.default_rng(seed)
        self.tables: dict[str, Columns] = {}
        self.codes = np.array([f"A-{number:05}" for number in range(accounts)])
        self.temper = random.normal(0, 0.7, accounts)
        self.employees = np.exp(random.normal(3, 1.2, accounts)).round() + 1
        self.signed_up = np.sort(np.where(random.random(accounts) < 0.5, 0, random.uniform(0, DAYS, accounts)))
        self.plan = random.choice(len(PLANS), accounts, p=[0.3, 0.4, 0.2, 0.1])
        self.users = np.minimum(1 + random.poisson(0.8 * np.sqrt(self.employees)), 15)
        self.irritable = random.normal(0, 0.5, (accounts, self.users.max()))
        self.habit = random.normal(0, 0.8, accounts)
        self.mood = random.normal(0, 0.6, accounts)
        self.away = np.zeros(accounts)
        self.form = random.normal(0, 1, AGENTS)
        self.heat = np.zeros(len(COMPONENTS))
        self.likes = random.dirichlet(np.full(len(COMPONENTS), 0.7), accounts)
        self.pending: list[tuple[float, int]] = []
        self._write_static()

    def at(self, days: npt.ArrayLike) -> npt.NDArray[np.datetime64]:
        """Days since the start, as times; the microsecond floored."""
        return START + (np.asarray(days, np.float64) * DAY_US).astype(np.int64).astype("timedelta64[us]")

    def names(self, accounts: npt.ArrayLike) -> npt.NDArray[np.str_]:
        """The codes of accounts."""
        found: npt.NDArray[np.str_] = self.codes[np.asarray(accounts)]
        return found

    def _write_static(self) -> None:
        random, count = self.random, len(self.temper)
        features = ("api", "sso", "audit", "export", "sandbox")
        self.tables["plans"] = {
            "plan_code": list(PLANS),
            "monthly_price": [price for price, _ in PLANS.values()],
            "features": [list(features[: index + 1]) for index in range(len(PLANS))],
            "phone_support": [price > 50 for price, _ in PLANS.values()],
        }
        self.industry = random.integers(0, len(INDUSTRIES), count)
        referrer = np.where(random.random(count) < 0.3, random.integers(0, np.maximum(np.arange(count), 1)), -1)
        self.tables["accounts"] = {
            "account_code": self.names(np.arange(count)),
            "signed_up": self.at(self.signed_up),
            "industry": optional(np.array(INDUSTRIES)[self.industry], random.random(count) < 0.8),
            "country": np.array(COUNTRIES)[random.integers(0, len(COUNTRIES), count)],
            "employees": optional(self.employees, random.random(count) < 0.7),
            "newsletter": random.random(count) < 0.4,
            "about": [
                f"{INDUSTRIES[i]} with {int(n)} people" for i, n in zip(self.industry, self.employees, strict=True)
            ],
            "plan_code": np.array(list(PLANS))[self.plan],
            "referred_by": optional(self.names(referrer.clip(0)), (referrer >= 0) & (np.arange(count) > 0)),
        }
        account = np.repeat(np.arange(count), self.users)
        number = np.concatenate([np.arange(n) for n in self.users])
        invited = self.signed_up[account] + np.where(number == 0, 0, random.exponential(40, len(account)))
        self.invited = np.full(self.irritable.shape, np.inf)
        self.invited[account, number] = invited
        kept = np.flatnonzero(invited < DAYS)
        kept = kept[np.argsort(invited[kept], kind="stable")]
        trained = random.random(len(account)) < 0.5
        self.tables["users"] = {
            "account_code": self.names(account[kept]),
            "user_number": number[kept],
            "invited": self.at(invited[kept]),
            "role": np.where(number == 0, "owner", random.choice(["member", "guest", "admin"], len(account)))[kept],
            "last_training": optional(self.at(invited - random.exponential(200, len(account)))[kept], trained[kept]),
        }
        areas = ("core", "money", "data", "clients")
        self.tables["components"] = {
            "component": list(COMPONENTS),
            "area": [areas[index % len(areas)] for index in range(len(COMPONENTS))],
        }
        languages = np.array(["en", "de", "fr", "pt", "ja"])
        self.tables["agents"] = {
            "agent_id": np.arange(100, 100 + AGENTS),
            "team": np.array(["day", "night", "phone"])[np.arange(AGENTS) % 3],
            "languages": [list(languages[: 1 + random.integers(0, 4)]) for _ in range(AGENTS)],
            "hired": self.at(-random.uniform(30, 3000, AGENTS)),
        }

    def run(self) -> None:
        """Live through all days."""
        logs: dict[str, list[Columns]] = {"releases": [], "sessions": [], "tickets": [], "truth/usage": []}
        for day in range(DAYS):
            for name, rows in self._day(day).items():
                logs[name].append(rows)
        for name, days in logs.items():
            self.tables[name] = {key: np.concatenate([rows[key] for rows in days]) for key in days[0]}
        tickets = self.tables["tickets"]
        tickets["ticket_id"] = 500_000 + np.arange(len(tickets["opened"]))
        tickets["tags"] = [str(tags).split() for tags in tickets["tags"]]
        closed = {name: tickets.pop(name) for name in ("closed", "escalated", "minutes_spent")}
        order = np.argsort(closed["closed"], kind="stable")
        order = order[closed["closed"][order] < self.at(DAYS)]
        ids = tickets["ticket_id"]
        self.tables["closed_tickets"] = {
            "ticket_id": ids[order],
            **{key: value[order] for key, value in closed.items()},
        }
        self.tables["truth/escalation"] = {"ticket_id": ids, "probability": tickets.pop("probability"), **closed}
        for name in ("sessions", "tickets"):
            rows = self.tables[name]
            order = np.argsort(rows["started" if name == "sessions" else "opened"], kind="stable")
            self.tables[name] = {
                key: [value[i] for i in order] if isinstance(value, list) else value[order]
                for key, value in rows.items()
            }

    def _day(self, day: int) -> dict[str, Columns]:
        random = self.random
        self.form += -0.06 * self.form + random.normal(0, np.sqrt(0.12), AGENTS)
        self.mood += -0.03 * self.mood + random.normal(0, 0.6 * np.sqrt(0.06), len(self.mood))
        self.heat *= np.exp(-1 / MAJOR_DAYS)
        self.away *= np.exp(-1 / AWAY_DAYS)
        while self.pending and self.pending[0][0] <= day:
            self.away[self.pending.pop(0)[1]] = 1.0
        rows = {"releases": self._releases(day)}
        live = np.flatnonzero(self.signed_up < day)
        rows["sessions"], rows["truth/usage"] = self._sessions(day, live)
        rows["tickets"] = self._tickets(day, live)
        return rows

    def _releases(self, day: int) -> Columns:
        random = self.random
        found = np.flatnonzero(random.random(len(COMPONENTS)) < 0.05)
        found = found[(found < len(COMPONENTS) - 1) | (day > LATE_COMPONENT_DAY)]
        major = random.random(len(found)) < 0.35
        self.heat[found[major]] = 1.0
        return {
            "component": np.array(COMPONENTS)[found],
            "version": np.array([f"{1 + day // 90}.{day % 90}" for _ in found], dtype="U8"),
            "released": self.at(day + np.linspace(0, 0.01, len(found))),
            "kind": np.where(major, "major", "minor"),
            "changed_lines": np.exp(random.normal(np.where(major, 7, 5), 1)).round(),
        }

    def _sessions(self, day: int, live: npt.NDArray[np.int64]) -> tuple[Columns, Columns]:
        """Each user of an account may have one session a day, by the account's habit, mood, plan and grudge."""
        random = self.random
        weekend = (day + 6) % 7 >= 5  # 2023-01-01 was a Sunday
        factor = np.array([more for _, more in PLANS.values()])[self.plan[live]]
        level = self.habit[live] + self.mood[live] - AWAY_EFFECT * self.away[live] - (1.5 if weekend else 0.0)
        chance = 1 / (1 + np.exp(2.2 - level))
        there = (self.invited[live] < day).sum(axis=1)
        minutes = 18 * factor * np.exp(0.3 * level)
        count = random.binomial(there, chance)
        account = np.repeat(live, count)
        n = len(account)
        started = day + np.sort(random.uniform(0.25, 0.9, n))
        spent = random.gamma(2.0, np.repeat(minutes, count) / 2.0)
        user = (random.random(n) * np.repeat(there, count)).astype(np.int64)
        component = choices(random, self._likes(day)[account])
        rows = {
            "account_code": self.names(account),
            "user_number": np.argsort(self.invited[account], axis=1)[np.arange(n), user],
            "component": np.array(COMPONENTS)[component],
            "started": self.at(started),
            "minutes": spent.round(1),
            "device": random.choice(["desktop", "phone", "tablet"], n, p=[0.7, 0.2, 0.1]),
        }
        truth = {
            "account_code": self.names(live),
            "day": self.at(np.full(len(live), day)),
            "expected": there * chance * minutes,
        }
        return rows, truth

    def _tickets(self, day: int, live: npt.NDArray[np.int64]) -> Columns:
        random = self.random
        count = random.poisson(0.025 * self.employees[live] ** 0.35 * (1 + 0.5 * (self.habit[live] > 0)))
        account = random.permutation(np.repeat(live, count))
        n = len(account)
        opened = day + np.sort(random.uniform(0.2, 0.95, n))
        likes = self._likes(day)[account] * (1 + 3 * self.heat)
        component = choices(random, likes / likes.sum(axis=1, keepdims=True))
        agent = random.integers(0, AGENTS // 2, n) + np.where(component % 2, AGENTS // 2, 0)
        invited = self.invited[account] < day
        user = (random.random(n) * invited.sum(axis=1)).astype(np.int64)
        user = np.argsort(self.invited[account], axis=1)[np.arange(n), user]
        known = random.random(n) < 0.93  # the others wrote a mail
        words = random.integers(0, len(WORDS), (n, 2))
        tags = random.random((n, len(TAGS))) < 0.2
        priority = random.choice(len(PRIORITIES), n, p=[0.25, 0.5, 0.18, 0.07])
        logit = BASE_LOGIT + self.temper[account] + np.where(known, self.irritable[account, user], 0) + self.form[agent]
        logit += MAJOR_EFFECT * self.heat[component] + np.array(list(PRIORITIES.values()))[priority]
        logit += np.array(list(WORDS.values()))[words].sum(axis=1) + tags @ np.array(list(TAGS.values()))
        logit += 0.8 * self.away[account]
        probability = 1 / (1 + np.exp(-logit))
        escalated = random.random(n) < probability
        closed = opened + np.minimum(random.lognormal(0.7, 0.7, n), 12.0)
        self.pending = sorted(
            self.pending + [(c, int(a)) for c, a, e in zip(closed, account, escalated, strict=True) if e]
        )
        wait = np.array([3.0, 2.0, 1.0, 0.25])[priority] * random.uniform(0.8, 1.2, n)
        subjects = [
            f"{a} {COMPONENTS[c]} {b}" for (a, b), c in zip(np.array(list(WORDS))[words], component, strict=True)
        ]
        return {
            "account_code": self.names(account),
            "user_number": optional(user, known, as_list=False),
            "component": np.array(COMPONENTS)[component],
            "agent_id": agent + 100,
            "opened": self.at(opened),
            "priority": np.array(list(PRIORITIES))[priority],
            "subject": np.array(subjects, dtype="U60"),
            "tags": np.array([" ".join(np.array(list(TAGS))[row]) for row in tags], dtype="U60"),
            "answer_due": self.at(opened + wait),
            "closed": self.at(closed),
            "escalated": escalated,
            "minutes_spent": random.gamma(2.0, 20.0 * (1 + 2 * escalated)).round(),
            "probability": probability,
        }

    def _likes(self, day: int) -> Floats:
        likes = self.likes.copy()
        if day < LATE_COMPONENT_DAY:
            likes[:, -1] = 0
        shares: Floats = likes / likes.sum(axis=1, keepdims=True)
        return shares


def choices(random: np.random.Generator, chance: Floats) -> npt.NDArray[np.int64]:
    """One choice per row of [N, C] probabilities."""
    at = (random.random((len(chance), 1)) > np.cumsum(chance, axis=1)).sum(axis=1)
    found: npt.NDArray[np.int64] = np.minimum(at, chance.shape[1] - 1)
    return found


def optional(values: npt.NDArray[Any], there: npt.NDArray[np.bool_], *, as_list: bool = True) -> Any:
    """The values, None where they are not there."""
    found: Any = values.astype(object)
    found[~there] = None
    return found.tolist() if as_list else found


def main() -> None:
    """Simulates and writes all tables."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--accounts", type=int, default=600)
    arguments = parser.parse_args()
    world = World(arguments.seed, arguments.accounts)
    world.run()
    (arguments.output / "truth").mkdir(parents=True, exist_ok=True)
    for name, columns in world.tables.items():
        pq.write_table(
            pa.table({key: pa.array(value) for key, value in columns.items()}), arguments.output / f"{name}.parquet"
        )
    rows = sum(len(next(iter(columns.values()))) for name, columns in world.tables.items() if "/" not in name)
    print(f"{rows:,} rows in {arguments.output}")


if __name__ == "__main__":
    main()
