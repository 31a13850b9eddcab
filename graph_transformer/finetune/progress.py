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


@contextmanager
def progress_bars(console: Console | None = None) -> Iterator[Report]:
    """Give a `progress` for `train` that draws a bar per phase, with the loss and the last validation."""
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
            if progress.average_precision is not None:
                figures += f"  AP {progress.average_precision:.3f}"
            bars.update(phases[progress.phase], completed=progress.step, figures=figures)  # type: ignore[arg-type]

        yield report


def metrics_table(metrics: Mapping[str, Metrics], *, precision_at: int = 100) -> Table:
    """Return a table with one line per split."""
    table = Table(title="How good the answers are")
    table.add_column("split")
    for name in ("examples", "positives", "AP", "AUC", f"CP@{precision_at}", "Brier", "ECE"):
        table.add_column(name, justify="right")
    for name, found in metrics.items():
        cards = "-" if found.card_precision is None else f"{found.card_precision:.3f}"
        table.add_row(
            name,
            f"{found.count:,}",
            f"{found.positives:,}",
            f"{found.average_precision:.3f}",
            f"{found.roc_auc:.3f}",
            cards,
            f"{found.brier:.5f}",
            f"{found.calibration_error:.5f}",
        )
    return table
