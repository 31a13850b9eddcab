"""Rankings in the commands: the questions of a task on a graph, and lists of the ranker that serves.

question + history ─► AskedRanking ─► training, its question file
checkpoint + graph ─► Ranker ─► lists of questions whose items are known ─► metrics
                             └► lists beside the rows of a Parquet file
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from graph_transformer.finetune.query.task_table import write_labels
from graph_transformer.finetune.ranking.questions import RankingQuestions
from graph_transformer.finetune.ranking.session_events import session_events
from graph_transformer.finetune.ranking.sizing import ranking_plan
from graph_transformer.finetune.ranking.spans import proposed_span_us
from graph_transformer.plan import ModelPlan, load_plan
from graph_transformer.ranking.lists import ListRanker, RankedList, RankQuestion
from model_server.request import AskedRow
from nowgraph.loading import opened_graph
from nowgraph.prediction import answer_file
from stream.privacy import Privacy
from temporal_graph.duration import format_duration

if TYPE_CHECKING:
    from graph_transformer.finetune.question import Question
    from graph_transformer.task import Task
    from temporal_graph.view import GraphView

Int64 = NDArray[np.int64]

BATCH_ROWS = 64
"""Questions that are ranked together: some hundred candidates each."""


@dataclass(frozen=True)
class AskedRanking:
    """A ranking on a loaded graph: its task, questions with their items, and the file these are written to."""

    question: Question
    view: GraphView
    task: Task
    questions: RankingQuestions
    file: Path


@contextmanager
def asked_ranking(
    question: Question, history: Sequence[Path], arena: Path | None, *, folder: Path, quiet: bool
) -> Iterator[AskedRanking]:
    """Load history, find the questions, and write them into a folder under the task's name.

    Raises:
        UsageError: neither or both of history and arena are given.
        TaskError, NotEnoughExamples: as `Question.ranking`.
    """
    with opened_graph(question.schema, history, arena, quiet=quiet) as view:
        questions, splits = question.ranking(view)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{question.name}.parquet"
        write_labels(questions.to_labels(question.target), file, view)
        task = question.planned(question.target, splits)
        # As large a model and as long a training as so many questions bear; what the file says lies over it.
        trained = len(questions.interval(splits.train))
        config = task.ranking
        span_us = proposed_span_us(splits, questions.time_us)
        if span_us is not None and "fusion_span" not in question.file.plan.get("ranking", {}):
            config = replace(config, fusion_span=format_duration(span_us))
        proposed = ranking_plan(question.schema, task.target, config, trained)
        if question.has_plan:
            proposed = replace(proposed, sampling_plan=task.sampling_plan)
        task = question.over(proposed.apply(task))
        yield AskedRanking(question, view, task, questions, file)


def plan_ranking(task: Task, plan: Path | None) -> tuple[Task, str]:
    """Return the task with its plan, and the plan as YAML: that of the file given, or the task's own.

    Raises:
        TaskError, PlanError: the plan file is none.
    """
    if plan is not None:
        task = load_plan(plan).apply(task)
    return task, ModelPlan.of(task).to_yaml()


def ranked_lists(
    ranker: ListRanker,
    view: GraphView,
    questions: RankingQuestions,
    width: int,
    *,
    advance: Callable[[int], object] = lambda _: None,
) -> Int64:
    """Return int64 [n, width]: the items a server would list for questions of the past, -1 where there is no more."""
    target, ranked = ranker.task.target, ranker.task.target.ranked
    assert ranked is not None
    keys = view.keys(target.table, questions.user)
    events: Sequence[tuple[bytes, ...]] = [()] * len(questions)
    if questions.sessions is not None:
        events = session_events(view, ranked, questions.sessions)
    found = np.full((len(questions), width), -1, dtype=np.int64)
    # In order of time, as requests come: the ranker takes new rows in and never goes back.
    order = np.argsort(questions.cutoff_time_us, kind="stable")
    for low in range(0, len(order), BATCH_ROWS):
        part = order[low : low + BATCH_ROWS].tolist()
        asked = [
            RankQuestion(
                keys[place],
                events[place],
                int(questions.cutoff_time_us[place]),
                limit=width,
                exclude_seen=ranker.task.ranking.exclude_seen,
                asked_time_us=int(questions.time_us[place]),
            )
            for place in part
        ]
        for place, listed in zip(part, ranker.rank(asked).lists, strict=True):
            found[place, : len(listed)] = listed.item
        advance(len(part))
    return found


def rank_file(
    view: GraphView,
    ranker: ListRanker,
    questions: Path,
    output: Path,
    *,
    privacy: Privacy | None,
    time_column: str | None = None,
    advance: Callable[[int], object] = lambda _: None,
) -> int:
    """Write every row of a Parquet file of keys (and times) with its list beside it; return the rows.

    Lists are as long as the task's `RANK TOP k`: `items` by key and `scores`, the best first. A user without a time is
    asked about as of the graph's newest.

    Raises:
        UsageError: the file is no Parquet file, has such columns already, or a row cannot be asked about.
        OSError: a file cannot be read or written.
    """
    task = ranker.task
    ranked = task.target.ranked
    assert ranked is not None
    fields = _fields(view, ranked.items)

    def answers(rows: Sequence[AskedRow]) -> list[pa.Array]:
        asked = [
            RankQuestion(one.key, (), one.cutoff_time_us, ranked.top, exclude_seen=task.ranking.exclude_seen)
            for one in rows
        ]
        return _answers(fields, asked, ranker.rank(asked).lists, ranker.version)

    return answer_file(
        view,
        task,
        questions,
        output,
        fields=fields,
        answers=answers,
        batch_rows=BATCH_ROWS,
        privacy=privacy,
        time_column=time_column,
        advance=advance,
    )


def _fields(view: GraphView, items: str) -> list[pa.Field]:
    types = [
        pa.int64() if part.type.value == "integer" else pa.string() for part in view.schema.table(items).primary_key
    ]
    key = types[0]
    if len(types) > 1:
        key = pa.struct(
            [(part.name, each) for part, each in zip(view.schema.table(items).primary_key, types, strict=True)]
        )
    return [
        pa.field("items", pa.list_(key)),
        pa.field("scores", pa.list_(pa.float64())),
        pa.field("cutoff_time", pa.timestamp("us", tz="UTC")),
        pa.field("history_count", pa.int32()),
        pa.field("model_version", pa.string()),
    ]


def _answers(
    fields: Sequence[pa.Field], asked: Sequence[RankQuestion], lists: Sequence[RankedList], version: str
) -> list[pa.Array]:
    key = fields[0].type.value_type

    def named(keys: RankedList) -> list[object]:
        if not pa.types.is_struct(key):
            return list(keys.key)
        names = [each.name for each in key]
        return [dict(zip(names, one, strict=True)) for one in keys.key if isinstance(one, tuple)]

    values: list[list[object]] = [
        [named(each) for each in lists],
        [each.score.tolist() for each in lists],
        [one.cutoff_time_us for one in asked],
        [each.history_count for each in lists],
        [version] * len(lists),
    ]
    return [pa.array(column, field.type) for column, field in zip(values, fields, strict=True)]
