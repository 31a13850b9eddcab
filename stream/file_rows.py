"""The rows of one file as event bytes, in chunks that can be entered at any row.

Parquet ─► row groups ────► ArrowEncoder ─┐
CSV     ─► typed columns ─► ArrowEncoder ─┼─► FileRows (events, times, row numbers, refused rows)
JSONL   ─► lines ─────────► JsonDecoder  ─┘
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stream.arrow_encode import ArrowEncoder
from stream.csv_rows import count_csv_rows, csv_rows
from stream.errors import ConfigurationError, SourceError
from stream.json_decode import JsonDecoder
from stream.privacy import Privacy, is_hashed
from stream.values import INT64_MAX, INT64_MIN, RowError
from temporal_graph.schema import Schema, Source, fitting_names
from temporal_graph.time_rule import ALWAYS_US

CHUNK_ROWS = 65_536
"""Large enough that a chunk's fixed cost vanishes, small enough that a few of them are tens of megabytes."""
LINE_CHUNK_ROWS = 4_096
PARQUET_SUFFIXES = (".parquet", ".pq")
CSV_SUFFIXES = (".csv", ".tsv")
LINE_SUFFIXES = (".jsonl", ".ndjson")
FILE_SUFFIXES = PARQUET_SUFFIXES + CSV_SUFFIXES + LINE_SUFFIXES
_COUNT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class FileRows:
    """N rows in file order: `values` [N] (event bytes, or the row as it stood where it is refused), `event_time_us`
    int64 [N] (`ALWAYS_US` without time), `row` int64 [N] in the file, `refused` from index to reason.
    """

    values: list[bytes]
    event_time_us: NDArray[np.int64]
    row: NDArray[np.int64]
    refused: dict[int, RowError]

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True)
class FileTable:
    """A file and what its rows are: a source of the schema, or just a table of it."""

    path: Path
    source: Source

    @classmethod
    def of(cls, schema: Schema, path: Path, name: str | None = None) -> FileTable:
        """Find what a file's rows are, by `name` or the file's own: the topic of a source first, then a table.

        Raises:
            ConfigurationError: the schema has neither, or the source is not one of flat rows.
        """
        wanted = name if name is not None else path.name.partition(".")[0]
        tables = {table.name for table in schema.tables}
        for each in dict.fromkeys([wanted, *fitting_names([wanted])]):
            for source in schema.sources:
                if source.topic == each:
                    if source.format in ("debezium", "row_event_json"):
                        found = f"source {each!r} carries {source.format}"
                        raise ConfigurationError(f"{path}: {found}, a file carries rows")
                    return cls(path, source)
            if each in tables:
                return cls(path, Source(topic=each, table=each, format="json"))
        names = sorted({source.topic for source in schema.sources} | tables)
        found = f"no source or table {wanted!r} in the schema; it has {', '.join(names)}"
        raise ConfigurationError(f"{path}: {found}. Name the file so, or leave it out")


def count_rows(path: Path) -> int:
    """Return the rows of a Parquet or CSV file, or the lines of a JSONL file.

    Raises:
        SourceError: the file cannot be read.
        ConfigurationError: a file of another kind.
    """
    suffix = _suffix(path)
    try:
        if suffix in PARQUET_SUFFIXES:
            return int(pq.read_metadata(path).num_rows)
        if suffix in CSV_SUFFIXES:
            return count_csv_rows(path)
        lines, last = 0, b"\n"
        with path.open("rb") as file:
            while block := file.read(_COUNT_BYTES):
                lines, last = lines + block.count(b"\n"), block[-1:]
        return lines + (last != b"\n")
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{path}: {error}") from error


def read_rows(schema: Schema, file: FileTable, start_row: int, privacy: Privacy | None) -> Iterator[FileRows]:
    """Return the rows of a file from `start_row` on, in chunks.

    Raises (while it is iterated):
        SourceError: the file cannot be read.
    """
    try:
        suffix = _suffix(file.path)
        if suffix in PARQUET_SUFFIXES:
            yield from _parquet_rows(schema, file, start_row, privacy)
        elif suffix in CSV_SUFFIXES:
            yield from _csv_rows(schema, file, start_row, privacy)
        else:
            yield from _json_rows(schema, file, start_row, privacy)
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{file.path}: {error}") from error


def _suffix(path: Path) -> str:
    if path.suffix not in FILE_SUFFIXES:
        raise ConfigurationError(f"{path}: expected a {', '.join(FILE_SUFFIXES[:-1])} or {FILE_SUFFIXES[-1]} file")
    return path.suffix


def _parquet_rows(schema: Schema, file: FileTable, start_row: int, privacy: Privacy | None) -> Iterator[FileRows]:
    parquet = pq.ParquetFile(file.path)
    encoder = ArrowEncoder(schema, file.source, privacy, hashed=is_hashed(parquet.schema_arrow.metadata))
    group, row = 0, 0
    while group < parquet.num_row_groups and row + parquet.metadata.row_group(group).num_rows <= start_row:
        row += parquet.metadata.row_group(group).num_rows
        group += 1
    fitting = dict(zip(parquet.schema_arrow.names, fitting_names(parquet.schema_arrow.names), strict=True))
    columns = [name for name, fit in fitting.items() if fit in encoder.names]
    groups = list(range(group, parquet.num_row_groups))
    for batch in parquet.iter_batches(CHUNK_ROWS, row_groups=groups, columns=columns) if groups else ():
        kept = batch.rename_columns([fitting[name] for name in batch.schema.names]).slice(max(0, start_row - row))
        first, row = max(row, start_row), row + batch.num_rows
        if not kept.num_rows:
            continue
        encoded = encoder.encode(kept)
        values = encoded.events
        for index in encoded.refused:
            # A column has no bytes of its own row: the row is kept as JSON.
            values[index] = orjson.dumps(kept.slice(index, 1).to_pylist()[0], default=_as_json)
        rows = np.arange(first, first + kept.num_rows)
        yield FileRows(values, encoded.event_time_us, rows, encoded.refused)


def _csv_rows(schema: Schema, file: FileTable, start_row: int, privacy: Privacy | None) -> Iterator[FileRows]:
    encoder = ArrowEncoder(schema, file.source, privacy)
    row = 0
    for block in csv_rows(schema, file.source, file.path):
        first, row = max(row, start_row), row + block.batch.num_rows
        if first >= row:
            continue
        kept = block.slice(first - row + block.batch.num_rows)
        encoded = encoder.encode(kept.batch)
        refused = encoded.refused | kept.refused
        values = encoded.events
        for index in refused:
            values[index] = orjson.dumps(kept.row(index), default=_as_json)
        yield FileRows(values, encoded.event_time_us, np.arange(first, row), refused)


def _json_rows(schema: Schema, file: FileTable, start_row: int, privacy: Privacy | None) -> Iterator[FileRows]:
    decoder = JsonDecoder(schema, file.source, privacy)
    with file.path.open("rb") as lines:
        numbered = islice(enumerate(lines), start_row, None)
        while chunk := list(islice(numbered, LINE_CHUNK_ROWS)):
            values: list[bytes] = []
            times: list[int] = []
            refused: dict[int, RowError] = {}
            for index, (_, line) in enumerate(chunk):
                try:
                    event, event_time_us = decoder.decode(line)
                except RowError as error:
                    refused[index] = error
                    event, event_time_us = line.rstrip(b"\r\n"), ALWAYS_US
                values.append(event)
                times.append(event_time_us)
            rows = np.array([number for number, _ in chunk], np.int64)
            yield FileRows(values, np.array(times, np.int64), rows, refused)


def _as_json(value: Any) -> str | int | float:
    if isinstance(value, Decimal):
        # A number, so that the row can be read again; as text only where it would become another one.
        number = int(value) if value == value.to_integral_value() else float(value)
        return number if isinstance(number, float) or INT64_MIN <= number <= INT64_MAX else str(value)
    return value.hex() if isinstance(value, bytes) else str(value)
