"""``nowgraph predict``: questions in a Parquet file -> the same rows with answers, by the path that serves."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from nowgraph.commands.options import (
    AsJson,
    CheckpointPath,
    CheckpointSchemaPath,
    Device,
    FixedShape,
    History,
    Quiet,
)
from nowgraph.commands.ranking import Shown, predict_ranking
from nowgraph.report import emit, row_bar


def predict(
    *,
    checkpoint: CheckpointPath,
    questions: Annotated[
        Path, typer.Option("--input", "-i", help="Parquet: rows as events, or keys and a time, as the task asks.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Parquet: the same rows with their answers.")],
    schema: CheckpointSchemaPath = None,
    history: History = None,
    arena: Annotated[Path | None, typer.Option("--arena", help="A running updater's graph instead of files.")] = None,
    time_column: Annotated[
        str | None,
        typer.Option(help="The time asked about. Default: the table's; of entities anchor_time, else the newest time."),
    ] = None,
    fixed_shape: FixedShape = False,
    threads: Annotated[int, typer.Option(min=1, help="Threads of PyTorch.")] = 1,
    device: Device = "cpu",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Answer every row of a Parquet file, through the request check, sampler, collate and model that serve.

    A task about events takes rows like the events themselves (key, time, cells, links), each asked just before it
    happens; one about entities takes keys, as of a time. Answers, or a ranking's lists, are columns beside the input's.
    """
    import torch

    from graph_transformer.checkpoint import Checkpoint
    from graph_transformer.device import find_device
    from graph_transformer.predictor import Predictor
    from graph_transformer.target import Kind
    from nowgraph.assembly import privacy_of, schema_of, warn_without_labels
    from nowgraph.loading import opened_graph
    from nowgraph.prediction import count_questions, predict_file
    from stream.settings import StreamSettings
    from temporal_graph.schema import load_schema

    find_device(device)  # before the graph is loaded
    loaded = load_schema(schema_of(checkpoint, schema))
    rows = count_questions(questions)
    with opened_graph(loaded, history or [], arena, quiet=quiet) as view:
        model = Checkpoint.load(checkpoint, loaded)
        if model.task.target.kind is Kind.RANKING:
            shown = Shown(quiet=quiet, as_json=as_json)
            predict_ranking(model, view, questions, output, time_column=time_column, device=device, shown=shown)
            return
        torch.set_num_threads(threads)
        predictor = Predictor(model, view, fixed_shape=fixed_shape, device=device)
        warn_without_labels(view, predictor.task.target)
        start_s = time.monotonic()
        with row_bar("predicting", rows, quiet=quiet) as advance:
            predicted = predict_file(
                view,
                predictor,
                questions,
                output,
                privacy=privacy_of(loaded, StreamSettings()),
                time_column=time_column,
                advance=advance,
            )
    document = {
        "output": str(output),
        "rows": predicted.rows,
        "empty_history": predicted.empty_history,
        "task": predictor.task.name,
        "kind": predictor.task.target.kind.value,
        "model_version": predictor.version,
        "seconds": time.monotonic() - start_s,
    }
    emit([document], title="Predicted", as_json=as_json, document=document)
