"""The example's tasks ask what their text says: each label is what SQL makes of the same files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pytest

from graph_transformer.finetune.question import Question, question_of
from nowgraph.loading import load_files
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import load_schema
from temporal_graph.time_rule import time_us_from_datetime


@pytest.fixture(scope="module")
def folder(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("helpdesk")
    script = repository / "examples" / "helpdesk" / "prepare.py"
    command = [sys.executable, str(script), str(output), "--accounts", "40"]
    subprocess.run(command, check=True, timeout=120, capture_output=True)
    return output


def asked(repository: Path, name: str) -> Question:
    example = repository / "examples" / "helpdesk"
    return question_of(load_schema(example / "schema.yaml"), task=example / f"{name}.yaml")


def loaded(question: Question, folder: Path, letters: Path) -> TemporalGraph:
    graph = TemporalGraph.create(question.schema)
    load_files(graph, sorted(folder.glob("*.parquet")), quiet=True, dead_letters=letters)
    return graph


def test_usage_is_the_sum_of_the_next_fortnight(repository: Path, folder: Path, tmp_path: Path) -> None:
    """Sundays, the accounts with a session in the 30 days before, the minutes of the 14 days after."""
    question = asked(repository, "usage")
    with loaded(question, folder, tmp_path / "letters") as graph:
        view = graph.view()
        found = question.label_table(view)
        assert found is not None
        labels, splits = found
        keys = view.keys("accounts", labels.row)
    mine = dict(zip(zip(keys, labels.anchor_time_us.tolist(), strict=True), labels.label.tolist(), strict=True))
    with duckdb.connect() as database:
        rows = database.execute(f"""
            with asked as (select unnest(range(timestamp '2023-02-05', timestamp '2024-06-17', interval 7 day)) as t)
            select account_code, t,
              coalesce(sum(minutes) filter (started > t and started <= t + interval 14 day), 0)
            from asked cross join '{folder}/sessions.parquet' group by account_code, t
            having count(*) filter (started > t - interval 30 day and started <= t) > 0""").fetchall()
    theirs = {(code, time_us_from_datetime(t)): minutes for code, t, minutes in rows}
    assert mine.keys() == theirs.keys()
    assert [mine[key] for key in theirs] == pytest.approx(list(theirs.values()))
    assert splits.test is not None
    assert int((labels.anchor_time_us >= splits.test.start_us).sum()) > 50


def test_escalation_asks_of_every_ticket_whose_outcome_came(repository: Path, folder: Path, tmp_path: Path) -> None:
    """One question per closed ticket, at the time it was opened; the outcome is known from its closing, not before."""
    question = asked(repository, "escalation")
    with loaded(question, folder, tmp_path / "letters") as graph:
        view = graph.view()
        _, labels = question.task(view, None)
        examples = labels.known(None)
        keys = view.keys("tickets", examples.row)
    with duckdb.connect() as database:
        rows = database.execute(f"""
            select ticket_id, opened, closed, escalated
            from '{folder}/tickets.parquet' join '{folder}/closed_tickets.parquet' using (ticket_id)""").fetchall()
    theirs = {key: (time_us_from_datetime(o), time_us_from_datetime(c), float(e)) for key, o, c, e in rows}
    mine = dict(
        zip(
            keys,
            zip(examples.time_us.tolist(), examples.visible_time_us.tolist(), examples.label.tolist(), strict=True),
            strict=True,
        )
    )
    assert mine == theirs
    assert np.array_equal(examples.cutoff_time_us, examples.time_us - 1)
