"""Rankings in the commands: questions of a task on a graph, and a ranker asked as a server would."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graph_transformer.finetune.question import Question, ask
from graph_transformer.finetune.ranking.spans import Spans
from graph_transformer.finetune.task_file import task_file_from_dict
from graph_transformer.ranking.lists import RankedList, RankedLists, RankQuestion
from graph_transformer.ranking.plans import default_plan
from graph_transformer.task import Task
from nowgraph.errors import UsageError
from nowgraph.ranking import asked_ranking, plan_ranking, rank_file, ranked_lists
from temporal_graph.schema import parse_schema
from temporal_graph.view import GraphView

SHOP = """
version: 1
name: shop
tables:
  users: {primary_key: {user_id: integer}}
  items: {primary_key: {sku: string}}
  orders:
    primary_key: {order_id: integer}
    time_column: at
    links: {user_id: users, sku: items}
"""
TASK = {
    "version": 1,
    "name": "next_order",
    "query": "PREDICT LIST_DISTINCT(orders.sku, 0, 1, minutes) RANK TOP 2 FOR EACH users.user_id",
    "anchors": {"before": "orders", "last": "2024-03-01"},
}


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """Orders of three users on thirty days, an item a day."""
    rows = [(day * 10 + user, user, "abc"[(day + user) % 3], day) for day in range(30) for user in range(3)]
    at = np.datetime64("2024-01-01", "us") + np.array([row[3] for row in rows]) * np.timedelta64(1, "D")
    columns = {"order_id": [r[0] for r in rows], "user_id": [r[1] for r in rows], "sku": [r[2] for r in rows], "at": at}
    pq.write_table(pa.table(columns), tmp_path / "orders.parquet")
    return tmp_path / "orders.parquet"


@pytest.fixture
def question() -> Question:
    """What each user orders next."""
    return ask(task_file_from_dict(TASK, folder=Path()), parse_schema(SHOP))


class Fake:
    """Lists every item in the order of its key, and remembers what it was asked."""

    version = "f" * 64

    def __init__(self, task: Task, view: GraphView) -> None:
        self.task, self._view = task, view
        self.asked: list[RankQuestion] = []

    def rank(self, questions: Sequence[RankQuestion]) -> RankedLists:
        """The same list for everybody."""
        self.asked += questions
        keys: list[Any] = sorted(self._view.keys("items", np.arange(self._view.row_count("items"))))  # type: ignore[type-var]
        rows = self._view.row_index("items", keys)
        lists = []
        for one in questions:
            part = slice(0, one.limit)
            count = len(rows[part])
            zeros = np.zeros(count, dtype=np.int64)
            score = -np.arange(count, dtype=np.float64)
            lists.append(RankedList(rows[part], keys[part], score, zeros, zeros, 4, 0, None, count))
        return RankedLists(tuple(lists), self._view.position(), 0, 0)


@pytest.fixture
def found(question: Question, history: Path, tmp_path: Path) -> Iterator[Any]:
    """The ranking on its graph."""
    with asked_ranking(question, [history], None, folder=tmp_path / "out", quiet=True) as made:
        yield made


def test_questions_are_found_and_written(found: Any) -> None:
    """One for each order, in splits by time; the file has the items by key."""
    assert len(found.questions) == 90
    assert found.task.splits.test is not None
    rows = pq.read_table(found.file)
    assert found.file.name == "next_order.parquet"
    assert rows.num_rows == 90
    assert rows.column("label")[0].as_py() in (["a"], ["b"], ["c"])


def test_a_plan_is_the_files_or_the_default(found: Any, tmp_path: Path) -> None:
    """The default reads the history; a plan file says everything, the ranking's options too; both read back."""
    task, text = plan_ranking(found.task, None)
    assert task.sampling_plan == default_plan(found.question.schema, task.target, task.ranking)
    (tmp_path / "plan.yaml").write_text(text)
    assert plan_ranking(found.task, tmp_path / "plan.yaml") == (task, text)
    assert "ranking:" in text
    changed = text.replace("history: 20", "history: 7")
    (tmp_path / "plan.yaml").write_text(changed)
    assert plan_ranking(found.task, tmp_path / "plan.yaml")[0].ranking.history == 7


def test_the_fusions_span_is_what_the_file_says_or_follows_the_questions(history: Path, tmp_path: Path) -> None:
    """Four weeks of orders leave no room for a month of lists: where the file is silent, a span is chosen that fits."""
    found = {}
    for named, plan in (("file", {"ranking": {"fusion_span": "3d"}}), ("questions", {"ranking": {"history": 7}})):
        question = ask(task_file_from_dict({**TASK, **plan}, folder=Path()), parse_schema(SHOP))
        with asked_ranking(question, [history], None, folder=tmp_path / "out", quiet=True) as made:
            found[named] = made.task
    assert found["file"].ranking.fusion_span == "3d"
    assert found["questions"].ranking.history == 7
    Spans.of(found["questions"].splits, found["questions"].ranking.fusion_span_us)


def test_the_past_is_asked_in_order_of_time(found: Any) -> None:
    """Each user by key at his own cut-off, as long a list as is wanted; places go back to their questions."""
    fake = Fake(found.task, found.view)
    questions = found.questions.select(np.array([50, 3, 70]))
    lists = ranked_lists(fake, found.view, questions, 5)
    assert [one.cutoff_time_us for one in fake.asked] == sorted(questions.cutoff_time_us.tolist())
    assert {one.user for one in fake.asked} <= {0, 1, 2}
    assert lists.shape == (3, 5)
    assert (lists[:, 3:] == -1).all()
    assert found.view.keys("items", lists[0, :3]) == ["a", "b", "c"]
    assert all(one.limit == 5 and not one.exclude_seen and one.session == () for one in fake.asked)


def test_what_a_frozen_graph_lacks_comes_as_a_session(found: Any) -> None:
    """Events of the user's own orders since, oldest first."""
    fake = Fake(found.task, found.view)
    last = found.questions.select(found.questions.time_us == found.questions.time_us.max())
    frozen_us = int(last.time_us[0]) - 3 * 86_400_000_000
    ranked_lists(fake, found.view, last.frozen(frozen_us, found.view, found.task.target.ranked), 2)
    assert [len(one.session) for one in fake.asked] == [3, 3, 3]
    assert {one.cutoff_time_us for one in fake.asked} == {frozen_us}


def test_a_file_of_users_gets_lists(found: Any, tmp_path: Path) -> None:
    """As many items as the task says, by key; other columns stay; without a time the newest of the graph counts."""
    fake = Fake(found.task, found.view)
    pq.write_table(pa.table({"user_id": [2, 77], "note": ["x", "y"]}), tmp_path / "in.parquet")
    assert rank_file(found.view, fake, tmp_path / "in.parquet", tmp_path / "out.parquet", privacy=None) == 2
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [(row["note"], row["items"], row["scores"]) for row in rows] == [
        ("x", ["a", "b"], [0.0, -1.0]),
        ("y", ["a", "b"], [0.0, -1.0]),
    ]
    assert [one.user for one in fake.asked] == [2, 77]
    assert {one.cutoff_time_us for one in fake.asked} == {found.view.watermark_us}
    assert rows[0]["history_count"] == 4
    with pytest.raises(UsageError, match="items"):
        rank_file(found.view, fake, tmp_path / "out.parquet", tmp_path / "again.parquet", privacy=None)
    pq.write_table(pa.table({"user": [2]}), tmp_path / "in.parquet")
    with pytest.raises(UsageError, match="user_id"):
        rank_file(found.view, fake, tmp_path / "in.parquet", tmp_path / "again.parquet", privacy=None)
    assert not (tmp_path / "again.parquet").exists()
