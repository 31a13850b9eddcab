"""``nowgraph train``: history from files (or a live arena) -> graph -> fine-tuned checkpoint, figures and pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nowgraph.commands.options import AsJson, Quiet, SchemaPath
from nowgraph.errors import UsageError
from nowgraph.report import emit, progress_console
from temporal_graph.schema import Schema, load_schema

if TYPE_CHECKING:
    from temporal_graph.view import GraphView


def train(
    *,
    schema: SchemaPath,
    task: Annotated[
        Path, typer.Option("--task", help="What to predict, from which neighborhood, on which times (YAML).")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the checkpoint and the pictures.")],
    history: Annotated[
        list[Path] | None, typer.Option("--history", help="Parquet or JSONL; named as its topic or table.")
    ] = None,
    arena: Annotated[Path | None, typer.Option("--arena", help="Train on a running updater's graph instead.")] = None,
    budget_s: Annotated[float | None, typer.Option("--budget", help="Seconds that fitting may take.")] = None,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal models, unless a budget ends them.")] = 0,
    baseline: Annotated[bool, typer.Option(help="Also fit and measure the row's own columns alone.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="Threads of PyTorch; sampling runs beside on its own.")] = 1,
    device: Annotated[str, typer.Option(help="Where to fit: cpu or cuda.")] = "cpu",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Fine-tune a model on a task, through the same updater, sampler and collate that serve."""
    import torch

    from graph_transformer.finetune.progress import progress_bars
    from graph_transformer.finetune.train import train as fit
    from graph_transformer.task import load_task

    torch.set_num_threads(threads)
    loaded, loaded_task = load_schema(schema), load_task(task)
    if (arena is None) == (not history):
        raise UsageError("either --history (files) or --arena (a running updater's graph) says what to train on")
    with _graph(loaded, history or [], arena, quiet=quiet) as view:
        bars = nullcontext(lambda _: None) if quiet else progress_bars(progress_console())
        with bars as progress:
            result = fit(
                view,
                loaded,
                loaded_task,
                output,
                budget_s=budget_s,
                seed=seed,
                progress=progress,
                baseline=baseline,
                device=device,
            )
    rows: list[dict[str, Any]] = [{"measured on": name, **found.to_dict()} for name, found in result.metrics.items()]
    document = {
        "checkpoint": str(result.folder),
        "version": result.version,
        "steps": result.steps,
        "seconds": result.seconds,
        "metrics": {name: found.to_dict() for name, found in result.metrics.items()},
        "pictures": [str(path) for path in result.pictures],
    }
    title = f"Checkpoint {result.folder}, version {result.version[:12]}, {result.steps} steps in {result.seconds:.0f} s"
    emit(rows, title=title, as_json=as_json, document=document)


@contextmanager
def _graph(schema: Schema, history: list[Path], arena: Path | None, *, quiet: bool) -> Iterator[GraphView]:
    from temporal_graph.view import GraphView

    if arena is not None:
        view = GraphView.attach(schema, arena)
        try:
            yield view
        finally:
            view.close()
        return
    from nowgraph.loading import load_files
    from temporal_graph.graph import TemporalGraph

    with TemporalGraph.create(schema) as graph:
        load_files(graph, history, quiet=quiet)
        yield graph.view()
