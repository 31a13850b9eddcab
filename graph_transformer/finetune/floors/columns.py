"""The raw columns of seed rows as they stood at their cut-offs, through the sampler, so that its time rule holds.

examples ─► Sampler without neighbors ─► the seeds' cells ─► matrix, calendar parts of times, which are categories
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from graph_transformer.finetune.examples import Examples
from graph_transformer.target import Target
from online_sampler.plan import ALONE, SamplingPlan
from online_sampler.sampler import Sampler
from temporal_graph.schema import Column, ColumnKind
from temporal_graph.time_rule import ALWAYS_US

if TYPE_CHECKING:
    from online_sampler.neighborhood import Neighborhood, TableColumns
    from temporal_graph.view import GraphView

SEEDS = 65_536
"""Seeds per call: their own cells are all that is held."""
DAY_US = 86_400_000_000
CALENDAR = ("hour", "weekday", "day", "month")

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SeedColumns:
    """matrix float64[n, columns], NaN for null; the columns' names; positions of those that are categories."""

    matrix: Floats
    names: tuple[str, ...]
    categorical: tuple[int, ...]


def seed_columns(
    view: GraphView, target: Target, examples: Examples, *, read_until_us: int | None = None
) -> SeedColumns:
    """Return the columns of the examples' own rows, and the calendar of their cut-offs.

    Numbers, booleans and embeddings as they are; categories by code; times as calendar parts and age in days at the
    cut-off, among them the row's own time at entity level. Keys, links, texts and the column that is predicted are not
    among them. `read_until_us` is the latest time the graph may be read at.
    """
    sampler = Sampler(view, SamplingPlan.from_dict(ALONE))
    parts: list[Floats] = []
    names, categorical = _names(view, target)
    for start in range(0, max(len(examples), 1), SEEDS):
        cutoff = examples.cutoff_time_us[start : start + SEEDS]
        read = cutoff if read_until_us is None else np.minimum(cutoff, read_until_us)
        row = examples.row[start : start + SEEDS]
        neighborhood = sampler.sample_rows(target.table, row, read, as_of=not target.event_level)
        parts.append(_matrix(view, target, neighborhood, cutoff))
    return SeedColumns(np.concatenate(parts), names, categorical)


def _names(view: GraphView, target: Target) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the names in the order of `_matrix`, and which are categories."""
    table = view.schema.table(target.table)
    hidden = target.column if target.event_level else None
    names: list[str] = []
    categorical: list[int] = []
    for column in table.columns:
        if column.name == hidden or column.kind is ColumnKind.TEXT:
            continue
        if column.kind in (ColumnKind.CATEGORICAL, ColumnKind.MULTICATEGORICAL):
            categorical.append(len(names))
        if column.kind is ColumnKind.TIMESTAMP:
            names += [f"{column.name} {part}" for part in (*CALENDAR, "age")]
        elif column.kind is ColumnKind.EMBEDDING:
            names += [f"{column.name} {index}" for index in range(column.dim)]
        else:
            names.append(column.name)
    if not target.event_level:
        names += [f"row {part}" for part in (*CALENDAR, "age")]
    return (*names, *(f"cut-off {part}" for part in CALENDAR)), tuple(categorical)


def _matrix(view: GraphView, target: Target, neighborhood: Neighborhood, cutoff_time_us: Ints) -> Floats:
    cells = neighborhood.columns[target.table]
    hidden = target.column if target.event_level else None
    parts: list[Floats] = []
    dims = 0
    for column in view.schema.table(target.table).columns:
        # Embeddings stand side by side, in the schema's order.
        embedding, dims = slice(dims, dims + column.dim), dims + column.dim
        if column.name != hidden and column.kind is not ColumnKind.TEXT:
            parts.append(_cells(cells, column, embedding, cutoff_time_us))
    if not target.event_level:
        event = neighborhood.event_time_us[neighborhood.seed_offset[:-1]]
        # A row that is not visible yet has no time either.
        parts.append(_time_parts(np.where(event > cutoff_time_us, ALWAYS_US, event), cutoff_time_us))
    return np.hstack([*parts, calendar_parts(cutoff_time_us)])


def _cells(cells: TableColumns, column: Column, embedding: slice, cutoff_time_us: Ints) -> Floats:
    """Return a column of all seeds, float64[n, width]: without neighbors, the table's rows are the seeds in order."""
    assert len(cells) == len(cutoff_time_us)
    if column.kind is ColumnKind.NUMERICAL:
        return cells.numerical[:, [cells.numerical_names.index(column.name)]]
    if column.kind is ColumnKind.BOOLEAN:
        value = cells.boolean[:, [cells.boolean_names.index(column.name)]]
        return np.where(value > 1, np.nan, value)
    if column.kind is ColumnKind.TIMESTAMP:
        return _time_parts(cells.timestamp[:, cells.timestamp_names.index(column.name)], cutoff_time_us)
    if column.kind is ColumnKind.EMBEDDING:
        return cells.embedding[:, embedding].astype(np.float64)
    code = cells.coded[:, [cells.coded_names.index(column.name)]]
    return np.where(code <= 0, np.nan, code)


def calendar_parts(time_us: Ints) -> Floats:
    """Return hour, weekday (Monday 0), day of the month and month of UTC times, float64[n, 4]; NaN for ALWAYS_US."""
    is_time = time_us != ALWAYS_US
    day_of = np.where(is_time, time_us, 0) // DAY_US
    date = day_of.astype("datetime64[D]")
    month = date.astype("datetime64[M]")
    hour = np.where(is_time, time_us, 0) % DAY_US / (DAY_US / 24)
    # The epoch was a Thursday.
    parts = [hour, (day_of + 3) % 7, (date - month).astype(np.int64) + 1, month.astype(np.int64) % 12 + 1]
    return np.where(is_time[:, None], np.stack(parts, axis=1), np.nan)


def _time_parts(time_us: Ints, cutoff_time_us: Ints) -> Floats:
    """Return the calendar parts and the age in days at the cut-off, float64[n, 5]."""
    is_time = time_us != ALWAYS_US
    age = np.where(is_time, (cutoff_time_us - np.where(is_time, time_us, 0)) / DAY_US, np.nan)
    return np.hstack([calendar_parts(time_us), age[:, None]])
