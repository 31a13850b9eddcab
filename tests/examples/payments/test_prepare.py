"""The example's preparation makes the two files that its commands load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from nowgraph.payments_generator import GeneratorSettings, generate
from stream.file_rows import FileTable
from temporal_graph.schema import load_schema

DAY_US = 86_400_000_000
SMALL = GeneratorSettings(customers=40, terminals=60, days=20, radius=20.0)


@pytest.mark.parametrize("until", [None, "2018-04-10"])
def test_two_files_that_the_schema_knows_up_to_the_time_asked_for(
    repository: Path, tmp_path: Path, until: str | None
) -> None:
    """Without a time everything; with one nothing that happened, or became known, at it or later."""
    example = repository / "examples" / "payments"
    made = generate(SMALL)
    made.write(tmp_path / "raw")
    options = ["--until", until] if until is not None else []
    subprocess.run(
        [sys.executable, str(example / "prepare.py"), str(tmp_path / "out"), "--data", str(tmp_path / "raw"), *options],
        check=True,
        timeout=60,
        capture_output=True,
    )
    schema = load_schema(example / "schema.yaml")
    transactions, reports = (tmp_path / "out" / f"{name}.parquet" for name in ("transactions", "fraud_reports"))
    assert FileTable.of(schema, transactions).source.operation == "insert"
    assert FileTable.of(schema, reports).source.operation == "upsert"
    counts = pq.read_metadata(transactions).num_rows, pq.read_metadata(reports).num_rows
    if until is None:
        assert counts == (len(made.transaction_id), len(made.transaction_id))
    else:
        until_us = int(SMALL.start.timestamp()) * 1_000_000 + 9 * DAY_US
        assert counts == (int((made.event_time_us < until_us).sum()), int((made.known_at_us < until_us).sum()))
        assert counts[1] > 0
