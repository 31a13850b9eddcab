"""``nowgraph plan``: what to sample, how large a model, how long to train: proposed from the data, with the reasons."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nowgraph.commands.options import AsJson, History, LabelFolder, QueryText, Quiet, SchemaPath, TaskPath
from nowgraph.errors import UsageError
from nowgraph.report import emit
from temporal_graph.schema import load_schema

if TYPE_CHECKING:
    from graph_transformer.finetune.propose import Proposal

SIZES = ("cpu", "gpu")


def plan(
    *,
    schema: SchemaPath,
    task: TaskPath = None,
    query: QueryText = None,
    labels: LabelFolder = None,
    history: History = None,
    arena: Annotated[Path | None, typer.Option("--arena", help="Ask a running updater's graph instead.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the plan here (YAML).")] = None,
    size: Annotated[str, typer.Option("--size", help="What the model is for: cpu or gpu.")] = "cpu",
    seed: Annotated[int, typer.Option(help="Which training examples are measured.")] = 0,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Propose a plan from the schema, degree statistics and labels; edit it, then `nowgraph train --plan`.

    Statistics are of training examples, each at its own cut-off: nothing later counts.
    """
    from graph_transformer.finetune.propose import propose
    from graph_transformer.finetune.question import question_of
    from graph_transformer.target import Kind
    from nowgraph.asking import asked, text_of

    if size not in SIZES:
        raise UsageError(f"--size: expected {' or '.join(SIZES)}, found {size!r}")
    if output is not None and output.exists():
        raise UsageError(f"{output}: exists already, and a proposal overwrites nothing")
    question = question_of(load_schema(schema), task=task, query=text_of(query), labels=labels)
    if question.target.kind is Kind.RANKING:
        raise UsageError(
            f"task {question.name} is a ranking: `nowgraph train` has a plan for it, and leaves it as plan.yaml"
        )
    with asked(question, history or [], arena, quiet=quiet) as found:
        proposal = propose(
            found.view,
            found.task.target,
            found.task.splits,
            found.labels,
            size="gpu" if size == "gpu" else "cpu",
            seed=seed,
        ).over(found.question.over, found.task)
    text = proposal.to_yaml()
    if output is not None:
        output.write_text(text, encoding="utf-8")
    _report(question.name, proposal, output, text, as_json=as_json)


def _report(name: str, proposal: Proposal, output: Path | None, text: str, *, as_json: bool) -> None:
    rows, model, training = proposal.rows, proposal.plan.model, proposal.plan.training
    document: dict[str, Any] = {
        "task": name,
        "size": proposal.size,
        "examples": proposal.counts.examples,
        "rows": {"mean": rows.mean, "p95": rows.p95},
        "links": proposal.table(),
        "plan": proposal.plan.to_dict(),
        "output": None if output is None else str(output),
    }
    models = "" if model.members == 1 else f"{model.members} models of "
    title = (
        f"{name}: {rows.mean:.0f} rows a question (p95 {rows.p95:.0f}), {models}width {model.width}, "
        f"{model.layers} layers, {training.steps} steps of {training.batch}, from {proposal.counts.examples:,} labels"
    )
    emit(proposal.table(), title=title, as_json=as_json, document=document)
    if not as_json:
        typer.echo(text if output is None else f"Written to {output}: edit it, then nowgraph train --plan {output}")
