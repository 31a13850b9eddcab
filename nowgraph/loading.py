"""What a graph begins with: history in files, with a bar of how far it is, or the newest good snapshot.

What does not fit is counted, kept and reported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from graph_updater.dead_letter_file import DeadLetterFile
from graph_updater.settings import UpdaterSettings
from nowgraph.assembly import DEAD_LETTERS_NAME, history_source, updater_of
from nowgraph.errors import UsageError
from nowgraph.report import progress_console, row_bar
from stream.settings import StreamSettings
from temporal_graph.columns import COLUMNS_BYTES
from temporal_graph.duration import parse_duration_us
from temporal_graph.graph import ARENA_BYTES, TemporalGraph
from temporal_graph.schema import Schema
from temporal_graph.snapshots import Snapshots
from temporal_graph.view import GraphView

DEAD_LETTERS = Path(DEAD_LETTERS_NAME)
_REASONS_SHOWN = 3


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
    stopped: Callable[[], bool] = lambda: False,
) -> Loaded:
    """Applies every row of the files, merged by event time, as a backfill.

    ``speed`` lets them out at that multiple of real time; None as fast as they are applied. ``stopped`` is asked
    between two batches, and ends it. Raises ConfigurationError for a file that is of no table, SourceError for one
    that cannot be read.
    """
    stream = StreamSettings()
    source = history_source(graph.schema, files, stream, positions=graph.positions, speed=speed)
    rows = source.lag_records()
    with DeadLetterFile(dead_letters) as letters, row_bar("loading", rows, quiet=quiet) as advance:
        updater = updater_of(graph, source, letters, stream)
        try:
            while not updater.exhausted and not stopped():
                advance(updater.step())
        finally:
            updater.close()
        value = updater.metrics.registry.get_sample_value
        loaded = Loaded(
            rows=rows,
            applied=int(value("nowgraph_events_applied_total") or 0),
            duplicate=int(value("nowgraph_events_duplicate_total") or 0),
            dead_letters=letters.count,
        )
        reasons = letters.reasons.most_common(_REASONS_SHOWN)
    if loaded.dead_letters and not quiet:
        lines = [f"{loaded.dead_letters:,} of {rows:,} rows did not fit the schema, and are kept in {dead_letters}:"]
        lines += [f"  {count:,}: {detail}" for detail, count in reasons]
        progress_console().print("\n".join(lines), highlight=False, markup=False)
    return loaded


@contextmanager
def opened_graph(schema: Schema, history: Sequence[Path], arena: Path | None, *, quiet: bool) -> Iterator[GraphView]:
    """A view of a graph loaded from files, or of a running updater's; raises UsageError unless it is one of the two."""
    if (arena is None) == (not history):
        raise UsageError("either --history (files) or --arena (a running updater's graph) says what the graph holds")
    if arena is not None:
        view = GraphView.attach(schema, arena)
        try:
            yield view
        finally:
            view.close()
        return
    with TemporalGraph.create(schema) as graph:
        load_files(graph, history, quiet=quiet)
        yield graph.view()


def snapshot_settings(every: str | None) -> UpdaterSettings:
    """The updater's settings with this much time between snapshots, where it is given; raises UsageError."""
    if every is None:
        return UpdaterSettings()
    if every == "never":  # somebody else makes those that this one starts from
        return UpdaterSettings(snapshot_interval_s=math.inf)
    try:
        return UpdaterSettings(snapshot_interval_s=parse_duration_us(every) / 1e6)
    except ValueError as error:
        raise UsageError(f"--snapshot-every {every}: {error}") from error


def restored_graph(
    schema: Schema,
    store: Snapshots | None,
    *,
    arena: Path | None = None,
    arena_bytes: int = ARENA_BYTES,
    columns: Path | None = None,
    columns_bytes: int = COLUMNS_BYTES,
    standby: bool = False,
    until: Mapping[tuple[str, int], int] | None = None,
    quiet: bool,
) -> TemporalGraph:
    """The graph of the newest good snapshot, else an empty one, not published; says which, and what was refused.

    `until` leaves out those that hold a record at or beyond these offsets, as `Snapshots.restore` does.
    """
    restored = (
        None
        if store is None
        else store.restore(
            schema, arena=arena, arena_bytes=arena_bytes, columns=columns, columns_bytes=columns_bytes, publish=False,
            standby=standby, until=until,
        )
    )  # fmt: skip
    if restored is None:
        return TemporalGraph.create(
            schema, arena=arena, arena_bytes=arena_bytes, columns=columns, columns_bytes=columns_bytes, publish=False,
            standby=standby,
        )  # fmt: skip
    if not quiet:
        snapshot = restored.snapshot
        line = f"Restored {snapshot.name}: {snapshot.sequence:,} events, {snapshot.bytes:,} bytes"
        progress_console().print(line, highlight=False)
    return restored.graph
