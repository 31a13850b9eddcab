"""``nowgraph pretrain``: history -> graph -> weights learned from its own rows; ``nowgraph train`` begins with them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nowgraph.commands.options import AsJson, History, LabelFolder, QueryText, Quiet, SchemaPath, TaskPath
from nowgraph.errors import UsageError
from nowgraph.report import emit, progress_console
from temporal_graph.schema import Schema, load_schema

if TYPE_CHECKING:
    from graph_transformer.finetune.examples import Labels
    from graph_transformer.finetune.runtime import Runtime
    from graph_transformer.pretrain.curve import Curve
    from graph_transformer.pretrain.pretrain import PretrainResult
    from graph_transformer.task import Task
    from temporal_graph.view import GraphView


def pretrain(
    *,
    schema: SchemaPath,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the weights and their statistics.")],
    task: TaskPath = None,
    query: QueryText = None,
    labels: LabelFolder = None,
    table: Annotated[
        str | None, typer.Option(help="Without a task: the table whose rows are asked; default: the longest.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Without a task: learn from rows before this time (ISO).")] = None,
    plan: Annotated[
        Path | None, typer.Option("--plan", help="What to sample, the model and its training (YAML); else proposed.")
    ] = None,
    size: Annotated[str, typer.Option("--size", help="Of a proposed plan: cpu or gpu.")] = "cpu",
    history: History = None,
    arena: Annotated[Path | None, typer.Option("--arena", help="Learn from a running updater's graph instead.")] = None,
    budget: Annotated[str | None, typer.Option("--budget", help="Time that fitting may take, such as 10m.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps; default: those of the plan's training.")] = None,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal weights, unless a budget ends them.")] = 0,
    curve: Annotated[
        int,
        typer.Option(min=0, help="Also train the task on 1, 10 and 100 % of its labels with and without, so often."),
    ] = 0,
    resume: Annotated[bool, typer.Option(help="Go on where a killed one of the same output was.")] = False,
    samplers: Annotated[int, typer.Option(min=1, help="Threads that sample ahead of the model.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Threads of PyTorch; sampling runs beside on its own.")] = 1,
    compiled: Annotated[bool, typer.Option("--compile", help="Fit through torch.compile.")] = False,
    device: Annotated[str, typer.Option(help="Where to fit: cpu or cuda.")] = "cpu",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Learn the rows of a graph without labels: hidden cells, and when an entity's next event comes.

    `nowgraph train --pretrained OUTPUT --plan OUTPUT/plan.yaml` begins with the weights. Whether that helps depends on
    the data, and most where labels are few: `--curve 2` measures it.
    """
    import torch

    from graph_transformer.finetune.ranks import joined
    from graph_transformer.finetune.runtime import Runtime
    from nowgraph.asking import duration_s

    torch.set_num_threads(threads)
    with ExitStack() as stack:
        ranks, device = stack.enter_context(joined(os.environ, device))
        quiet = quiet or not ranks.is_first
        runtime = Runtime(device, samplers, compiled, output / "state", resume, logs=output / "logs", ranks=ranks)
        given = Given(load_schema(schema), task, query, labels, table, until, plan, size, history or [], arena)
        found = stack.enter_context(_asked(given, seed=seed, steps=steps, quiet=quiet))
        if curve and found.labels is None:
            raise UsageError("--curve: a task or query says what is trained with the weights")
        budget_s = None if budget is None else duration_s(budget)
        result, measured = _learned(
            found, output, runtime, budget_s=budget_s, seed=seed, seeds=range(curve), quiet=quiet
        )
        if ranks.is_first:
            _report(result, measured, runtime, as_json=as_json)


@dataclass(frozen=True)
class Given:
    """What was said of the rows to learn from."""

    schema: Schema
    task: Path | None
    query: str | None
    labels: Path | None
    table: str | None
    until: str | None
    plan: Path | None
    size: str
    history: list[Path]
    arena: Path | None


@dataclass(frozen=True)
class Found:
    """A loaded graph, its schema, and the task whose plan and times count; labels where there is a question."""

    view: GraphView
    schema: Schema
    task: Task
    labels: Labels | None


@contextmanager
def _asked(given: Given, *, seed: int, steps: int | None, quiet: bool) -> Iterator[Found]:
    from dataclasses import replace

    from graph_transformer.finetune.question import question_of
    from graph_transformer.plan import load_plan
    from graph_transformer.pretrain.seeds import task_of_rows
    from graph_transformer.splits import parse_time
    from nowgraph.asking import asked, plan_task, text_of
    from nowgraph.loading import opened_graph

    def planned(task: Task) -> Task:
        return task if steps is None else replace(task, training=replace(task.training, steps=steps))

    if given.task is not None or given.query is not None:
        if given.table is not None or given.until is not None:
            raise UsageError("--table and --until are for pre-training without a task")
        question = question_of(given.schema, task=given.task, query=text_of(given.query), labels=given.labels)
        with asked(question, given.history, given.arena, quiet=quiet) as found:
            task, _ = plan_task(found, given.plan, size=given.size, seed=seed)
            yield Found(found.view, question.schema, planned(task), found.labels)
        return
    if given.until is None:
        raise UsageError("without a task, --until says which rows may be learned from: a task's validation comes later")
    with opened_graph(given.schema, given.history, given.arena, quiet=quiet) as view:
        task = task_of_rows(view, given.table, parse_time("--until", given.until))
        if given.plan is not None:
            task = load_plan(given.plan).apply(task)
        yield Found(view, given.schema, planned(task), None)


def _learned(
    found: Found,
    output: Path,
    runtime: Runtime,
    *,
    budget_s: float | None,
    seed: int,
    seeds: range,
    quiet: bool,
) -> tuple[PretrainResult, Curve | None]:
    from graph_transformer.finetune.loop import silent
    from graph_transformer.finetune.progress import progress_bars
    from graph_transformer.finetune.runtime import Runtime
    from graph_transformer.pretrain.curve import few_labels
    from graph_transformer.pretrain.pretrain import pretrain as learn
    from nowgraph.asking import plan_text

    with nullcontext(silent) if quiet else progress_bars(progress_console()) as report:
        result = learn(
            found.view,
            found.schema,
            found.task,
            output,
            labels=found.labels,
            budget_s=budget_s,
            seed=seed,
            progress=report,
            runtime=runtime,
        )
        if not runtime.ranks.is_first:
            return result, None
        (output / "plan.yaml").write_text(plan_text(found.task), encoding="utf-8")
        if not seeds:
            return result, None
        alone = Runtime(runtime.device, runtime.samplers)
        return result, few_labels(
            found.view,
            found.task,
            result.pretrained,
            labels=found.labels,
            seeds=seeds,
            report=report,
            runtime=alone,
        )


def _report(result: PretrainResult, curve: Curve | None, runtime: Runtime, *, as_json: bool) -> None:
    rows: list[dict[str, Any]] = [
        {**line, "learned": f"{1.0 - line['loss'] / line['loss of shares']:.1%}" if line["loss of shares"] else "-"}
        for line in result.pretrained.learned
    ]
    document: dict[str, Any] = {
        "pretrained": str(result.folder),
        "steps": result.steps,
        "wait_share": result.wait_share,
        "learned": [dict(line) for line in result.pretrained.learned],
        "logs": str(runtime.logs),
    }
    lines: list[dict[str, Any]] = []
    if curve is not None:
        document["pictures"] = [str(path) for path in curve.save(result.folder)]
        lines = [
            {"begun": begun, "split": split, "share": point.share, "mean": point.mean, "spread": point.spread}
            for split in ("validation", "test")
            for begun, points in curve.lines(split).items()
            for point in points
        ]
        document |= {"metric": curve.metric, "curve": lines}
    emit(rows, title=f"Pre-trained in {result.folder}, {result.steps} steps", as_json=as_json, document=document)
    if lines and curve is not None and not as_json:
        emit(lines, title=f"{curve.metric} by share of the labels", as_json=False)
