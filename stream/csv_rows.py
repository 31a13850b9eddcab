"""Rows of a CSV file as Arrow columns of the types that the schema says.

    CSV ─► columns of texts ─► numbers, integers, booleans, epochs and lists as the schema wants them ─► CsvRows

A CSV has no types. Guessed from its first rows they would differ from file to file, so every cell is read as text, and
becomes what its column is. A cell that cannot be that refuses its row, and no other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from stream.values import EXACT_MAX, INT64_MAX, INT64_MIN, RowError
from temporal_graph.csv_file import open_csv
from temporal_graph.schema import ColumnKind, KeyType, Schema, Source, fitting_names

_WHOLE = re.compile(r"\s*([+-]?\d+)(?:\.0*)?\s*")
_NUMBER = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*")
_EPOCH = re.compile(r"[+-]?\d{9,}")
"""Shorter ones would be times before 1973; eight digits are a date: 20240131."""
_BITS = {"true": 1, "1": 1, "1.0": 1, "false": 0, "0": 0, "0.0": 0}


@dataclass(frozen=True, slots=True)
class CsvRows:
    """A block of rows: columns of the schema's types, the rows refused with why, and the cells as they were written."""

    batch: pa.RecordBatch
    refused: dict[int, RowError]
    written: pa.RecordBatch

    def slice(self, start: int) -> CsvRows:
        """The rows from `start` on."""
        refused = {row - start: error for row, error in self.refused.items() if row >= start}
        return CsvRows(self.batch.slice(start), refused, self.written.slice(start))

    def row(self, index: int) -> dict[str, Any]:
        """One row, with a cell that does not fit as the text it was."""
        typed, texts = (each.slice(index, 1).to_pylist()[0] for each in (self.batch, self.written))
        return {name: texts[name] if value is None else value for name, value in typed.items()}


def count_csv_rows(path: Path) -> int:
    """The rows of a CSV file; a line break within quotes ends none. Raises OSError or pyarrow.ArrowException."""
    with open_csv(path, texts=True) as reader:
        return sum(batch.num_rows for batch in reader)


def csv_rows(schema: Schema, source: Source, path: Path) -> Iterator[CsvRows]:
    """The rows of a CSV file of `source.table`, block by block. Raises OSError or pyarrow.ArrowException."""
    converters = _converters(schema, source)
    categories = [each.name for each in schema.table(source.table).columns if each.kind is ColumnKind.CATEGORICAL]
    with open_csv(path, texts=True) as reader:
        for number, written in enumerate(reader):
            batch = written.rename_columns(fitting_names(written.schema.names))
            if number == 0:  # a column is read in one way to its end
                here = (name for name in categories if name in batch.schema.names)
                converters |= {name: _as_words for name in here if _pointed(batch.column(name))}
            refused: dict[int, RowError] = {}
            columns = {
                name: converters[name](batch.column(name), name, refused) if name in converters else batch.column(name)
                for name in batch.schema.names
            }
            yield CsvRows(pa.RecordBatch.from_pydict(columns), refused, batch)


_Converter = Callable[[pa.Array, str, dict[int, RowError]], pa.Array]


def _converters(schema: Schema, source: Source) -> dict[str, _Converter]:
    """By column, how its texts become what the schema wants; texts stay what they are."""
    table = schema.table(source.table)
    found: dict[str, _Converter] = {}
    for column in table.columns:
        found[column.name] = _OF_KIND.get(column.kind, _as_texts)
    for link in table.links:
        for name, kind in zip(link.columns, schema.link_key_types(link), strict=True):
            found[name] = _OF_KEY[kind]
    for part in table.primary_key:
        found[part.name] = _OF_KEY[part.type]
    for clock in (source.event_time or table.time_column, source.known_time or table.known_time.column):
        if clock is not None:
            found[clock] = _as_times
    return found


def _as_texts(texts: pa.Array, name: str, refused: dict[int, RowError]) -> pa.Array:  # noqa: ARG001
    return texts


def _as_words(texts: pa.Array, name: str, refused: dict[int, RowError]) -> pa.Array:  # noqa: ARG001
    """Categories that a tool wrote with a point and a zero: the integers they are."""
    return pc.replace_substring_regex(texts, r"^(-?\d+)\.0$", r"\1")


def _pointed(texts: pa.Array) -> bool:
    """Say whether these are integers beside nulls, as data frames write them: 3.0. Without nulls they would write 3."""
    pointed = pc.all(pc.match_substring_regex(texts, r"^-?\d+\.0$")).as_py()
    return bool(pointed) and 0 < texts.null_count < len(texts)


def _as_numbers(texts: pa.Array, name: str, refused: dict[int, RowError]) -> pa.Array:
    def number(text: str) -> float:
        if _NUMBER.fullmatch(text) is None:
            raise RowError("bad_number", f"{name}: a string that is no decimal number")
        return float(text)

    return _cast(texts, pa.float64(), number, refused)


def _as_integers(texts: pa.Array, name: str, refused: dict[int, RowError]) -> pa.Array:
    def integer(text: str) -> int:
        match = _WHOLE.fullmatch(text)
        found = None if match is None else int(match[1])
        if found is None or not INT64_MIN <= found <= INT64_MAX or ("." in text and abs(found) > EXACT_MAX):
            raise RowError("bad_key", f"{name}: expected an integer of int64, found another text")
        return found

    return _cast(texts, pa.int64(), integer, refused)


def _as_booleans(texts: pa.Array, name: str, refused: dict[int, RowError]) -> pa.Array:
    words = pc.utf8_lower(pc.utf8_trim_whitespace(texts))
    index = pc.index_in(words, value_set=pa.array(list(_BITS)))
    wrong = pc.and_(texts.is_valid(), index.is_null())
    for row in np.flatnonzero(wrong.to_numpy(zero_copy_only=False)).tolist():
        refused.setdefault(row, RowError("bad_boolean", f"{name}: expected true, false, 0 or 1, found another text"))
    return pc.take(pa.array([bool(bit) for bit in _BITS.values()]), index)


def _as_times(texts: pa.Array, name: str, refused: dict[int, RowError]) -> pa.Array:  # noqa: ARG001
    """Epochs as integers where the column has nothing else; ISO 8601 texts are read by the encoder."""
    known = texts.drop_null()
    epochs = len(known) > 0 and _EPOCH.fullmatch(known[0].as_py()) is not None
    return _cast(texts, pa.int64(), None, refused) if epochs else texts


def _as_list(texts: pa.Array, name: str, refused: dict[int, RowError]) -> pa.Array:
    """Lists are written as in JSON: ["a", "b"]."""

    def parsed(text: str) -> list[str] | list[float]:
        try:
            found = orjson.loads(text)
        except orjson.JSONDecodeError:
            found = None
        if not isinstance(found, list):
            raise RowError("bad_list", f'{name}: expected a list as in JSON, such as ["a", "b"]')
        return found

    return pa.array(_each(texts, parsed, refused))


def _cast(
    texts: pa.Array, kind: pa.DataType, parse: Callable[[str], Any] | None, refused: dict[int, RowError]
) -> pa.Array:
    """The whole column at once where it can be, else value by value; without `parse` the texts as they are."""
    try:
        return texts.cast(kind)
    except pa.ArrowInvalid:
        return texts if parse is None else pa.array(_each(texts, parse, refused), kind)


def _each(texts: pa.Array, parse: Callable[[str], Any], refused: dict[int, RowError]) -> list[Any]:
    out: list[Any] = []
    for row, text in enumerate(texts.to_pylist()):
        try:
            out.append(None if text is None else parse(text))
        except RowError as error:
            refused.setdefault(row, error)
            out.append(None)
    return out


_OF_KIND: dict[ColumnKind, _Converter] = {
    ColumnKind.NUMERICAL: _as_numbers,
    ColumnKind.BOOLEAN: _as_booleans,
    ColumnKind.TIMESTAMP: _as_times,
    ColumnKind.MULTICATEGORICAL: _as_list,
    ColumnKind.EMBEDDING: _as_list,
}
_OF_KEY: dict[KeyType, _Converter] = {KeyType.INTEGER: _as_integers, KeyType.STRING: _as_texts}
