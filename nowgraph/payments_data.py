"""Payments in files: the raw pair (transactions, labels) -> columns -> the two files that a bootstrap replays.

``transactions.parquet`` holds what happened; ``fraud_reports.parquet`` what became known of it and when. The raw pair
is that of the Fraud Detection Handbook's data and of ``nowgraph.payments_generator``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from nowgraph.errors import NowgraphError


class PaymentsError(NowgraphError):
    """Payment files that are not there or not what they should be."""


@dataclass(frozen=True, slots=True)
class PaymentColumns:
    """Payments in the order of their time, columns of one length N.

    Ids int64, ``event_time_us`` and ``known_at_us`` int64 microseconds UTC, ``tx_amount`` float64, ``tx_fraud`` bool.
    """

    transaction_id: npt.NDArray[np.int64]
    event_time_us: npt.NDArray[np.int64]
    customer_id: npt.NDArray[np.int64]
    terminal_id: npt.NDArray[np.int64]
    tx_amount: npt.NDArray[np.float64]
    tx_fraud: npt.NDArray[np.bool_]
    known_at_us: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.transaction_id)

    def where(self, chosen: npt.NDArray[Any]) -> Self:
        """The payments of a mask bool[N] or of indices int64[any]."""
        return type(self)(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def write_transactions(self, path: Path) -> None:
        """Writes the payments alone, without what became known later."""
        columns = {name: getattr(self, name) for name in ("transaction_id", "customer_id", "terminal_id", "tx_amount")}
        table = pa.table({**columns, "tx_datetime": _timestamps(self.event_time_us)})
        pq.write_table(table, path)

    def write_fraud_reports(self, path: Path) -> None:
        """Writes what became known, in the order of the time it was known."""
        order = np.argsort(self.known_at_us, kind="stable")
        table = pa.table(
            {
                "transaction_id": self.transaction_id[order],
                "tx_fraud": self.tx_fraud[order],
                "known_at": _timestamps(self.known_at_us[order]),
            }
        )
        pq.write_table(table, path)


def load_payments(folder: Path) -> PaymentColumns:
    """Reads ``transactions.parquet`` and ``labels.parquet`` of ``folder``, in the order of event time.

    Raises PaymentsError when a file or column is missing or a label has no payment.
    """
    transactions = _read(folder / "transactions.parquet")
    labels = _read(folder / "labels.parquet")
    try:
        ids = transactions["transaction_id"].to_numpy().astype(np.int64)
        label_ids = labels["transaction_id"].to_numpy().astype(np.int64)
        by_id = np.argsort(label_ids)
        place = np.searchsorted(label_ids[by_id], ids).clip(max=max(len(label_ids) - 1, 0))
        if len(label_ids) != len(ids) or not np.array_equal(label_ids[by_id][place], ids):
            raise PaymentsError(f"{folder}: expected one label for each payment, found {len(label_ids)} for {len(ids)}")
        label = by_id[place]
        columns = PaymentColumns(
            transaction_id=ids,
            event_time_us=_microseconds(transactions["tx_datetime"]),
            customer_id=transactions["customer_id"].to_numpy().astype(np.int64),
            terminal_id=transactions["terminal_id"].to_numpy().astype(np.int64),
            tx_amount=transactions["tx_amount"].to_numpy().astype(np.float64),
            tx_fraud=labels["tx_fraud"].to_numpy()[label].astype(np.bool_),
            known_at_us=_microseconds(labels["known_at"])[label],
        )
    except KeyError as error:
        raise PaymentsError(f"{folder}: expected the column {error.args[0]!r}") from error
    return columns.where(np.lexsort((columns.transaction_id, columns.event_time_us)))


def given_payments() -> Path | None:
    """The payments folder under ``NOWGRAPH_DATA``; None where it points to none."""
    root = os.environ.get("NOWGRAPH_DATA", "")
    folder = Path(root) / "payments"
    return folder if root and (folder / "transactions.parquet").is_file() else None


def _read(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except FileNotFoundError as error:
        raise PaymentsError(f"{path}: no such file") from error
    except pa.ArrowInvalid as error:
        raise PaymentsError(f"{path}: expected Parquet, found something else ({error})") from error


def _microseconds(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    microseconds: npt.NDArray[np.int64] = column.cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
    return microseconds


def _timestamps(times_us: npt.NDArray[np.int64]) -> pa.Array:
    return pa.array(times_us).cast(pa.timestamp("us"))
