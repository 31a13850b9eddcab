"""Makes the two files that a bootstrap replays from raw payments: the Handbook's, or freshly simulated ones.

Usage: python examples/payments/prepare.py out/ [--data FOLDER] [--until 2018-08-08]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from nowgraph.payments_data import PaymentColumns, given_payments, load_payments
from nowgraph.payments_generator import GeneratorSettings, generate


def raw_payments(folder: Path | None) -> PaymentColumns:
    """The payments of ``folder``, else of ``NOWGRAPH_DATA``, else simulated; says which on standard error."""
    folder = folder if folder is not None else given_payments()
    if folder is not None:
        print(f"payments: {folder}", file=sys.stderr)
        return load_payments(folder)
    print("payments: simulated (set NOWGRAPH_DATA for the Handbook's)", file=sys.stderr)
    with tempfile.TemporaryDirectory() as made:
        generate(GeneratorSettings()).write(Path(made))
        return load_payments(Path(made))


def main() -> None:
    """Writes transactions.parquet and fraud_reports.parquet: what had happened, and was known, before ``--until``."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--data", type=Path, help="folder of transactions.parquet and labels.parquet")
    parser.add_argument(
        "--until", type=datetime.fromisoformat, help="leave out what happened or became known from here on"
    )
    arguments = parser.parse_args()
    payments = raw_payments(arguments.data)
    until_us = 2**63 - 1
    if arguments.until is not None:
        until_us = int(arguments.until.replace(tzinfo=arguments.until.tzinfo or UTC).timestamp()) * 1_000_000
    arguments.output.mkdir(parents=True, exist_ok=True)
    happened = payments.where(payments.event_time_us < until_us)
    known = payments.where(payments.known_at_us < until_us)
    happened.write_transactions(arguments.output / "transactions.parquet")
    known.write_fraud_reports(arguments.output / "fraud_reports.parquet")
    print(f"{len(happened):,} payments and {len(known):,} fraud reports in {arguments.output}")


if __name__ == "__main__":
    main()
