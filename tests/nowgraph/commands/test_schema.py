"""`nowgraph schema` drafts, checks and shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from temporal_graph.schema import load_schema


def test_check_says_what_a_schema_holds_and_its_fingerprint(run_json: Callable, example: Path) -> None:
    """The document names tables, links and sources, and the fingerprint that checkpoints carry."""
    found = run_json("schema", "check", example / "schema.yaml")
    assert (found["schema"], found["tables"], found["links"], found["sources"]) == ("payments", 3, 2, 2)
    assert found["fingerprint"] == load_schema(example / "schema.yaml").fingerprint()


def test_show_prints_tables_links_and_topics(run_command: Callable, run_json: Callable, example: Path) -> None:
    """People see tables with their keys and columns; machines the same, with links as sampling plans name them."""
    shown = run_command("schema", "show", example / "schema.yaml").stdout
    for word in ("transactions", "tx_amount", "fraud_reports", "outcome"):
        assert word in shown
    found = run_json("schema", "show", example / "schema.yaml")
    assert found["links"][0]["to the parent"] == "transactions.customer_id->customers.customer_id"


def test_infer_drafts_a_schema_that_is_valid(run_command: Callable, town: tuple[Path, Path], tmp_path: Path) -> None:
    """The draft of real files passes `check`; it overwrites nothing."""
    draft = tmp_path / "draft.yaml"
    run_command("schema", "infer", town[0], "--output", draft)
    run_command("schema", "check", draft)
    table = load_schema(draft).table("transactions")
    assert table.time_column == "tx_datetime"
    before = draft.read_bytes()
    assert "exists already" in run_command("schema", "infer", town[0], "--output", draft, exit_code=2).stderr
    assert draft.read_bytes() == before
