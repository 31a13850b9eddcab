"""History in files -> a graph, with a bar of how far it is; what does not fit is counted, kept and reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from graph_updater.dead_letter_file import DeadLetterFile
from nowgraph.assembly import history_source, updater_of
from nowgraph.report import progress_console
from stream.settings import StreamSettings
from temporal_graph.graph import TemporalGraph

DEAD_LETTERS = Path("dead-letters.jsonl")


@dataclass(frozen=True, slots=True)
class Loaded:
    """Rows of the files, and what became of them; ``dead_letters`` of them stand in the file beside."""

    rows: int
    applied: int
    duplicate: int
    dead_letters: int


def load_files(
    graph: TemporalGraph,
    files: Sequence[Path],
    *,
    quiet: bool,
    dead_letters: Path = DEAD_LETTERS,
    speed: float | None = None,
) -> Loaded:
    """Applies every row of the files, merged by event time, as a backfill.

    ``speed`` lets them out at that multiple of real time; None as fast as they are applied. Raises ConfigurationError
    for a file that is of no table, SourceError for one that cannot be read.
    """
    stream = StreamSettings()
    source = history_source(graph.schema, files, stream, positions=graph.positions, speed=speed)
    console = progress_console()
    columns = (TextColumn("loading"), BarColumn(), MofNCompleteColumn(), TextColumn("rows"), TimeRemainingColumn())
    with DeadLetterFile(dead_letters) as letters, Progress(*columns, console=console, disable=quiet) as bar:
        updater = updater_of(graph, source, letters, stream)
        rows = source.lag_records()
        task = bar.add_task("", total=rows)
        try:
            while not updater.exhausted:
                bar.advance(task, updater.step())
        finally:
            updater.close()
        value = updater.metrics.registry.get_sample_value
        loaded = Loaded(
            rows=rows,
            applied=int(value("nowgraph_events_applied_total") or 0),
            duplicate=int(value("nowgraph_events_duplicate_total") or 0),
            dead_letters=letters.count,
        )
    if loaded.dead_letters and not quiet:
        console.print(f"{loaded.dead_letters:,} rows did not fit the schema: see {dead_letters}", highlight=False)
    return loaded
