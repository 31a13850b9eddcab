"""A question and the graph it is asked of: history, the labels it needs, and these labels as rows of the graph.

schema + task table ─► graph ◄─ history files
                         └─► label table ─► Parquet ─► the same graph ─► task, labels
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nowgraph.errors import UsageError
from nowgraph.loading import load_files, opened_graph
from nowgraph.report import cell_text, progress_console, table_of
from temporal_graph.duration import parse_duration_us
from temporal_graph.graph import TemporalGraph

if TYPE_CHECKING:
    from graph_transformer.finetune.examples import Labels
    from graph_transformer.finetune.question import Question
    from graph_transformer.finetune.runtime import Runtime
    from graph_transformer.finetune.search import Trial
    from graph_transformer.task import Task
    from temporal_graph.view import GraphView


@dataclass(frozen=True)
class Asked:
    """A question on a loaded graph: its task and labels; `label_file` is the Parquet file of past labels, if any."""

    question: Question
    view: GraphView
    task: Task
    labels: Labels
    label_file: Path | None


@contextmanager
def asked(
    question: Question, history: Sequence[Path], arena: Path | None, *, label_folder: Path | None = None, quiet: bool
) -> Iterator[Asked]:
    """Load history under the question's schema, compute its labels, and load these too, known when they were.

    The label file is written into `label_folder`, or lost with the context. A running updater's graph (`arena`) is only
    read: its past labels must be in it already.

    Raises:
        UsageError: neither or both of history and arena are given, the arena lacks the task table, or it is a ranking.
        NotEnoughExamples: there are no labels.
    """
    from graph_transformer.finetune.query.task_table import write_labels
    from graph_transformer.target import Kind

    if question.target.kind is Kind.RANKING:
        raise UsageError(
            f"task {question.name} is a ranking: it has lists, which are no labels of a model of this kind"
        )
    if arena is not None:
        with opened_graph(question.schema, history, arena, quiet=quiet) as view:
            task, labels = question.task(view, question.label_table(view))
            yield Asked(question, view, task, labels, None)
        return
    if not history:
        raise UsageError("either --history (files) or --arena (a running updater's graph) says what the graph holds")
    with ExitStack() as stack:
        graph = stack.enter_context(TemporalGraph.create(question.schema))
        load_files(graph, history, quiet=quiet)
        view = graph.view()
        table = question.label_table(view)
        file = None
        if table is not None:
            folder = label_folder if label_folder is not None else Path(stack.enter_context(_scratch()))
            folder.mkdir(parents=True, exist_ok=True)
            file = folder / f"{question.name}.parquet"
            write_labels(table[0], file, view)
            load_files(graph, [file], quiet=quiet)
        task, labels = question.task(view, table)
        top_note = None if question.bound is None else question.bound.top_note
        for note in () if quiet else (top_note, given_away(task, labels)):
            if note is not None:
                progress_console().print(note, highlight=False)
        yield Asked(question, view, task, labels, file)


def given_away(task: Task, labels: Labels) -> str | None:
    """What to look at where an outcome is known the moment its row happens, as then all of the row's columns are.

    A graph cannot know whether they were: files that were written afterwards look the same.
    """
    target = task.target
    if not target.event_level:
        return None
    found = labels.known(None)
    if not len(found) or (found.visible_time_us > found.time_us).any():
        return None
    return (
        f"Each {target.table}.{target.column} is known the moment its row happens, and with it every other column of "
        f"{target.table}: the model reads them. What is filled in later has to come later (docs/QUERY.md, Known later)."
    )


def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="nowgraph-labels-")


def text_of(query: str | None) -> str | None:
    """Return the query's text, read from a file where it is the path of one."""
    if query is None or query.lstrip()[:7].upper() == "PREDICT" or not Path(query).is_file():
        return query
    return Path(query).read_text(encoding="utf-8")


def duration_s(text: str) -> float:
    """Return the seconds of a duration such as 10m, or of a plain number of seconds.

    Raises:
        UsageError: it is neither.
    """
    try:
        return float(text) if text.replace(".", "", 1).isdigit() else parse_duration_us(text) / 1e6
    except ValueError as error:
        raise UsageError(f"--budget: {error}") from error


def plan_task(found: Asked, plan: Path | None, *, size: str, seed: int) -> tuple[Task, str]:
    """Return the task with its plan, and the plan as YAML: the file given, what the task file says, or a proposal.

    Raises:
        TaskError, PlanError: the plan file is none.
        UsageError: the size is not one of the two.
    """
    from graph_transformer.finetune.propose import propose
    from graph_transformer.plan import load_plan

    task = found.task
    if size not in ("cpu", "gpu"):
        raise UsageError(f"--size: expected cpu or gpu, found {size!r}")
    if plan is not None:
        task = load_plan(plan).apply(task)
    if plan is not None or found.question.has_plan:
        return task, plan_text(task)
    proposal = propose(found.view, task.target, task.splits, found.labels, size=size, seed=seed)  # type: ignore[arg-type]  # checked above
    proposal = proposal.over(found.question.over, task)
    return proposal.plan.apply(task), proposal.to_yaml()


def search_plan(
    found: Asked, task: Task, *, budget_s: float, seed: int, quiet: bool, runtime: Runtime | None = None
) -> Task:
    """Return the task with the best plan that a search around its own found within a time; shows what was tried."""
    from graph_transformer.finetune.search import search

    console = progress_console()
    with console.status("searching plans") if not quiet else nullcontext():

        def told(trial: Trial) -> None:
            if not quiet:
                console.print(f"plan {trial.number}: {trial.state}, {cell_text(trial.score)}", highlight=False)

        best, study = search(
            found.view, task, found.labels, budget_s=budget_s, seed=seed, runtime=runtime, on_trial=told
        )
    if not quiet:
        console.print(table_of(study.table(), f"Plans tried, by {study.metric} on {len(study.cuts)} cuts"))
    return best.apply(task)


def plan_text(task: Task) -> str:
    """Return the task's plan as YAML."""
    from graph_transformer.plan import ModelPlan

    return ModelPlan(task.sampling_plan, task.model, task.training).to_yaml()
