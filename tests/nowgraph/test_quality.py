from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from graph_transformer.target import QUANTILES
from graph_transformer.task import Task, parse_task
from nowgraph.errors import UsageError
from nowgraph.quality import document_of, quality_task, rows_of, task_of
from nowgraph.report import iso_text
from stream.quality.config import AnswerKind, Interactions
from stream.quality.monitor import Monitor
from stream.quality.records import Answer, Outcome, Stream
from temporal_graph.schema import Schema, load_schema, parse_schema

DAY_US = 86_400_000_000


@pytest.fixture
def payments(example: Path) -> tuple[Task, Schema]:
    """The example's task, decided as training decides it, and its schema."""
    text = (example / "task.yaml").read_text()
    decided = text.replace(
        "query: PREDICT transactions.tx_fraud FOR EACH transactions.transaction_id",
        "table: transactions\noutcome: tx_fraud\nkind: binary",
    )
    return parse_task(decided), load_schema(example / "schema.yaml")


def test_payments_wait_a_week_for_their_reports(payments: tuple[Task, Schema]) -> None:
    """The delay is the gap that the splits leave for labels; a payment that nobody reports by then was no fraud."""
    found = quality_task(*payments)
    assert found.label_delay_us == 7 * DAY_US
    assert found.absence_is_negative
    assert (found.kind, found.outcome, found.event_level) == (AnswerKind.BINARY, "tx_fraud", True)
    assert found.inputs == ("tx_amount",)
    given = quality_task(*payments, tenant="bank", label_delay_us=5, absence_is_negative=False)
    assert (given.tenant, given.label_delay_us, given.absence_is_negative) == ("bank", 5, False)


def test_a_task_without_a_gap_must_be_told(world: Any) -> None:
    """Splits that say nothing of delays: the error names the option; with it there is a task."""
    task = parse_task(world.task_text)
    with pytest.raises(UsageError, match="--label-delay"):
        quality_task(task, world.schema)
    assert quality_task(task, world.schema, label_delay_us=9).label_delay_us == 9


@pytest.mark.parametrize("kind", ["spend", "hours", "channel", "tags"])
def test_tasks_about_entities_have_their_horizon_and_label_table(world_of: Callable[[str], Any], kind: str) -> None:
    """Labels are known at the horizon's end, in the table of past labels; what is absent there is not known."""
    world = world_of("fraud")
    task = parse_task(world.task_text_of(kind))
    found = quality_task(task, world.schema)
    assert found.label_delay_us == task.target.horizon_us
    assert not found.absence_is_negative
    assert found.inputs == ()
    assert found.levels == (QUANTILES if kind in ("spend", "hours") else ())
    assert found.label_columns == (("label", "label_2", "label_3") if kind == "hours" else ("label",))
    if kind == "spend":
        assert found.label_table == "spend"
        with pytest.raises(UsageError, match="--absence"):
            quality_task(task, world.schema, absence_is_negative=True)


def test_a_ranking_looks_at_what_is_taken_next(shop: Any) -> None:
    """Interactions and their links as the task names them, for as long as its horizon."""
    found = quality_task(shop.task, parse_schema(shop.schema_text))
    assert found.interactions == Interactions("clicks", "user_id", "item_id")
    assert found.label_delay_us == 7 * DAY_US


def test_a_checkpoint_is_read_without_its_weights(served_checkpoints: Callable[[str], Path], tmp_path: Path) -> None:
    """The task stands in the manifest; a folder without one, or with another's, is named."""
    assert task_of(served_checkpoints("fraud")).name == "fraud"
    (tmp_path / "checkpoint.json").write_text("{}")
    with pytest.raises(UsageError, match="no checkpoint"):
        task_of(tmp_path)
    with pytest.raises(OSError, match="No such file"):
        task_of(tmp_path / "nowhere")


def test_a_report_is_a_table_and_a_document(payments: tuple[Task, Schema]) -> None:
    """One row a stream and window, with what its kind has; a document that is plain JSON."""
    monitor = Monitor([quality_task(*payments)])
    assert iso_text(monitor.report().watermark_us) is None
    start_us = 1_672_531_200_000_000
    monitor.add(Answer(Stream("", "payments", "v1"), (1,), start_us, start_us, (0.5,), (1.0,)))
    monitor.add(Outcome("payments", (1,), start_us + 7 * DAY_US, (1.0,)))
    report = monitor.report()
    (row,) = rows_of(report)
    assert (row["task"], row["window"], row["examples"], row["base rate"]) == ("payments", "24h", 1, 1.0)
    document = document_of(report)
    assert json.loads(json.dumps(document))["measured"][0]["figures"]["base_rate"] == 1.0
    assert document["watermark"] == "2023-01-08T00:00:00+00:00"
