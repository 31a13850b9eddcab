"""Simulated card payments with three kinds of fraud: settings -> customers, terminals -> payments -> frauds -> Parquet.

Written from the description of the simulator in the Fraud Detection Handbook (Le Borgne, Siblini, Lebichot and
Bontempi, "Reproducible Machine Learning for Credit Card Fraud Detection", 2022, chapter 3, "Transaction data
simulator"): customers and terminals live on a plane of 100 by 100; a customer has a mean amount and a daily rate and
pays only at terminals within a radius of home. Three scenarios add fraud, in this order, a later one on top of an
earlier one:

1. every amount above 220 is a fraud (a check that a model sees the amount at all);
2. every day some terminals are taken over, and for 28 days all of their payments are frauds (phishing);
3. every day the card details of some customers leak, and for 14 days a third of their payments are frauds at five times
   the amount (card not present).

Whether a payment was a fraud is known seven days after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]

DAY_US = 86_400_000_000
_PLANE = 100.0
_FRAUD_AMOUNT = 220.0
_TERMINAL_DAYS = 28
_CUSTOMER_DAYS = 14
_LEAKED_SHARE = 1 / 3
_LEAKED_FACTOR = 5.0
# Payments are spread over the day by a bell curve around noon, this wide; what falls outside the day is drawn away.
_TIME_OF_DAY_SD_S = 20_000.0
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class GeneratorSettings:
    """How much to simulate; the defaults give the Handbook's proportions at its size (about 1.75 million payments)."""

    customers: int = 5_000
    terminals: int = 10_000
    days: int = 183
    start: datetime = datetime(2018, 4, 1, tzinfo=UTC)
    radius: float = 5.0
    terminals_taken_per_day: int = 2
    customers_leaked_per_day: int = 3
    label_delay_days: int = 7
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("customers", "terminals", "days"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, found {getattr(self, name)}")
        if self.radius <= 0:
            raise ValueError(f"radius: expected more than 0, found {self.radius}")
        if self.start.tzinfo is None:
            raise ValueError("start: expected a time with a zone, found one without")


@dataclass(frozen=True, slots=True)
class Payments:
    """Payments in the order of their time, as columns of one length N.

    ``transaction_id``, ``customer_id``, ``terminal_id`` int64; ``event_time_us``, ``known_at_us`` int64 microseconds
    UTC (known_at: when ``tx_fraud`` became known); ``tx_amount`` float64 with two decimals; ``tx_fraud`` int8, 0 or 1;
    ``scenario`` int8, 0 for a genuine payment, else the scenario that made it a fraud.
    """

    transaction_id: npt.NDArray[np.int64]
    event_time_us: npt.NDArray[np.int64]
    customer_id: npt.NDArray[np.int64]
    terminal_id: npt.NDArray[np.int64]
    tx_amount: npt.NDArray[np.float64]
    tx_fraud: npt.NDArray[np.int8]
    known_at_us: npt.NDArray[np.int64]
    scenario: npt.NDArray[np.int8]

    def write(self, folder: Path) -> None:
        """Writes ``transactions.parquet`` and ``labels.parquet`` under ``folder``, which is made if it is not there."""
        folder.mkdir(parents=True, exist_ok=True)
        transactions = pa.table(
            {
                "transaction_id": self.transaction_id,
                "tx_datetime": pa.array(self.event_time_us).cast(pa.timestamp("us")),
                "customer_id": self.customer_id,
                "terminal_id": self.terminal_id,
                "tx_amount": self.tx_amount,
            }
        )
        labels = pa.table(
            {
                "transaction_id": self.transaction_id,
                "tx_fraud": self.tx_fraud,
                "known_at": pa.array(self.known_at_us).cast(pa.timestamp("us")),
            }
        )
        pq.write_table(transactions, folder / "transactions.parquet")
        pq.write_table(labels, folder / "labels.parquet")


def generate(settings: GeneratorSettings) -> Payments:
    """Simulates the payments that ``settings`` describe; the same settings give the same payments.

    Raises ValueError where no customer has a terminal within the radius.
    """
    random = np.random.default_rng(settings.seed)
    customer, terminal, second, day, amount = _genuine(settings, random)
    time_us = day * DAY_US + (second * 1e6).astype(np.int64)
    order = np.argsort(time_us, kind="stable")
    customer, terminal, day = customer[order], terminal[order], day[order]
    amount, time_us = amount[order], time_us[order]

    scenario = np.zeros(len(order), dtype=np.int8)
    scenario[amount > _FRAUD_AMOUNT] = 1
    taken = _spells(random, settings.terminals, settings.terminals_taken_per_day, settings.days, _TERMINAL_DAYS)
    scenario[taken[terminal, day]] = 2
    leaked = _spells(random, settings.customers, settings.customers_leaked_per_day, settings.days, _CUSTOMER_DAYS)
    stolen = leaked[customer, day] & (random.random(len(order)) < _LEAKED_SHARE)
    scenario[stolen] = 3
    amount = np.where(stolen, np.round(amount * _LEAKED_FACTOR, 2), amount)

    event_time_us = time_us + int(settings.start.timestamp()) * 1_000_000
    return Payments(
        transaction_id=np.arange(len(order), dtype=np.int64),
        event_time_us=event_time_us,
        customer_id=customer,
        terminal_id=terminal,
        tx_amount=amount,
        tx_fraud=(scenario > 0).astype(np.int8),
        known_at_us=event_time_us + settings.label_delay_days * DAY_US,
        scenario=scenario,
    )


def _genuine(
    settings: GeneratorSettings, random: np.random.Generator
) -> tuple[
    npt.NDArray[np.int64],
    npt.NDArray[np.int64],
    npt.NDArray[np.float64],
    npt.NDArray[np.int64],
    npt.NDArray[np.float64],
]:
    """Customer, terminal, second of the day, day and amount of every payment, in no particular order of time."""
    homes = random.uniform(0, _PLANE, (settings.customers, 2))
    places = random.uniform(0, _PLANE, (settings.terminals, 2))
    mean_amount = random.uniform(5, 100, settings.customers)
    per_day = random.uniform(0, 4, settings.customers)
    near_start, near = _terminals_within(homes, places, settings.radius)
    near_count = np.diff(near_start)
    if not near_count.any():
        raise ValueError(f"radius: expected one that reaches a terminal, found {settings.radius}")

    # A customer without a terminal in reach never pays.
    rate = np.where(near_count > 0, per_day, 0.0)
    count = random.poisson(rate[:, None], (settings.customers, settings.days))
    customer = np.repeat(np.arange(settings.customers), count.sum(axis=1))
    day = np.repeat(np.tile(np.arange(settings.days), settings.customers), count.ravel())
    second = random.normal(_DAY_S / 2, _TIME_OF_DAY_SD_S, len(customer))
    within = (second >= 0) & (second < _DAY_S)
    customer, day, second = customer[within], day[within], second[within]

    mean = mean_amount[customer]
    drawn = random.normal(mean, mean / 2)
    positive = np.where(drawn < 0, random.uniform(0, 2 * mean), drawn)
    amount = np.asarray(np.round(positive, 2), dtype=np.float64)
    pick = (random.random(len(customer)) * near_count[customer]).astype(np.int64)
    terminal = near[near_start[customer] + pick]
    return customer.astype(np.int64), terminal, second, day.astype(np.int64), amount


def _terminals_within(
    homes: npt.NDArray[np.float64], places: npt.NDArray[np.float64], radius: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """For each home the places within ``radius``, as offsets int64[homes + 1] into indices int64[all of them]."""
    # In blocks, so that the matrix of distances stays at some 20 MB for any number of homes.
    block = max(1, 2_500_000 // len(places))
    counts, found = [], []
    for first in range(0, len(homes), block):
        away = homes[first : first + block, None, :] - places[None, :, :]
        near = np.einsum("ijk,ijk->ij", away, away) < radius * radius
        counts.append(near.sum(axis=1))
        found.append(np.nonzero(near)[1])
    start = np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int64)
    return start, np.concatenate(found).astype(np.int64)


def _spells(random: np.random.Generator, who: int, per_day: int, days: int, spell_days: int) -> npt.NDArray[np.bool_]:
    """bool[who, days]: true on the days of a spell; every day ``per_day`` of them, drawn afresh, begin one."""
    spell = np.zeros((who, days), dtype=np.bool_)
    for first in range(days):
        spell[random.choice(who, min(per_day, who), replace=False), first : first + spell_days] = True
    return spell
