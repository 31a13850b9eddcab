"""What `train`, `evaluate`, `predict` and `plan` do where the task is a ranking."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nowgraph.errors import UsageError
from nowgraph.report import emit, progress_console, row_bar
from temporal_graph.schema import dump_schema

if TYPE_CHECKING:
    from graph_transformer.checkpoint import Checkpoint
    from graph_transformer.finetune.question import Question
    from graph_transformer.finetune.ranking.metrics import RankingMetrics
    from graph_transformer.finetune.ranking.result import RankingResult
    from graph_transformer.splits import Interval
    from graph_transformer.task import Task
    from temporal_graph.view import GraphView


@dataclass(frozen=True, slots=True)
class Shown:
    """How a command tells what it did."""

    quiet: bool
    as_json: bool


def train_ranking(
    question: Question,
    output: Path,
    history: Sequence[Path],
    arena: Path | None,
    *,
    plan: Path | None,
    budget_s: float | None,
    seed: int,
    floors: bool,
    shown: Shown,
) -> None:
    """Fit a ranking and write what serving it needs: checkpoint, schema, plan, and the questions as a file."""
    from graph_transformer.finetune.loop import silent
    from graph_transformer.finetune.progress import progress_bars
    from graph_transformer.finetune.ranking.train import train as fit
    from nowgraph.ranking import asked_ranking, plan_ranking

    with asked_ranking(question, history, arena, folder=output, quiet=shown.quiet) as found:
        task, text = plan_ranking(found.task, plan)
        with progress_bars(progress_console()) if not shown.quiet else nullcontext(silent) as progress:
            result = fit(
                found.view,
                question.schema,
                task,
                output,
                questions=found.questions,
                budget_s=budget_s,
                seed=seed,
                progress=progress,
                floors=floors,
            )
        (output / "schema.yaml").write_text(dump_schema(question.schema), encoding="utf-8")
        (output / "plan.yaml").write_text(text, encoding="utf-8")
        _report_training(result, found.file, shown)


def refuse_options(task: str, **options: object) -> None:
    """Raise UsageError for options of other trainings that are given: they would be ignored."""
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value]
    if given:
        raise UsageError(
            f"task {task} is a ranking: {', '.join(given)} {'is' if len(given) == 1 else 'are'} not for it"
        )


def _report_training(result: RankingResult, file: Path, shown: Shown) -> None:
    from graph_transformer.finetune.ranking.evaluation_tables import table_of_metrics, table_of_parts

    title = f"Checkpoint {result.folder}, version {result.version[:12]}, {result.seconds:.0f} s"
    # Without validation and test nothing is measured.
    split, rankers = list(result.metrics.items())[-1] if result.metrics else ("no split to measure", {})
    emit(
        table_of_metrics(rankers),
        title=f"{title}; {split}",
        as_json=shown.as_json,
        document=result.to_dict() | {"questions": str(file)},
    )
    if shown.as_json:
        return
    if result.cuts and not shown.quiet:
        cut = "; ".join(map(str, result.cuts))
        progress_console().print(f"Cut to the budget: {cut}", highlight=False)
    if not rankers:
        return
    emit(table_of_parts(rankers), title=f"{split}: parts of the items, ranked among themselves", as_json=False)
    recall = [{"candidates": name, "recall": f"{share:.4f}"} for name, share in result.recall.get(split, {}).items()]
    if recall:
        emit(recall, title=f"{split}: wanted items among candidates", as_json=False)
    if not shown.quiet:
        console = progress_console()
        console.print(f"Next: nowgraph serve --checkpoint {result.folder} --history ...", style="dim")


@dataclass(frozen=True)
class MeasuredRanking:
    """Figures of a ranker of some version, and the seconds its lists took."""

    version: str
    metrics: RankingMetrics
    seconds: float


def evaluate_ranking(
    model: Checkpoint,
    folder: Path,
    view: GraphView,
    interval: Interval | None,
    labels: Path | None,
    *,
    device: str,
    quiet: bool,
) -> MeasuredRanking:
    """Measure a ranker of a folder, through the path that serves, on questions whose items are known.

    Raises:
        UsageError: the file of questions is not there.
    """
    from graph_transformer.finetune.query.task_table import read_labels
    from graph_transformer.finetune.ranking.evaluation_tables import measured_split
    from graph_transformer.finetune.ranking.metrics import LISTED
    from graph_transformer.finetune.ranking.questions import questions_of_labels
    from graph_transformer.ranking.ranker import Ranker
    from nowgraph.ranking import ranked_lists

    task = model.task
    ranked = task.target.ranked
    assert ranked is not None
    file = labels if labels is not None else folder / f"{task.name}.parquet"
    if not file.is_file():
        raise UsageError(f"{file}: no such file: --labels says where the questions of {task.name} are")
    questions = questions_of_labels(read_labels(file, view))
    chosen = interval if interval is not None else task.splits.test
    assert chosen is not None
    split = measured_split(view, ranked, task.splits, questions, chosen, new_within_us=task.ranking.new_within_us)
    ranker = Ranker(model, view, as_of_us=int(split.questions.cutoff_time_us.min()), device=device)
    began_s = time.monotonic()
    with row_bar("ranking", len(split.questions), quiet=quiet) as advance:
        lists = ranked_lists(ranker, view, split.questions, max(LISTED, ranked.top), advance=advance)
    seconds = time.monotonic() - began_s
    return MeasuredRanking(ranker.version, split.measure(lists, ranked.top), seconds)


def report_ranking(checkpoint: Path, task: Task, what: str, measured: MeasuredRanking, *, as_json: bool) -> None:
    """Show the figures of a ranker over all questions, and of the parts."""
    from graph_transformer.finetune.ranking.evaluation_tables import table_of_metrics, table_of_parts

    document: dict[str, Any] = {
        "checkpoint": str(checkpoint),
        "model_version": measured.version,
        "task": task.name,
        "kind": task.target.kind.value,
        "measured_on": what,
        "metrics": measured.metrics.to_dict(),
        "pictures": [],
        "seconds": measured.seconds,
    }
    found = {what: measured.metrics}
    title = f"Task {task.name}, version {measured.version}"
    emit(table_of_metrics(found), title=title, as_json=as_json, document=document)
    if not as_json:
        emit(table_of_parts(found), title="Parts of the items, ranked among themselves", as_json=False)


def predict_ranking(
    model: Checkpoint,
    view: GraphView,
    questions: Path,
    output: Path,
    *,
    time_column: str | None,
    device: str,
    shown: Shown,
) -> None:
    """Write a list beside each row of a file of keys."""
    from graph_transformer.ranking.ranker import Ranker
    from nowgraph.assembly import privacy_of
    from nowgraph.prediction import count_questions
    from nowgraph.ranking import rank_file
    from stream.settings import StreamSettings

    rows = count_questions(questions)
    ranker = Ranker(model, view, device=device)
    began_s = time.monotonic()
    with row_bar("ranking", rows, quiet=shown.quiet) as advance:
        privacy = privacy_of(view.schema, StreamSettings())
        rows = rank_file(view, ranker, questions, output, privacy=privacy, time_column=time_column, advance=advance)
    document: dict[str, Any] = {
        "output": str(output),
        "rows": rows,
        "task": ranker.task.name,
        "kind": ranker.task.target.kind.value,
        "model_version": ranker.version,
        "seconds": time.monotonic() - began_s,
    }
    emit([document], title="Ranked", as_json=shown.as_json, document=document)
