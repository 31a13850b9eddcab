"""The generator keeps the statistics of the Handbook's description, and its files have the columns of the real data."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nowgraph.payments_generator import DAY_US, GeneratorSettings, Payments, generate

SETTINGS = GeneratorSettings(
    customers=600, terminals=1200, days=90, radius=8.0, terminals_taken_per_day=1, customers_leaked_per_day=1, seed=7
)


@pytest.fixture(scope="module")
def payments() -> Payments:
    """Three months of a small town."""
    return generate(SETTINGS)


def test_the_same_seed_gives_the_same_payments(payments: Payments) -> None:
    """One seed is one data set, bit for bit; another seed is another."""
    again = generate(SETTINGS)
    other = generate(replace(SETTINGS, seed=8))
    assert np.array_equal(payments.event_time_us, again.event_time_us)
    assert np.array_equal(payments.tx_amount, again.tx_amount)
    assert np.array_equal(payments.scenario, again.scenario)
    assert not np.array_equal(payments.tx_amount[:100], other.tx_amount[:100])


def test_payments_come_in_the_order_of_their_time_within_the_days_asked_for(payments: Payments) -> None:
    """Times rise, start on the first day and end before the day after the last."""
    start_us = int(SETTINGS.start.timestamp()) * 1_000_000
    assert (np.diff(payments.event_time_us) >= 0).all()
    assert payments.event_time_us[0] >= start_us
    assert payments.event_time_us[-1] < start_us + SETTINGS.days * DAY_US
    assert np.array_equal(payments.transaction_id, np.arange(len(payments.transaction_id)))


def test_rates_and_amounts_are_those_described(payments: Payments) -> None:
    """About two payments a customer and day, less the few outside the day; amounts average about 52.5."""
    per_day = len(payments.transaction_id) / (SETTINGS.customers * SETTINGS.days)
    genuine = payments.tx_amount[payments.scenario != 3]
    assert 1.75 < per_day < 2.15
    assert 47 < genuine.mean() < 60
    assert (payments.tx_amount >= 0).all()


def test_each_kind_of_fraud_is_what_it_says(payments: Payments) -> None:
    """Nothing genuine is above 220, everything of scenario 1 is, all three kinds occur and only they are frauds."""
    assert (payments.tx_amount[payments.scenario == 0] <= 220).all()
    assert (payments.tx_amount[payments.scenario == 1] > 220).all()
    for kind in (1, 2, 3):
        assert (payments.scenario == kind).sum() > 10
    assert np.array_equal(payments.tx_fraud, (payments.scenario > 0).astype(np.int8))


def test_a_taken_terminal_commits_nothing_but_fraud_during_its_spell(payments: Payments) -> None:
    """Between the first and the last fraud of an isolated spell there is no genuine payment at the terminal."""
    day = payments.event_time_us // DAY_US
    isolated = 0
    for terminal in np.unique(payments.terminal_id[payments.scenario == 2]):
        here = payments.terminal_id == terminal
        frauds = day[here & (payments.scenario == 2)]
        if frauds.max() - frauds.min() >= 28:
            continue
        isolated += 1
        during = here & (day > frauds.min()) & (day < frauds.max())
        assert (payments.tx_fraud[during] == 1).all()
    assert isolated > 5


def test_customers_pay_only_near_home(payments: Payments) -> None:
    """A customer's terminals are those within the radius: few of all, about its share of the plane."""
    share = np.pi * SETTINGS.radius**2 / 100**2
    distinct = [
        len(np.unique(payments.terminal_id[payments.customer_id == c])) for c in np.unique(payments.customer_id)[:50]
    ]
    assert np.mean(distinct) < 1.5 * share * SETTINGS.terminals


def test_files_have_the_columns_and_types_of_the_real_ones(payments: Payments, tmp_path: Path) -> None:
    """transactions.parquet and labels.parquet: names, kinds, and labels known exactly seven days after the payment."""
    payments.write(tmp_path / "made")
    transactions = pq.read_table(tmp_path / "made" / "transactions.parquet")
    labels = pq.read_table(tmp_path / "made" / "labels.parquet")
    assert transactions.column_names == ["transaction_id", "tx_datetime", "customer_id", "terminal_id", "tx_amount"]
    assert labels.column_names == ["transaction_id", "tx_fraud", "known_at"]
    assert transactions.schema.field("tx_datetime").type == pa.timestamp("us")
    made = transactions["tx_datetime"].cast(pa.int64()).to_numpy()
    known = labels["known_at"].cast(pa.int64()).to_numpy()
    assert (known - made == 7 * DAY_US).all()


def test_settings_that_make_no_sense_are_refused_by_name() -> None:
    """A wrong setting is named in the error, and a plane where nobody can pay is an error, not an empty file."""
    with pytest.raises(ValueError, match="customers"):
        GeneratorSettings(customers=0)
    with pytest.raises(ValueError, match="start"):
        GeneratorSettings(start=datetime(2018, 4, 1))  # a time without a zone is what is refused
    with pytest.raises(ValueError, match="radius"):
        generate(GeneratorSettings(customers=2, terminals=1, days=1, radius=1e-9))
