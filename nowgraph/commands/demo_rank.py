"""``nowgraph demo-rank``: a visitor's session in a shop, each click in the next list, on this machine alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nowgraph.commands.options import AsJson
from nowgraph.report import emit, emit_json, progress_console

# Both lists and their names: whoever reads a pipe or a file can scroll.
_PIPE_COLUMNS = 120

NEXT = """
Try next:
{activate}  nowgraph serve --checkpoint {model} --history {tables} --bootstrap-servers embedded
"""


def demo_rank(
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the tables and the model go.")] = Path(
        "demo-rank-output"
    ),
    simulated: Annotated[
        bool, typer.Option("--simulated", help="Simulate a shop even where a real one is given.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Rank items for a visitor of a shop over gRPC, and see how each click changes the next list.

    Uses the wholesaler's year of UCI Online Retail where NOWGRAPH_DATA points to it, else simulates a shop. Trains with
    `nowgraph train`, serves with `nowgraph serve`; each click is published, and the next list is asked with its token.
    """
    from rich.console import Console

    from nowgraph.demo_rank.run import RankDemo
    from nowgraph.demo_rank.settings import RankDemoSettings
    from nowgraph.demo_rank.show import click_rows, listed_text, step_table
    from nowgraph.hints import activation

    progress, console = progress_console(), Console()
    if not console.is_terminal:
        console = Console(width=_PIPE_COLUMNS)

    def say(text: str) -> None:
        if not as_json:
            progress.print(text, highlight=False, soft_wrap=True)

    demo = RankDemo(
        RankDemoSettings().into(output),
        say=say,
        show=lambda step, number, data: (
            None if as_json else console.print(step_table(step, number, data.product_names))
        ),
        real_data=not simulated,
    )
    result = demo.run()
    if as_json:
        emit_json(result.document())
        return
    emit(click_rows(result.steps, result.names), title="What each click changed", as_json=False)
    typer.echo(f"Each of the {result.changed} clicks changed the next list, by an event that Kafka had just delivered.")
    typer.echo(listed_text(result.steps))
    seconds = ", ".join(f"{name} {spent:.0f} s" for name, spent in result.seconds.items())
    typer.echo(f"Took {sum(result.seconds.values()):.0f} s: {seconds}")
    typer.echo(NEXT.format(activate=activation(), model=result.model, tables=result.tables))
