"""What can be seen of a data file without being told: for each column its family of values, nulls and distinct values.

Parquet, CSV, JSONL ─► pyarrow table (its first rows) ─► profile_file ─► TableProfile
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from temporal_graph.csv_file import BLOCK_BYTES, open_csv
from temporal_graph.errors import SchemaError
from temporal_graph.schema_yaml import fitting_names

ROWS_MAX = 2_000_000
"""Rows read of each file: uniqueness and containment are exact up to here, and a guess beyond."""

TOGETHER_MAX = 6
SAMPLE_ROWS = 50_000
"""Of the columns at the front of a table, two or three may be its key; most are ruled out by so many rows."""

_CSV_BLOCK_BYTES = BLOCK_BYTES

Family = Literal["integer", "number", "text", "boolean", "timestamp", "texts", "vector"]

_TIME_NAME = re.compile(
    r"(?i:(?:.*_)?(?:time|date|datetime|timestamp|ts|at)(?:_(?:s|ms|us|utc))?)|.*[a-z](?:Time|Date|At)"
)
_YEAR_NAME = re.compile(r"(?i)year|season")
YEARS = (1500, 2200)
_EPOCHS = ((10**8, 10**10), (10**11, 10**13), (10**14, 10**16))
"""Seconds, milliseconds and microseconds from 1973 to 2286: an epoch says its unit by its size."""

_FORMATS = (".parquet", ".pq", ".csv", ".tsv", ".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """One column: `distinct` holds its distinct non-null values (a pyarrow array) for integers and texts, else None.

    `dim` is the length of a vector; `length_mean` the mean number of characters of a text's distinct values;
    `words_only` says that the text came as an Arrow dictionary: its values are categories already. `written` is the
    name in the file, where `name` is the one that a schema can hold. `days_only` says of a timestamp that it tells days
    and no time of the day.
    """

    name: str
    family: Family
    null_count: int = 0
    distinct: Any = None
    dim: int = 0
    length_mean: float = 0.0
    words_only: bool = False
    written: str = ""
    days_only: bool = False

    @property
    def distinct_count(self) -> int:
        """The number of distinct non-null values, 0 where they are not kept."""
        return 0 if self.distinct is None else len(self.distinct)


@dataclass(frozen=True, slots=True)
class TableProfile:
    """One file: the table's name is the file's up to the first dot, with underscores for what no name may hold.

    `unique_together` are columns that are so where none is alone; `left_out` are names and types of those of no kind.
    """

    name: str
    row_count: int
    columns: tuple[ColumnProfile, ...]
    unique_together: tuple[str, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()


def profile_file(path: Path) -> TableProfile:
    """Read the first rows of a Parquet, CSV or JSONL file and describe its columns.

    Raises:
        OSError: the file cannot be read.
        SchemaError: another format, or no columns of a type that a schema has.
    """
    import pyarrow as pa

    if path.suffix.lower() not in _FORMATS:
        raise SchemaError(path.name, f"a file named *{', *'.join(_FORMATS)}", path.suffix or None)
    try:
        table = _read(path)
    except pa.ArrowInvalid as error:
        raise SchemaError(path.name, "a readable Parquet, CSV or JSONL file", str(error).splitlines()[0]) from error
    name = fitting_names([path.name.partition(".")[0]])[0]
    written = table.column_names
    table = table.rename_columns(fitting_names(written))
    columns, left_out = [], []
    for place, column in enumerate(table.column_names):
        try:
            found = _profile(f"{name}.{column}", column, table.column(place))
        except SchemaError as error:
            left_out.append((written[place], str(error.found)))
        else:
            columns.append(replace(found, written=written[place]))
    if not columns:
        raise SchemaError(path.name, "at least one column of numbers, booleans, times, texts, or lists of them", None)
    alone = any(column.distinct_count == table.num_rows for column in columns)
    together = () if alone else _unique_together(table, columns)
    return TableProfile(name, table.num_rows, tuple(columns), together, tuple(left_out))


def is_time_name(name: str) -> bool:
    """Say whether a column of this name holds times, by the name alone."""
    return _TIME_NAME.fullmatch(name) is not None


def holds_years(column: ColumnProfile) -> bool:
    """Say whether integers are years, by their name and all of their values."""
    import pyarrow.compute as pc

    if column.family != "integer" or not column.distinct_count or not _YEAR_NAME.search(column.name):
        return False
    found = pc.min_max(column.distinct).as_py()
    return bool(YEARS[0] <= found["min"] and found["max"] <= YEARS[1])


def _unique_together(table: Any, columns: Sequence[ColumnProfile]) -> tuple[str, ...]:
    """The first two or three integers or texts, in the file's order, of which no combination stands in two rows."""
    parts = [each for each in columns if each.family in ("integer", "text") and not each.null_count]
    for names in (each for size in (2, 3) for each in combinations(parts[:TOGETHER_MAX], size)):
        if math.prod(each.distinct_count for each in names) < table.num_rows:
            continue
        keys = [each.name for each in names]
        for part in (table.select(keys).slice(0, SAMPLE_ROWS), table.select(keys)):
            if part.group_by(keys).aggregate([]).num_rows < part.num_rows:
                break
        else:
            return tuple(keys)
    return ()


def _read(path: Path) -> Any:
    if path.suffix.lower() in {".csv", ".tsv"}:
        return _read_csv(path)
    if path.suffix.lower() in {".jsonl", ".ndjson"}:
        from pyarrow import json

        options = json.ReadOptions(block_size=_CSV_BLOCK_BYTES)
        return json.read_json(path, options, json.ParseOptions(newlines_in_values=False)).slice(0, ROWS_MAX)
    return _read_parquet(path)


def _read_parquet(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        batches, rows = [], 0
        for batch in file.iter_batches():
            batches.append(batch.slice(0, ROWS_MAX - rows))
            rows += batches[-1].num_rows
            if rows >= ROWS_MAX:
                break
        return pa.Table.from_batches(batches, schema=file.schema_arrow)


def _read_csv(path: Path) -> Any:
    import pyarrow as pa

    with open_csv(path, block_bytes=_CSV_BLOCK_BYTES) as reader:
        batches, rows = [], 0
        for batch in reader:
            batches.append(batch.slice(0, ROWS_MAX - rows))
            rows += batches[-1].num_rows
            if rows >= ROWS_MAX:
                break
        return pa.Table.from_batches(batches, schema=reader.schema)


def _profile(path: str, name: str, values: Any) -> ColumnProfile:
    import pyarrow as pa
    import pyarrow.compute as pc

    words_only = pa.types.is_dictionary(values.type)
    if words_only:
        values = values.cast(values.type.value_type)
    kind = values.type
    if pa.types.is_integer(kind):
        return _profile_integers(name, values)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _profile_numbers(name, values)
    if pa.types.is_boolean(kind):
        return ColumnProfile(name, "boolean", values.null_count)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return ColumnProfile(name, "timestamp", values.null_count, days_only=_tells_days(values))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind):
        if not words_only and _holds_times(values):
            days_only = pc.max(pc.utf8_length(values)).as_py() <= len("2024-01-31")
            return ColumnProfile(name, "timestamp", values.null_count, days_only=days_only)
        distinct = pc.unique(values.cast(pa.large_string())).drop_null()
        length_mean = (pc.mean(pc.utf8_length(distinct)).as_py() or 0.0) if len(distinct) else 0.0
        return ColumnProfile(name, "text", values.null_count, distinct, 0, length_mean, words_only)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _profile_list(path, name, values)
    raise SchemaError(path, "numbers, booleans, times, texts, or lists of texts or numbers (drop others)", str(kind))


def _profile_numbers(name: str, values: Any) -> ColumnProfile:
    """Integers that a tool wrote otherwise: as floats beside nulls, or as decimals with no digits behind the point."""
    import pyarrow as pa
    import pyarrow.compute as pc

    floats = pa.types.is_floating(values.type)
    if floats:
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    written = 0 < values.null_count < len(values) if floats else values.type.scale <= 0
    found = _profile_integers(name, values) if written else None
    if found is None or (floats and found.family == "timestamp"):
        return ColumnProfile(name, "number", values.null_count)
    return found


def _profile_integers(name: str, values: Any) -> ColumnProfile:
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        distinct = pc.unique(values).drop_null().cast(pa.int64())
    except pa.ArrowInvalid:  # beyond int64, or with a fraction: a measure, not a key
        return ColumnProfile(name, "number", values.null_count)
    if set(distinct.slice(0, 3).to_pylist()) == {0, 1}:
        return ColumnProfile(name, "boolean", values.null_count)
    if _TIME_NAME.fullmatch(name) and len(distinct):
        least, most = pc.min(distinct).as_py(), pc.max(distinct).as_py()
        if any(low <= least <= most < high for low, high in _EPOCHS):
            return ColumnProfile(name, "timestamp", values.null_count)
    return ColumnProfile(name, "integer", values.null_count, distinct)


def _profile_list(path: str, name: str, values: Any) -> ColumnProfile:
    import pyarrow as pa
    import pyarrow.compute as pc

    element = values.type.value_type
    if pa.types.is_floating(element):
        fixed = pa.types.is_fixed_size_list(values.type)
        lengths = [values.type.list_size] if fixed else pc.unique(pc.list_value_length(values)).drop_null().to_pylist()
        if len(lengths) != 1 or lengths[0] < 1:
            raise SchemaError(
                path, "vectors of one length", f"lengths from {min(lengths or [0])} to {max(lengths or [0])}"
            )
        return ColumnProfile(name, "vector", values.null_count, dim=lengths[0])
    if pa.types.is_integer(element) or pa.types.is_string(element) or pa.types.is_large_string(element):
        return ColumnProfile(name, "texts", values.null_count)
    if pa.types.is_dictionary(element):
        return ColumnProfile(name, "texts", values.null_count)
    raise SchemaError(path, "a list of texts, integers or floating-point numbers (drop others)", str(values.type))


def _holds_times(values: Any) -> bool:
    """Say whether all texts are ISO 8601 dates or times, with or without zone; a few are tried before all are."""
    import pyarrow as pa

    if values.null_count == len(values):
        return False
    for part in (values.drop_null().slice(0, 100), values):
        if not any(_casts(part, kind) for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC"))):
            return False
    return True


def _tells_days(values: Any) -> bool:
    """Say whether all times are a day's first moment, by the clock that they were written by."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_date(values.type):
        return True
    if values.type.tz is not None:
        try:
            values = pc.local_timestamp(values)
        except pa.ArrowInvalid:  # of a zone that this machine does not know
            return False
    return pc.all(pc.equal(pc.floor_temporal(values, unit="day"), values)).as_py() is not False


def _casts(values: Any, kind: Any) -> bool:
    import pyarrow as pa

    try:
        values.cast(kind)
    except pa.ArrowInvalid:
        return False
    return True
