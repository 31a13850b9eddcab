"""How a command shows its result: rows -> a table for people, or one JSON document for machines."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

_PIPE_COLUMNS = 180
Row = Mapping[str, Any]


def progress_console() -> Console:
    """Where progress goes: standard error, so that standard output stays the result."""
    return Console(stderr=True)


@contextmanager
def row_bar(doing: str, total: int, *, quiet: bool) -> Iterator[Callable[[int], object]]:
    """A bar of rows done, on standard error; gives what to call with each number of rows that were."""
    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TextColumn("rows"), TimeRemainingColumn())
    with Progress(*columns, console=progress_console(), disable=quiet) as bar:
        task = bar.add_task("", total=total)
        yield lambda rows: bar.advance(task, rows)


def emit(rows: Sequence[Row], *, title: str, as_json: bool, document: Mapping[str, Any] | None = None) -> None:
    """Prints ``rows`` (dicts of one shape) under ``title``, or as JSON: ``document`` where given, else the rows."""
    if as_json:
        emit_json(document if document is not None else list(rows))
        return
    console = Console()
    if not console.is_terminal:
        # Whoever reads a pipe or a file can scroll; a word cut in two cannot be searched for.
        console = Console(width=_PIPE_COLUMNS)
    console.print(table_of(rows, title) if rows else f"{title}: none")


def positions_text(positions: Mapping[tuple[str, int], int]) -> str:
    """Offsets of partitions as ``--from`` reads them: topic/partition=offset, in order."""
    return ", ".join(f"{topic}/{part}={at}" for (topic, part), at in sorted(positions.items()))


def emit_json(value: Any) -> None:
    """Writes one JSON document and a newline to standard output."""
    text = orjson.dumps(_finite(value), default=str, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_INDENT_2)
    sys.stdout.write(text.decode() + "\n")
    sys.stdout.flush()


def table_of(rows: Sequence[Row], title: str) -> Table:
    """A rich table of ``rows``; the keys of the first are the columns, numbers stand right."""
    table = Table(title=title, title_justify="left")
    for name in rows[0]:
        numeric = all(isinstance(row[name], int | float) or row[name] is None for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell_text(value) for value in row.values()))
    return table


def without_blank_columns(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows without the columns that hold nothing, or a dash, in all of them: measures that are of other tasks."""
    held = {name for row in rows for name, value in row.items() if cell_text(value) != "-"}
    return [{name: value for name, value in row.items() if name in held} for row in rows]


def cell_text(value: Any) -> str:
    """A value as a person reads it: a dash for nothing, thousands apart, three digits that matter."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def time_text(time_us: int) -> str:
    """A time in UTC as a person reads it: a dash for one that no calendar has, such as before anything was seen."""
    from temporal_graph.time_rule import datetime_from_time_us

    try:
        return f"{datetime_from_time_us(time_us):%Y-%m-%d %H:%M:%S} UTC"
    except OverflowError:
        return "-"


def iso_text(time_us: int) -> str | None:
    """A time as machines read it, exact; None for one that no calendar has."""
    from temporal_graph.time_rule import datetime_from_time_us

    try:
        return datetime_from_time_us(time_us).isoformat()
    except OverflowError:
        return None


def _finite(value: Any) -> Any:
    """JSON has no NaN: null stands for it."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
