"""From what a person writes to a task that can be trained: a query or a task file, bound to a schema and a graph.

query | task.yaml ─► Question (schema with the table of past labels) ─► graph loaded under that schema
                   ├► label_table(view) ─► LabelTable ─► rows for the graph
                   └► task(view, labels) ─► Task, and the Labels its examples come from
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from graph_transformer.config import ModelConfig
from graph_transformer.errors import TaskError
from graph_transformer.finetune.examples import Examples, Labels, OutcomeLabels
from graph_transformer.finetune.query.bind import bind_query
from graph_transformer.finetune.query.bound import BoundQuery
from graph_transformer.finetune.query.files import read_label_files
from graph_transformer.finetune.query.label_table import LabelTable
from graph_transformer.finetune.query.labels import make_labels
from graph_transformer.finetune.query.parse import parse_query
from graph_transformer.finetune.query.splits import ANCHORS_MAX, anchors_for, default_splits, event_splits, time_range
from graph_transformer.finetune.query.task_table import task_schema
from graph_transformer.finetune.ranking.questions import RankingQuestions, questions_before, questions_of_labels
from graph_transformer.finetune.task_file import TaskFile, load_task_file
from graph_transformer.ranking.config import RankingConfig
from graph_transformer.splits import NEVER, Splits, check_refit
from graph_transformer.target import Kind, Target
from graph_transformer.task import Task, mapping_of
from graph_transformer.training import Training
from online_sampler.plan import ALONE, SamplingPlan
from temporal_graph.schema import Schema

if TYPE_CHECKING:
    from temporal_graph.view import GraphView

DAY_US = 86_400_000_000
LABELS_ENOUGH = 10_000
"""Where so many anchors as usual have fewer labels, a longer history is asked."""
ASKED_MAX = 50_000_000
"""Entities times anchors beyond which no more are asked for: some seconds."""
ANCHORS_PER_WINDOW = 4
"""Anchors within one label window unless the task says: overlapping windows train better than few."""


@dataclass(frozen=True)
class QueryLabels:
    """The labels of an event-level query, computed anew for what was known by a time."""

    view: GraphView
    bound: BoundQuery
    target: Target
    made: dict[int | None, Examples] = field(default_factory=dict)

    def known(self, known_by_us: int | None) -> Examples:
        """Return the examples by event time, with the labels as known by then."""
        if known_by_us not in self.made:
            labels = make_labels(
                self.view,
                self.bound,
                np.empty(0, dtype=np.int64),
                known_by_us=known_by_us,
                classes=self.target.classes or None,
            )
            self.made[known_by_us] = labels.to_examples()
        return self.made[known_by_us]


@dataclass(frozen=True)
class Question:
    """What is asked, bound to a schema: `schema` has the task table where past labels become rows of the graph."""

    name: str
    schema: Schema
    target: Target
    file: TaskFile
    bound: BoundQuery | None = None

    @property
    def text(self) -> str | None:
        """The query's text, where there is one."""
        return self.file.query

    def label_table(self, view: GraphView) -> tuple[LabelTable, Splits] | None:
        """Return the labels of an entity-level question and the splits they suggest.

        None of an event-level one, and of a ranking that is asked before interactions.

        Raises:
            TaskError, NotEnoughExamples: files or tables have no labels.
        """
        if self.target.event_level or self.file.anchors.before is not None:
            return None
        files = self.file.label_files
        if files is not None:
            found = read_label_files(
                files.files,
                source=view,
                table=files.table,
                task_name=self.name,
                key=files.key,
                time=files.time,
                value=files.value,
                window_us=files.window_us,
                kind=files.kind,
            )
            return found.labels, found.splits
        assert self.bound is not None
        span, anchors = time_range(view, self.bound), self.file.anchors
        first_us = span.first_us if anchors.first_us is None else anchors.first_us - 1
        last_us = span.last_us if anchors.last_us is None else min(span.last_us, anchors.last_us)
        step_us = anchors.step_us
        if step_us is None and self.target.horizon_us >= ANCHORS_PER_WINDOW * DAY_US:
            step_us = self.target.horizon_us // ANCHORS_PER_WINDOW // DAY_US * DAY_US
        most, entities = ANCHORS_MAX, view.row_count(self.bound.entity)
        while True:
            times = anchors_for(self.bound, first_us, last_us, step_us, anchors_max=most)
            labels = make_labels(view, self.bound, times, task_name=self.name)
            if len(times) < most or len(labels) >= LABELS_ENOUGH or entities * most > ASKED_MAX:
                break
            most *= 4  # at most times nobody is asked: a season's storms, a WHERE that few fulfil
        return labels, self.file.splits or default_splits(self.bound, labels)

    def ranking(self, view: GraphView) -> tuple[RankingQuestions, Splits]:
        """Return the questions of a ranking with their items, and the splits that the file has or they suggest.

        Raises:
            TaskError: as `questions_before`.
            NotEnoughExamples: there are too few to split by time.
        """
        table = self.label_table(view)
        if table is not None:
            return questions_of_labels(table[0]), table[1]
        assert self.bound is not None
        found = questions_before(view, self.bound, self.file.anchors)
        return found, self.file.splits or event_splits(found.time_us, found.known_time_us)

    def task(self, view: GraphView, table: tuple[LabelTable, Splits] | None) -> tuple[Task, Labels]:
        """Return the task and its labels; its sampling plan holds no neighbors where the file has none.

        Where the file has no splits, those found have a refit: the newest labels come closest to what will be asked.

        Raises:
            TaskError: a part of the plan that the file has is none.
            NotEnoughExamples: there are too few labels to split by time.
        """
        target = self.target
        if table is not None:
            target = replace(table[0].target, task_table=self.target.task_table)
            labels: Labels = table[0]  # of a time, as they were known then
            splits = _merged(self.file.splits, table[1])
        elif self.bound is not None:
            whole = make_labels(view, self.bound, np.empty(0, dtype=np.int64))
            target = replace(target, classes=whole.target.classes)
            splits = self.file.splits or default_splits(self.bound, whole).refitted()
            labels = QueryLabels(view, self.bound, target, {None: whole.to_examples()})
        else:
            labels = OutcomeLabels(view, target)
            if self.file.splits is None:
                raise TaskError("splits", "intervals, where the task is no query", None)
            splits = self.file.splits
        return self.planned(target, splits), labels

    def planned(self, target: Target, splits: Splits) -> Task:
        """Return the task with what the file says of a plan."""
        plan = self.file.plan
        return Task(
            name=self.name,
            target=target,
            splits=splits,
            sampling_plan=SamplingPlan.from_dict(plan.get("sampling_plan", ALONE)),
            model=ModelConfig.from_dict(mapping_of("model", plan.get("model", {}), None)),
            training=Training.from_dict(mapping_of("training", plan.get("training", {}), None)),
            ranking=RankingConfig.from_dict(mapping_of("ranking", plan.get("ranking", {}), None)),
            query=self.text,
            **self.file.options,
        )

    def over(self, task: Task) -> Task:
        """Return the task with what the file says of model and training laid over its plan."""
        model = {**task.model.to_dict(), **self.file.plan.get("model", {})}
        training = {**task.training.to_dict(), **self.file.plan.get("training", {})}
        return replace(task, model=ModelConfig.from_dict(model), training=Training.from_dict(training))

    @property
    def has_plan(self) -> bool:
        """Whether the file says what to sample; else a plan is to be proposed."""
        return "sampling_plan" in self.file.plan


def _merged(written: Splits | None, found: Splits) -> Splits:
    """Return the splits that were found, with what the task says beside them; raises TaskError."""
    if written is None:
        return found.refitted()
    if written.train != NEVER:
        return written
    merged = replace(found, refit=written.refit, known_by_us=written.known_by_us, frozen_us=written.frozen_us)
    check_refit(merged)
    return merged


def ask(file: TaskFile, schema: Schema) -> Question:
    """Bind a task file to a schema.

    Raises:
        QueryError: the query is none, or names what the schema does not have.
        TaskError: the task does not fit the schema.
    """
    bound = None
    if file.query is not None:
        bound = bind_query(parse_query(file.query), schema)
        target = bound.target(file.name)
    elif file.label_files is not None:
        files = file.label_files
        schema.table(files.table)
        target = Target(files.kind, files.table, False, horizon_us=files.window_us, task_table=file.name)
    else:
        assert file.target is not None
        target = file.target
    if file.anchors.before is not None and target.kind is not Kind.RANKING:
        raise TaskError("anchors.before", "a query that ranks (LIST_DISTINCT of a link, RANK TOP k)", target.kind.value)
    if target.kind is Kind.RANKING and bound is None:
        raise TaskError("query", "a query that lists what is ranked (LIST_DISTINCT of a link, RANK TOP k)", None)
    return Question(file.name, task_schema(schema, target), target, file, bound)


def question_of(
    schema: Schema, *, task: Path | None = None, query: str | None = None, labels: Path | None = None
) -> Question:
    """Return the question of a task file, or of a query alone (its task is then named `question`).

    Raises:
        QueryError, TaskError: as `ask` and `load_task_file`.
    """
    if (task is None) == (query is None):
        raise TaskError("task", "either a task file or a query", None)
    file = load_task_file(task, labels=labels) if task is not None else TaskFile(name="question", query=query)
    return ask(file, schema)


def written_task(path: Path, schema: Schema) -> Task:
    """Return the task of a file that says everything: a query or column with classes known, splits and a plan.

    Raises:
        TaskError: the splits are left to be found from data, or as `question_of`.
    """
    question = question_of(schema, task=path)
    if question.file.splits is None:
        raise TaskError("splits", "intervals", None)
    return question.planned(question.target, question.file.splits)
