"""`nowgraph capacity` says what a graph will take, and refuses what one writer or one arena cannot do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

PARTS = ("records", "keys", "lists", "versions", "strings")
ROWS = ("--rows", "customers=1e6", "--rows", "terminals=1e5", "--rows", "transactions=2e7")


def test_bytes_and_cores_of_a_plan(run_json: Callable, run_command: Callable, example: Path) -> None:
    """Parts add up to the arena, a host holds two generations, and rates become cores and processes."""
    asked = ("capacity", "--schema", example / "schema.yaml", *ROWS, "--changes", "transactions=2e5")
    found = run_json(*asked, "--events-per-s", 50_000, "--scores-per-s", 2_000)
    tables = found["tables"]
    parts = sum(table[part] for table in tables for part in PARTS)
    assert parts <= found["arena"] - found["idle"] < parts + (4 << 20)
    assert found["host"] == 2 * found["arena"]
    assert 0.05 < found["updater cores"] < 0.1
    assert found["server processes"] == 3
    payments = next(table for table in tables if table["table"] == "transactions")
    assert 60 < payments["bytes a row"] < 90
    assert run_json(*asked, "--even")["arena"] > found["arena"]
    text = run_command(*asked, "--scores-per-s", 10).stdout
    assert "1 server processes for 10 scores/s" in text


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (("--events-per-s", 5_000_000), "one writer applies"),
        (("--rows", "transactions"), "expected a name and a count"),
        (("--rows", "transactions=many"), "expected a name and a count"),
        (("--rows", "transactions=1e10"), "docs/SCALING.md"),
        (("--changes", "sales=1"), "no such table"),
    ],
)
def test_what_cannot_be_is_refused(run_command: Callable, example: Path, more: tuple[object, ...], named: str) -> None:
    """By name: too much for one writer or one arena, and what is no count."""
    result = run_command("capacity", "--schema", example / "schema.yaml", *ROWS, *more, exit_code=2)
    assert named in result.stderr
