"""A question and the graph it is asked of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from graph_transformer.finetune.question import question_of
from nowgraph.asking import asked, duration_s, given_away, plan_task, plan_text, search_plan, text_of
from nowgraph.errors import UsageError
from online_sampler.plan import SamplingPlan
from online_sampler.sampler import Sampler
from temporal_graph.schema import load_schema

QUERY = "PREDICT COUNT(transactions.*, 0, 3, days) > 2 FOR EACH customers.customer_id"


def test_past_labels_are_rows_from_the_moment_they_are_known(
    example: Path, town: tuple[Path, Path], tmp_path: Path
) -> None:
    """A label file is written and loaded; a customer's neighborhood has a label at its known time, not before."""
    question = question_of(load_schema(example / "schema.yaml"), query=QUERY)
    links = {name: 0 for name in question.schema.edge_types if "->transactions" in name}
    plan = SamplingPlan.from_dict({"num_neighbors": [{"hop1": {"default": 64, **links}}]})
    with asked(question, [town[0]], None, label_folder=tmp_path, quiet=True) as found:
        assert found.label_file == tmp_path / "question.parquet"
        examples = found.labels.known(None)
        newest = examples.select(examples.row == examples.row[0])
        known_us = int(newest.visible_time_us[-1])
        sampler = Sampler(found.view, plan)
        row = newest.row[-1:]
        then = sampler.sample_rows("customers", row, np.array([known_us]), as_of=True)
        before = sampler.sample_rows("customers", row, np.array([known_us - 1]), as_of=True)
        assert len(then.row) == len(before.row) + 1
        assert found.task.splits.test is not None


def test_without_a_folder_the_label_file_does_not_stay(example: Path, town: tuple[Path, Path]) -> None:
    """Labels are loaded all the same."""
    question = question_of(load_schema(example / "schema.yaml"), query=QUERY)
    with asked(question, [town[0]], None, quiet=True) as found:
        file = found.label_file
        assert file is not None
        assert file.is_file()
        assert found.view.row_count("question") == len(found.labels.known(None))
    assert not file.exists()


def test_nothing_to_load_is_said(example: Path) -> None:
    """Without history and arena there is no graph to ask."""
    question = question_of(load_schema(example / "schema.yaml"), query=QUERY)
    with pytest.raises(UsageError, match="--history"), asked(question, [], None, quiet=True):
        pass


def test_a_ranking_is_asked_elsewhere(example: Path, town: tuple[Path, Path]) -> None:
    """Its lists are no labels: a command that has no part for rankings says so."""
    query = "PREDICT LIST_DISTINCT(transactions.terminal_id, 0, 3) RANK TOP 3 FOR EACH customers.customer_id"
    question = question_of(load_schema(example / "schema.yaml"), query=query)
    with pytest.raises(UsageError, match="ranking"), asked(question, [town[0]], None, quiet=True):
        pass


def test_an_outcome_that_stands_in_its_row_from_the_start_is_said(
    example: Path, town: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """All that is known with it would be read by the model; of an outcome that is reported later nothing is said."""
    texts = {
        "amount": "PREDICT transactions.tx_amount > 50 FOR EACH transactions.transaction_id",
        "fraud": "PREDICT transactions.tx_fraud FOR EACH transactions.transaction_id",
        "entity": QUERY,
    }
    schema = load_schema(example / "schema.yaml")
    notes = {}
    for name, text in texts.items():
        with asked(question_of(schema, query=text), list(town), None, quiet=True) as found:
            notes[name] = given_away(found.task, found.labels)
    assert (notes["fraud"], notes["entity"]) == (None, None)
    assert "every other column of transactions: the model reads them" in (notes["amount"] or "")
    with asked(question_of(schema, query=texts["amount"]), list(town), None, quiet=False):
        assert "transactions.tx_amount is known the moment" in " ".join(capsys.readouterr().err.split())


def test_a_plan_is_given_written_or_proposed(example: Path, town: tuple[Path, Path], tmp_path: Path) -> None:
    """A plan file wins; without one, and with none in the task, one is proposed; it reads back as it was written."""
    question = question_of(load_schema(example / "schema.yaml"), query=QUERY)
    with asked(question, [town[0]], None, quiet=True) as found:
        proposed, text = plan_task(found, None, size="cpu", seed=0)
        path = tmp_path / "plan.yaml"
        path.write_text(text, encoding="utf-8")
        assert "#" in text
        assert plan_task(found, path, size="cpu", seed=0) == (proposed, plan_text(proposed))
        assert proposed.sampling_plan != found.task.sampling_plan
        with pytest.raises(UsageError, match="cpu or gpu"):
            plan_task(found, None, size="tpu", seed=0)


def test_a_search_begins_with_the_plan_it_is_given(example: Path, town: tuple[Path, Path]) -> None:
    """Within its time at least the plan itself is tried; what comes back is a task of the same question."""
    question = question_of(load_schema(example / "schema.yaml"), query=QUERY)
    with asked(question, [town[0]], None, quiet=True) as found:
        small = replace(found.task, training=replace(found.task.training, steps=2, batch=16, validation_examples=50))
        task = search_plan(found, small, budget_s=1.0, seed=0, quiet=True)
    assert task.target == small.target
    assert task.splits == small.splits


def test_a_query_may_lie_in_a_file(tmp_path: Path) -> None:
    """The text of a file that exists is read; anything else is the query itself."""
    path = tmp_path / "churn.pql"
    path.write_text(QUERY, encoding="utf-8")
    assert text_of(str(path)) == QUERY
    assert text_of(QUERY) == QUERY
    assert text_of(None) is None


def test_budgets_are_durations_or_seconds() -> None:
    """Ten minutes are 600 seconds; what is neither is refused with the option's name."""
    assert duration_s("10m") == 600.0
    assert duration_s("1.5") == 1.5
    with pytest.raises(UsageError, match="--budget"):
        duration_s("soon")
