"""The demo's data are parted in time: what is learned from was known before what is scored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from nowgraph.demo.data import demo_data
from nowgraph.demo.settings import DemoSettings
from nowgraph.payments_data import PaymentsError
from nowgraph.payments_generator import generate

SETTINGS = DemoSettings.quick()


def test_history_holds_nothing_of_the_live_stretch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Payments before it, reports known before it; the reports of the last week and of live payments come later."""
    monkeypatch.delenv("NOWGRAPH_DATA", raising=False)
    data = demo_data(SETTINGS)
    assert "simulated" in data.name
    transactions, reports = data.write_history(tmp_path, live_us=SETTINGS.live_us)
    happened = pq.read_table(transactions)["tx_datetime"].cast("int64").to_numpy()
    known = pq.read_table(reports)["known_at"].cast("int64").to_numpy()
    assert happened.max() < SETTINGS.live_us
    assert known.max() < SETTINGS.live_us
    assert data.live.event_time_us.min() >= SETTINGS.live_us
    assert data.reported.known_at_us.min() >= SETTINGS.live_us
    assert np.isin(data.live.transaction_id, data.reported.transaction_id).all()
    assert len(known) + len(data.reported) == len(data.past) + len(data.live)


def test_real_payments_are_named_and_used_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NOWGRAPH_DATA decides, unless simulated ones were asked for."""
    generate(SETTINGS.generator).write(tmp_path / "payments")
    monkeypatch.setenv("NOWGRAPH_DATA", str(tmp_path))
    assert "Handbook" in demo_data(SETTINGS).name
    assert "simulated" in demo_data(SETTINGS, real=False).name


def test_data_without_a_live_stretch_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Payments that end before the demo begins are an error that says so."""
    monkeypatch.delenv("NOWGRAPH_DATA", raising=False)
    short = replace(SETTINGS, generator=replace(SETTINGS.generator, days=10))
    with pytest.raises(PaymentsError, match="live stretch"):
        demo_data(short)
