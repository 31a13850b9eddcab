"""``nowgraph train``: history from files (or a live arena) -> graph -> fine-tuned checkpoint, figures and pictures."""

from __future__ import annotations

import os
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nowgraph.commands.options import AsJson, History, LabelFolder, QueryText, Quiet, SchemaPath, TaskPath
from nowgraph.commands.ranking import Shown, refuse_options, train_ranking
from nowgraph.errors import UsageError
from nowgraph.report import emit, progress_console, without_blank_columns
from temporal_graph.schema import dump_schema, load_schema

if TYPE_CHECKING:
    from graph_transformer.finetune.ranks import Ranks
    from graph_transformer.finetune.runtime import Runtime
    from graph_transformer.finetune.train import TrainResult
    from graph_transformer.task import Task
    from nowgraph.asking import Asked


def train(
    *,
    schema: SchemaPath,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the checkpoint and the pictures.")],
    task: TaskPath = None,
    query: QueryText = None,
    labels: LabelFolder = None,
    plan: Annotated[
        Path | None, typer.Option("--plan", help="What to sample, the model and its training (YAML); else proposed.")
    ] = None,
    size: Annotated[str, typer.Option("--size", help="Of a proposed plan: cpu or gpu.")] = "cpu",
    history: History = None,
    arena: Annotated[Path | None, typer.Option("--arena", help="Train on a running updater's graph instead.")] = None,
    budget: Annotated[str | None, typer.Option("--budget", help="Time that fitting may take, such as 10m.")] = None,
    search: Annotated[bool, typer.Option(help="Spend the budget on a search over the plan first.")] = False,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal models, unless a budget ends them.")] = 0,
    floors: Annotated[bool, typer.Option(help="Also measure constant, last value and LightGBM on raw columns.")] = True,
    baseline: Annotated[bool, typer.Option(help="Also fit and measure the row's own columns alone.")] = False,
    pretrained: Annotated[Path | None, typer.Option(help="Begin with the weights of `nowgraph pretrain`.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on where a killed training of the same output was.")] = False,
    samplers: Annotated[int, typer.Option(min=1, help="Threads that sample ahead of the model.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Threads of PyTorch; sampling runs beside on its own.")] = 1,
    compiled: Annotated[bool, typer.Option("--compile", help="Fit through torch.compile.")] = False,
    device: Annotated[str, typer.Option(help="Where to fit: cpu or cuda.")] = "cpu",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Fine-tune a model on a query or a task, through the same updater, sampler and collate that serve.

    The output holds the checkpoint, its pictures, the schema it is served under and the past labels of its task.
    """
    import torch

    from graph_transformer.finetune.question import question_of
    from graph_transformer.finetune.ranks import joined
    from graph_transformer.target import Kind
    from nowgraph.asking import asked, duration_s, plan_task, plan_text, search_plan, text_of

    torch.set_num_threads(threads)
    question = question_of(load_schema(schema), task=task, query=text_of(query), labels=labels)
    budget_s = None if budget is None else duration_s(budget)
    if question.target.kind is Kind.RANKING:
        _one_process("a ranking is fitted by one process")
        refuse = {"search": search, "baseline": baseline, "pretrained": pretrained, "resume": resume}
        refuse |= {"samplers": samplers > 1, "compile": compiled, "device": device != "cpu", "size": size != "cpu"}
        refuse_options(question.name, **refuse)
        options: dict[str, Any] = {"budget_s": budget_s, "seed": seed, "floors": floors, "plan": plan}
        train_ranking(question, output, history or [], arena, shown=Shown(quiet=quiet, as_json=as_json), **options)
        return
    if search and budget_s is None:
        raise UsageError("--search spends the time of --budget: give one, such as --budget 10m")
    if search:
        _one_process("--search is for one process; then fit the plan.yaml it wrote with several, by --plan")
    with ExitStack() as stack:
        ranks, device = stack.enter_context(joined(os.environ, device))
        shown = not quiet and ranks.is_first
        folder = output if ranks.is_first else None  # each rank reads labels of its own: one file has one writer
        found = stack.enter_context(asked(question, history or [], arena, label_folder=folder, quiet=not shown))
        runtime = _runtime(output, ranks, device=device, samplers=samplers, compiled=compiled, resume=resume)
        planned, text = plan_task(found, plan, size=size, seed=seed)
        if search and budget_s is not None:
            planned = search_plan(found, planned, budget_s=budget_s, seed=seed, quiet=not shown, runtime=runtime)
            text = plan_text(planned)
        options = {"baseline": baseline, "floors": floors, "pretrained": pretrained, "seed": seed}
        options["budget_s"] = None if search else budget_s
        result = _fitted(found, planned, output, runtime, shown=shown, options=options)
        if ranks.is_first:
            (output / "schema.yaml").write_text(dump_schema(question.schema), encoding="utf-8")
            (output / "plan.yaml").write_text(text, encoding="utf-8")
            _report(result, found, as_json=as_json, quiet=quiet)


def _one_process(reason: str) -> None:
    """Raise UsageError where `torchrun` started several: their clocks, or what they write, would not agree."""
    size = os.environ.get("WORLD_SIZE", "1")
    if int(size) > 1:
        raise UsageError(f"{reason}; torchrun started {size}")


def _runtime(output: Path, ranks: Ranks, *, device: str, samplers: int, compiled: bool, resume: bool) -> Runtime:
    from graph_transformer.finetune.runtime import Runtime

    return Runtime(
        device=device,
        samplers=samplers,
        compile=compiled,
        state=output / "state",
        resume=resume,
        logs=output / "logs",
        ranks=ranks,
    )


def _fitted(
    found: Asked, task: Task, output: Path, runtime: Runtime, *, shown: bool, options: dict[str, Any]
) -> TrainResult:
    from graph_transformer.finetune.loop import silent
    from graph_transformer.finetune.progress import progress_bars
    from graph_transformer.finetune.train import train as fit

    schema = found.question.schema
    with progress_bars(progress_console()) if shown else nullcontext(silent) as progress:
        return fit(found.view, schema, task, output, labels=found.labels, progress=progress, runtime=runtime, **options)


def _report(result: TrainResult, found: Asked, *, as_json: bool, quiet: bool) -> None:
    found_on = [{"measured on": name, **each.figures()} for name, each in result.metrics.items()]
    rows = without_blank_columns(found_on)
    document = {
        "checkpoint": str(result.folder),
        "version": result.version,
        "task": result.checkpoint.task.name,
        "steps": result.steps,
        "seconds": result.seconds,
        "wait_share": result.wait_share,
        "metrics": {name: each.to_dict() for name, each in result.metrics.items()},
        "pictures": [str(path) for path in result.pictures],
        "labels": None if found.label_file is None else str(found.label_file),
    }
    title = f"Checkpoint {result.folder}, version {result.version[:12]}, {result.steps} steps in {result.seconds:.0f} s"
    emit(rows, title=title, as_json=as_json, document=document)
    if not as_json and not quiet:
        more = "" if found.label_file is None else f" --history {found.label_file}"
        progress_console().print(f"Next: nowgraph serve --checkpoint {result.folder} --history ...{more}", style="dim")
