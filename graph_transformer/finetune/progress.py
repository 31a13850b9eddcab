"""What a person sees of a training: a bar per phase while it runs, a table of metrics when it is done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from graph_transformer.finetune.loop import Progress, Report
from graph_transformer.finetune.metrics import Metrics

WAIT_SHARE_SHOWN = 0.005
"""A model that waits less for its input is not said to wait."""


@contextmanager
def progress_bars(console: Console | None = None) -> Iterator[Report]:
    """Give a `progress` for `train` that draws a bar per phase, with the loss, the last validation and waiting."""
    columns = (
        TextColumn("{task.description:<8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console) as bars:
        phases: dict[str, object] = {}

        def report(progress: Progress) -> None:
            if progress.step == 1 or progress.phase not in phases:
                phases[progress.phase] = bars.add_task(progress.phase, total=progress.steps, figures="")
            figures = f"loss {progress.loss:.3f}"
            if progress.validation is not None:
                figures += f"  {progress.metric} {progress.validation:.3f}"
            if progress.wait_share >= WAIT_SHARE_SHOWN:
                figures += f"  waits {progress.wait_share:.0%}"
            bars.update(phases[progress.phase], completed=progress.step, figures=figures)  # type: ignore[arg-type]

        yield report


def metrics_table(metrics: Mapping[str, Metrics]) -> Table:
    """Return a table with one line per split or floor, and a dash where a line lacks what another has."""
    table = Table(title="How good the answers are")
    table.add_column("split")
    figures = {name: found.figures() for name, found in metrics.items()}
    columns = list(dict.fromkeys(column for line in figures.values() for column in line))
    for column in columns:
        table.add_column(column, justify="right")
    for name, line in figures.items():
        table.add_row(name, *(line.get(column, "-") for column in columns))
    return table
