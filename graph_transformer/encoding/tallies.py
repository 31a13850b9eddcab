"""What happened on each link path of events: how much in growing windows of time, and how long ago.

    paths, states, ages, numbers ─► rows, visits, known outcomes, sums per window ─┐
                                 ─► ages of the newest visits, their mean gap     ─┴─► float32[B, W], standardized

A visit is all rows of a path with one event time: a receipt, not its lines. Everything is of the sampled neighborhood
and the time asked about alone; the seed is on no path of events, and rows that are still to come do not count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from graph_transformer.encoding.clock import AGE_SCALE
from graph_transformer.encoding.fields import field_of
from graph_transformer.encoding.outcomes import OutcomeCells, outcomes_of, states
from graph_transformer.encoding.paths import LinkPath, PathTable, nearest
from graph_transformer.encoding.quantile import signed_log
from temporal_graph.schema import ColumnKind, Schema
from temporal_graph.time_rule import ALWAYS_US

if TYPE_CHECKING:
    from online_sampler.neighborhood import Neighborhood

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

WINDOWS = 8
"""Windows per path: each twice as long as the one before, the last of all rows."""
LONGEST_QUANTILE = 0.99
"""The age of a path's rows, in training, of which the last window but one is half."""
NEWEST = (1, 2, 3, 5, 8, 12)
"""Visits whose age is told, counted from the newest; after them the oldest visit, and the mean gap between visits."""
AGES = len(NEWEST) + 2
PATHS_MAX = 8
"""Paths that are tallied, the nearest and then the most frequent first."""
NUMBERS_MAX = 8
"""Numerical columns of a path that are summed, the schema's first ones."""
DEVIATIONS_MAX = 5.0
"""Standardized values are cut here: what training hardly saw shall not outweigh all else."""
SPAN_US = 1 << 58
"""Longer than any age, nine thousand years: PATHS_MAX of them are no more than an int64."""
KEY_END = 1 << 62
"""Where seed, path and age do not fit below this, rows are sorted by two keys."""
_NEWEST = np.array(NEWEST) - 1


@dataclass(frozen=True, slots=True)
class PathTally:
    """What is tallied of a link path, by its position among the paths of the statistics.

    columns: numerical columns that are summed. states: how many an outcome can be in, 1 where there is none. ends_us:
    the longest age of each window but the last. mean, deviation: of the logarithms of windowed quantities (rows,
    visits, known outcomes, true ones, sums; windows of one quantity side by side), then of ages; over training.
    """

    path: int
    columns: tuple[str, ...]
    states: int
    ends_us: tuple[int, ...]
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> PathTally:
        """Build from the values `asdict` gives, as JSON has them; raises TypeError for anything else."""
        return cls(**{key: tuple(each) if isinstance(each, list) else each for key, each in values.items()})  # type: ignore[arg-type]

    @property
    def quantities(self) -> int:
        """How many quantities have a value per window."""
        return 2 + self.states - 1 + len(self.columns)


class Read(NamedTuple):
    """What `collate` knows of N rows, int64[N] each: seed's number, path, second path, state, time asked about."""

    sample: Ints
    path: Ints
    also: Ints
    state: Ints
    asked_time_us: Ints


class _Rows(NamedTuple):
    """Rows that count, by seed, path and age: int64[n] each; a row on two paths is there twice.

    row: index in the neighborhood; at: which path tally; group: seed and path; begins, visit: the first of a group, of
    a visit.
    """

    row: Ints
    at: Ints
    age_us: Ints
    group: Ints
    begins: NDArray[np.bool_]
    visit: NDArray[np.bool_]


class Tallies:
    """Tallies of neighborhoods of one schema; the same for a seed in any company, bit for bit."""

    def __init__(self, tallied: Sequence[PathTally], paths: Sequence[LinkPath], schema: Schema) -> None:
        self._count = len(tallied)
        self._place = np.full(len(paths) + 1, -1)  # the last is OTHER
        self._place[[each.path for each in tallied]] = np.arange(self._count)
        ends = [at * SPAN_US + min(end, SPAN_US - 1) for at, each in enumerate(tallied) for end in each.ends_us]
        self._ends = np.array(ends)
        quantities = np.array([each.quantities for each in tallied])
        self._quantities = int(quantities.sum())
        # Where a path's rows are counted; its own ends in the line of all begin after those of the paths before.
        self._first = (np.cumsum(quantities) - quantities) * WINDOWS - np.arange(self._count) * (WINDOWS - 1)
        self._sums = np.array([(1 + each.states) * WINDOWS for each in tallied])
        self._has_outcomes = any(each.states > 1 for each in tallied)
        self._numbers = list(_numbers(tallied, paths, schema))
        mean, deviation = (
            _laid_out([np.array(getattr(each, name)) for each in tallied], quantities) for name in ("mean", "deviation")
        )
        known = deviation > 1e-6  # what never varied in training says nothing
        self._mean, self._scale = mean, np.divide(1.0, deviation, out=np.zeros(len(known)), where=known)

    @property
    def width(self) -> int:
        """W: values, and a flag for each age that may be missing."""
        return self._quantities * WINDOWS + 2 * self._count * AGES

    def of(self, neighborhood: Neighborhood, read: Read) -> NDArray[np.float32]:
        """Return float32[B, W]: standardized values, 0 where there is no such visit, and then flags which are those."""
        values = self.values(neighborhood, read)
        size, count = values.shape
        ages = values[:, self._quantities * WINDOWS :]
        missing = np.isnan(ages)
        values -= self._mean
        values *= self._scale
        np.copyto(ages, 0.0, where=missing)
        out = np.empty((size, self.width), dtype=np.float32)
        np.maximum(values, -DEVIATIONS_MAX, out=values)
        np.minimum(values, DEVIATIONS_MAX, out=out[:, :count], casting="same_kind")
        out[:, count:] = missing
        return out

    def values(self, neighborhood: Neighborhood, read: Read) -> Floats:
        """Return float64[B, V] as logarithms, the windowed quantities of all paths and then the ages; NaN for none."""
        size = len(neighborhood.seed_offset) - 1
        rows = self._rows(neighborhood, read)
        out = np.empty((size, self._quantities * WINDOWS + self._count * AGES))
        out[:, : self._quantities * WINDOWS] = self._windowed(neighborhood, read, rows, size)
        out[:, self._quantities * WINDOWS :] = self._ages(rows, size)
        return out

    def _rows(self, neighborhood: Neighborhood, read: Read) -> _Rows:
        row, at = counted(neighborhood, read, self._place)
        age_us = read.asked_time_us[row] - neighborhood.event_time_us[row]
        group = read.sample[row] * self._count + at
        # One key sorts faster than two, most of all rows that are nearly in order, as the newest of a parent are.
        span = int(age_us.max(initial=0)) + 1
        one = span * self._count * (len(neighborhood.seed_offset) - 1) < KEY_END
        order = np.argsort(group * span + age_us, kind="stable") if one else np.lexsort((age_us, group))
        row, at, age_us, group = row[order], at[order], age_us[order], group[order]
        begins, visit = np.ones((2, len(row)), dtype=bool)
        begins[1:] = group[1:] != group[:-1]
        visit[1:] = begins[1:] | (age_us[1:] != age_us[:-1])
        return _Rows(row, at, age_us, group, begins, visit)

    def _windowed(self, neighborhood: Neighborhood, read: Read, rows: _Rows, size: int) -> Floats:
        """Return float64[B, quantities * WINDOWS], each window with what lies in shorter ones."""
        # Ends of all paths in one rising line: of a path's own as many lie before an age as windows are too short.
        along = rows.at * SPAN_US + np.minimum(rows.age_us, SPAN_US - 1)
        window = np.searchsorted(self._ends, along)
        cell = read.sample[rows.row] * (self._quantities * WINDOWS) + self._first[rows.at] + window
        cells = [cell, cell[rows.visit] + WINDOWS]
        if self._has_outcomes:
            state = read.state[rows.row]
            cells += [cell[state > 0] + 2 * WINDOWS, cell[state > 1] + 3 * WINDOWS]
        weights = [np.ones(sum(map(len, cells)))]
        for table, tallied, at in self._numbers:
            held = neighborhood.columns.get(table)
            if held is None:
                continue
            of_table = slice(None) if tallied is None else np.flatnonzero(tallied[rows.at])
            place = np.zeros(len(read.path), dtype=np.int64)
            place[held.node] = np.arange(len(held.node))
            numbers = held.numerical[:, at][place[rows.row[of_table]]]
            numbers[~np.isfinite(numbers)] = 0.0
            sums = cell[of_table] + self._sums[rows.at[of_table]]
            cells.append((sums[:, None] + np.arange(len(at)) * WINDOWS).ravel())
            weights.append(numbers.ravel())
        found = np.bincount(np.concatenate(cells), np.concatenate(weights), size * self._quantities * WINDOWS)
        summed: Floats = np.cumsum(found.reshape(size, self._quantities, WINDOWS), axis=2, dtype=np.float64)
        return signed_log(summed.reshape(size, self._quantities * WINDOWS))

    def _ages(self, rows: _Rows, size: int) -> Floats:
        """Return float64[B, paths * AGES]."""
        visit = np.flatnonzero(rows.visit)
        age_us = rows.age_us[visit]
        first = np.flatnonzero(rows.begins[visit])
        last = np.empty_like(first)
        last[:-1], last[-1:] = first[1:] - 1, len(visit) - 1
        nth = first[:, None] + _NEWEST
        found = np.empty((len(first), AGES))
        found[:, : len(NEWEST)] = age_us[np.minimum(nth, last[:, None])]
        found[:, : len(NEWEST)][nth > last[:, None]] = np.nan
        oldest, gaps = age_us[last], last - first
        found[:, -2] = oldest
        found[:, -1] = (oldest - age_us[first]) / np.maximum(gaps, 1)
        found[gaps == 0, -1] = np.nan
        ages = np.full((size * self._count, AGES), np.nan)
        ages[rows.group[visit[first]]] = np.log1p(found * 1e-6) * (1.0 / AGE_SCALE)
        return ages.reshape(size, self._count * AGES)


def counted(neighborhood: Neighborhood, read: Read, place: Ints) -> tuple[Ints, Ints]:
    """Return the rows that happened and are on a path with a place, int64[n], and that place.

    A row on two paths is there twice. `place` int64[paths + 1] is -1 of the other paths, OTHER's comes last.
    """
    happened = _happened(neighborhood, read)
    at = place[read.path]
    row = np.flatnonzero((at >= 0) & happened)
    at = at[row]
    if read.also is not read.path:
        second = np.flatnonzero((read.also != read.path) & (place[read.also] >= 0) & happened)
        row, at = np.concatenate([row, second]), np.concatenate([at, place[read.also[second]]])
    return row, at


def fit_tallies(
    neighborhoods: Sequence[Neighborhood], schema: Schema, paths: Sequence[LinkPath]
) -> tuple[PathTally, ...]:
    """Return what is tallied, with windows and scales of training neighborhoods; nothing where no path has events."""
    outcomes = outcomes_of(schema, dict.fromkeys(path.table for path in paths))
    table_of_paths = PathTable(paths, schema)
    found = [_read(neighborhood, table_of_paths, outcomes) for neighborhood in neighborhoods]
    tallied = []
    for position in _tallied(paths, schema):
        table = paths[position].table
        numbers = [column.name for column in schema.table(table).columns if column.kind is ColumnKind.NUMERICAL]
        known = outcomes[table].states if table in outcomes else 1
        ages = [_ages_us(n, read, position) for n, read in zip(neighborhoods, found, strict=True)]
        longest = np.quantile(joined, LONGEST_QUANTILE) if len(joined := np.concatenate(ages)) else 0
        ends = tuple(int(longest / 2**shorter) for shorter in range(WINDOWS - 1, 0, -1))
        tallied.append(PathTally(position, tuple(numbers[:NUMBERS_MAX]), known, ends))
    if not tallied:
        return ()
    plain = [replace(each, mean=(0.0,) * _values(each), deviation=(1.0,) * _values(each)) for each in tallied]
    of = Tallies(plain, paths, schema)
    values = np.concatenate([of.values(n, read) for n, read in zip(neighborhoods, found, strict=True)])
    return tuple(_scaled(each, part) for each, part in zip(tallied, _parts(values, tallied), strict=True))


def _tallied(paths: Sequence[LinkPath], schema: Schema) -> list[int]:
    """Return the positions of paths that lead to many events: those whose last link goes from a row to its children."""
    forward = {link.forward for link in schema.links}
    events = [
        position
        for position, path in enumerate(paths)
        if path.hop and path.links[-1] not in forward and schema.table(path.table).time_column is not None
    ]
    return sorted(nearest(paths, events, PATHS_MAX))


def _read(neighborhood: Neighborhood, table: PathTable, outcomes: Mapping[str, OutcomeCells]) -> Read:
    sample = np.repeat(np.arange(len(neighborhood.cutoff_time_us)), np.diff(neighborhood.seed_offset))
    path = table.of_nodes(neighborhood)
    also = table.of_edges(neighborhood, path)
    return Read(sample, path, also, states(neighborhood, outcomes), neighborhood.cutoff_time_us[sample])


def _happened(neighborhood: Neighborhood, read: Read) -> NDArray[np.bool_]:
    """Return which rows count, bool[N]: those with a time that is not still to come."""
    event = neighborhood.event_time_us
    happened: NDArray[np.bool_] = (event <= read.asked_time_us) & (event != ALWAYS_US)
    return happened


def _ages_us(neighborhood: Neighborhood, read: Read, position: int) -> Ints:
    chosen = (read.path == position) & _happened(neighborhood, read)
    ages: Ints = (read.asked_time_us - neighborhood.event_time_us)[chosen]
    return ages


def _numbers(
    tallied: Sequence[PathTally], paths: Sequence[LinkPath], schema: Schema
) -> Iterator[tuple[str, NDArray[np.bool_] | None, list[int]]]:
    """Yield tables with numbers, which tallies are theirs (None: all), and where their columns lie in `numerical`."""
    tables = [paths[each.path].table for each in tallied]
    for table in dict.fromkeys(tables):
        columns = next(each.columns for each, name in zip(tallied, tables, strict=True) if name == table)
        if columns:
            chosen = np.array([name == table for name in tables])
            at = [field_of(schema.table(table), name)[1].start for name in columns]
            yield table, None if chosen.all() else chosen, at


def _values(tally: PathTally) -> int:
    return tally.quantities * WINDOWS + AGES


def _laid_out(parts: Sequence[Floats], quantities: Ints) -> Floats:
    """Return values per path in the order of `Tallies.values`: the windowed ones of all paths, then ages."""
    split = [np.split(part, [count * WINDOWS]) for part, count in zip(parts, quantities.tolist(), strict=True)]
    return np.concatenate([windowed for windowed, _ in split] + [ages for _, ages in split])


def _parts(values: Floats, tallied: Sequence[PathTally]) -> list[Floats]:
    """Return the values of each path float64[n, .], as `PathTally.mean` has them."""
    ends = np.cumsum([each.quantities * WINDOWS for each in tallied])
    windowed = np.split(values[:, : ends[-1]], ends[:-1], axis=1)
    ages = np.split(values[:, ends[-1] :], len(tallied), axis=1)
    return [np.concatenate(both, axis=1) for both in zip(windowed, ages, strict=True)]


def _scaled(tally: PathTally, values: Floats) -> PathTally:
    present = np.isfinite(values)
    count = np.maximum(present.sum(axis=0), 1)
    mean = np.where(present, values, 0.0).sum(axis=0) / count
    deviation = np.sqrt((np.where(present, values - mean, 0.0) ** 2).sum(axis=0) / count)
    return replace(tally, mean=tuple(mean.tolist()), deviation=tuple(deviation.tolist()))
