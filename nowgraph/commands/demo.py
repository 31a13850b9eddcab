"""``nowgraph demo``: the main job on payments, from events to scores, on this machine alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nowgraph.commands.options import AsJson
from nowgraph.report import emit, emit_json, progress_console

EXAMPLE = Path(__file__).parent.parent / "examples" / "payments"

NEXT = """
Try next:
{activate}  python {example}/prepare.py demo-output/data
  nowgraph train --schema {example}/schema.yaml --task {example}/task.yaml --output demo-output/mine \\
    --history demo-output/data/transactions.parquet --history demo-output/data/fraud_reports.parquet
  nowgraph serve --schema {example}/schema.yaml --checkpoint {model} --bootstrap-servers embedded \\
    --history demo-output/data/transactions.parquet --history demo-output/data/fraud_reports.parquet
"""


def demo(
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="A small town in under a minute: the path, not the figures.")
    ] = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the model and the picture go.")] = Path(
        "demo-output"
    ),
    simulated: Annotated[
        bool, typer.Option("--simulated", help="Simulate payments even where real ones are given.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Score card payments live, each over gRPC before its event is applied, and see what the graph is worth.

    Uses the Fraud Detection Handbook's payments where NOWGRAPH_DATA points to them, else simulates some like them.
    """
    from graph_transformer.finetune.question import written_task
    from nowgraph.demo.live import Picture
    from nowgraph.demo.run import Demo
    from nowgraph.demo.settings import DemoSettings
    from nowgraph.hints import activation
    from temporal_graph.schema import load_schema

    settings = (DemoSettings.quick() if quick else DemoSettings()).into(output)
    picture = Picture(progress_console(), show=not as_json)
    schema = load_schema(EXAMPLE / "schema.yaml")
    task = written_task(EXAMPLE / "task.yaml", schema)
    # A small town has no week like the Handbook's: the quick run always makes its own.
    result = Demo(schema, task, settings, picture, real_data=not (quick or simulated)).run()
    if as_json:
        emit_json(result.document())
        return
    emit(result.rate_rows(), title="How fast", as_json=False)
    emit(result.quality_rows(), title=f"How good, on {result.data}", as_json=False)
    seconds = ", ".join(f"{name} {spent:.0f} s" for name, spent in result.seconds.items())
    typer.echo(f"Took {sum(result.seconds.values()):.0f} s: {seconds}")
    typer.echo(f"Curve: {result.picture}   Model: {result.model}")
    typer.echo(NEXT.format(activate=activation(), example=_shown(EXAMPLE), model=result.model))


def _shown(example: Path) -> Path:
    """The example's folder as one would type it: that of the clone one stands in, else where it is installed."""
    here = Path("examples") / "payments"
    return here if (here / "schema.yaml").is_file() else example
