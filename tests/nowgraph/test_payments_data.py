"""Raw payment files become columns in time order, and the files of a bootstrap."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nowgraph.payments_data import PaymentsError, given_payments, load_payments
from nowgraph.payments_generator import GeneratorSettings, generate

SMALL = GeneratorSettings(customers=40, terminals=60, days=12, radius=20.0, seed=3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A few days of simulated payments as raw files."""
    generate(SMALL).write(tmp_path / "raw")
    return tmp_path / "raw"


def test_columns_come_in_time_order_with_each_payment_beside_its_own_label(folder: Path) -> None:
    """Rows shuffled in both files come back in time order, every label with its payment."""
    made = generate(SMALL)
    shuffle = np.random.default_rng(0)
    for name in ("transactions", "labels"):
        table = pq.read_table(folder / f"{name}.parquet")
        pq.write_table(table.take(shuffle.permutation(table.num_rows)), folder / f"{name}.parquet")
    payments = load_payments(folder)
    assert (np.diff(payments.event_time_us) >= 0).all()
    fraud = dict(zip(made.transaction_id.tolist(), made.tx_fraud.astype(bool).tolist(), strict=True))
    assert [fraud[i] for i in payments.transaction_id.tolist()] == payments.tx_fraud.tolist()


def test_the_files_of_a_bootstrap_keep_what_happened_apart_from_what_became_known(folder: Path, tmp_path: Path) -> None:
    """transactions.parquet has no label; fraud_reports.parquet has booleans in the order they became known."""
    payments = load_payments(folder)
    payments.write_transactions(tmp_path / "t.parquet")
    payments.write_fraud_reports(tmp_path / "r.parquet")
    transactions, reports = pq.read_table(tmp_path / "t.parquet"), pq.read_table(tmp_path / "r.parquet")
    assert "tx_fraud" not in transactions.column_names
    assert reports.schema.field("tx_fraud").type == pa.bool_()
    assert (np.diff(reports["known_at"].cast(pa.int64()).to_numpy()) >= 0).all()
    assert transactions.num_rows == reports.num_rows == len(payments)


def test_missing_files_columns_and_labels_are_named(folder: Path, tmp_path: Path) -> None:
    """Every way a folder can be wrong is an error that names it."""
    with pytest.raises(PaymentsError, match=r"nowhere/transactions\.parquet: no such file"):
        load_payments(tmp_path / "nowhere")
    labels = pq.read_table(folder / "labels.parquet")
    pq.write_table(labels.slice(1), folder / "labels.parquet")
    with pytest.raises(PaymentsError, match="one label for each payment"):
        load_payments(folder)
    pq.write_table(labels.drop_columns(["known_at"]), folder / "labels.parquet")
    with pytest.raises(PaymentsError, match="known_at"):
        load_payments(folder)
    (folder / "labels.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(PaymentsError, match="expected Parquet"):
        load_payments(folder)


def test_real_payments_are_used_only_where_the_variable_points_to_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NOWGRAPH_DATA decides: unset, empty and pointing elsewhere all mean that there are none."""
    monkeypatch.delenv("NOWGRAPH_DATA", raising=False)
    assert given_payments() is None
    monkeypatch.setenv("NOWGRAPH_DATA", "")
    assert given_payments() is None
    monkeypatch.setenv("NOWGRAPH_DATA", str(folder))
    assert given_payments() is None
    folder.rename(folder.parent / "payments")
    monkeypatch.setenv("NOWGRAPH_DATA", str(folder.parent))
    assert given_payments() == folder.parent / "payments"
