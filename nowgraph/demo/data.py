"""Which payments a demo plays, and how they are parted: history in files, live payments, reports still to come."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from nowgraph.demo.settings import DemoSettings
from nowgraph.payments_data import PaymentColumns, PaymentsError, given_payments, load_payments
from nowgraph.payments_generator import generate


@dataclass(frozen=True, slots=True)
class DemoData:
    """``name`` says whose payments they are.

    ``past`` happened before the live stretch; ``reported`` are all payments whose reports become known during or after
    it; ``live`` are those to score.
    """

    name: str
    past: PaymentColumns
    live: PaymentColumns
    reported: PaymentColumns

    def write_history(self, folder: Path, *, live_us: int) -> tuple[Path, Path]:
        """Writes what had happened, and what was known, before the live stretch; returns the two files."""
        transactions, reports = folder / "transactions.parquet", folder / "fraud_reports.parquet"
        self.past.write_transactions(transactions)
        self.past.where(self.past.known_at_us < live_us).write_fraud_reports(reports)
        return transactions, reports


def demo_data(settings: DemoSettings, *, real: bool = True) -> DemoData:
    """The Handbook's payments where ``NOWGRAPH_DATA`` points to them and ``real`` allows it, else simulated ones.

    Raises PaymentsError where the data have no payment before, or none during, the live stretch.
    """
    folder = given_payments() if real else None
    if folder is not None:
        payments = load_payments(folder)
        name = "the Fraud Detection Handbook's payments (NOWGRAPH_DATA)"
    else:
        with tempfile.TemporaryDirectory() as made:
            generate(settings.generator).write(Path(made))
            payments = load_payments(Path(made))
        name = "simulated payments of nowgraph's own generator (set NOWGRAPH_DATA for the Handbook's)"
    event, known = payments.event_time_us, payments.known_at_us
    past = payments.where((event >= settings.history_us) & (event < settings.live_us))
    live = payments.where((event >= settings.live_us) & (event < settings.until_us))
    if not len(past) or not len(live):
        raise PaymentsError(f"{name}: expected payments before and during the live stretch")
    reported = (event >= settings.history_us) & (event < settings.until_us)
    reported &= (known >= settings.live_us) & (known < settings.known_us)
    return DemoData(name, past, live, payments.where(reported))
