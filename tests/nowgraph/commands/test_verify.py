"""`nowgraph verify` builds the graph anew from the log and compares."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stream.embedded_broker import EmbeddedBroker

pytestmark = pytest.mark.integration


def test_a_snapshot_is_the_log(
    run_json: Callable, example: Path, broker: EmbeddedBroker, publish: Callable, killed_updater: Callable
) -> None:
    """Up to where it stands, although the log has gone on; nothing is written."""
    place = killed_updater(100)
    publish(broker, range(100, 150))
    found = run_json("verify", "--schema", example / "schema.yaml", "--snapshots", place, "--quiet",
                     "--bootstrap-servers", broker.bootstrap)  # fmt: skip
    assert found["equal"]
    assert found["hash of the rebuild"] == found["hash of the snapshot"]
    assert found["dead letters"] == 0


def test_what_retention_forgets_is_forgotten_on_both_sides(
    run_json: Callable, example: Path, broker: EmbeddedBroker, killed_updater: Callable, tmp_path: Path
) -> None:
    """Whenever its passes fell in the updater that left the snapshot: compared is what the log and the schema keep."""
    schema = tmp_path / "schema.yaml"
    text = (example / "schema.yaml").read_text()
    schema.write_text(text.replace("time_column: tx_datetime", "time_column: tx_datetime\n    retention: {age: 1h}"))
    place = killed_updater(100, 200, schema=schema)
    found = run_json("verify", "--schema", schema, "--snapshots", place, "--quiet",
                     "--bootstrap-servers", broker.bootstrap)  # fmt: skip
    assert found["equal"]


def test_a_snapshot_that_is_not_the_log_is_found_out(
    run_command: Callable, example: Path, other_broker: EmbeddedBroker, publish: Callable, killed_updater: Callable,
    tmp_path: Path,
) -> None:  # fmt: skip
    """Of another log the hashes differ, exit code 1; of a log that lacks records it is said where."""
    place = killed_updater(100)
    options = ("--schema", example / "schema.yaml", "--bootstrap-servers", other_broker.bootstrap, "--quiet")
    publish(other_broker, range(60))
    result = run_command("verify", *options, "--snapshots", place, "--timeout", 1, exit_code=2)
    assert "no record came after transactions/0=30, transactions/1=30" in result.stderr
    publish(other_broker, range(160, 200))
    result = run_command("verify", *options, "--snapshots", place, exit_code=1)
    assert "The two differ" in result.stdout
    result = run_command("verify", *options, "--snapshots", tmp_path / "nothing", exit_code=2)
    assert "no snapshot that can be used" in result.stderr
