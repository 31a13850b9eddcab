"""Arrow columns to RowEvent bytes of one table, whole columns at a time.

    RecordBatch ─► key, times, cells as columns of wire pieces ─► events [N], event times [N], refused rows

Arrow types that have no fast way (lists, texts as times) take the same one-value encoders as JSON, so the two accept
the same values. Beyond them, a file's decimals are numbers and its NaN is a null: see `arrow_numbers`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stream import wire
from stream.arrow_numbers import doubles, integers, is_number, plain
from stream.columnar_wire import Blobs, Constant, Doubles, Mask, Piece, Varints, assemble, nested
from stream.privacy import Privacy
from stream.values import (
    MILLISECONDS_LIMIT,
    SECONDS_LIMIT,
    Hash,
    RowError,
    cell_encoder,
    key_part,
    parse_time_us,
)
from temporal_graph.schema import Column, ColumnKind, KeyType, Link, Schema, Source
from temporal_graph.time_rule import ALWAYS_US

DAY_US = 86_400_000_000
_UNIT_US = {"s": (1_000_000, 1), "ms": (1_000, 1), "us": (1, 1), "ns": (1, 1_000)}


@dataclass(slots=True)
class EncodedRows:
    """`events` and `event_time_us` [N] of a batch; `refused` maps a row to why, and then its event means nothing."""

    events: list[bytes]
    event_time_us: NDArray[np.int64]
    refused: dict[int, RowError] = field(default_factory=dict)


class ArrowEncoder:
    """Encodes the batches of one file: rows of `source.table`, as `RowEncoder` does one at a time."""

    def __init__(self, schema: Schema, source: Source, privacy: Privacy | None = None, *, hashed: bool = False) -> None:
        """`hashed` says that private values are hashes already, as a graph gives them."""
        self._schema = schema
        self._hashed = hashed
        self._table = schema.table(source.table)
        self._operation = source.operation
        self._privacy = privacy
        self.event_time_column = source.event_time or self._table.time_column
        self.known_time_column = source.known_time or self._table.known_time.column
        self._head = wire.event_head(self._table.name, source.operation)

    @property
    def names(self) -> frozenset[str]:
        """Every column of a file that would be read."""
        table = self._table
        times = (name for name in (self.event_time_column, self.known_time_column) if name is not None)
        links = (name for link in table.links for name in link.columns)
        return frozenset(
            [part.name for part in table.primary_key] + [column.name for column in table.columns] + [*times, *links]
        )

    def encode(self, batch: pa.RecordBatch) -> EncodedRows:
        """Return the events of all rows; a column that the file lacks is absent from every event."""
        rows = batch.num_rows
        result = EncodedRows([], np.full(rows, ALWAYS_US, np.int64))
        pieces: list[Piece] = [Constant(self._head, rows)]
        if self._table.primary_key:
            columns = [(part.name, part.type) for part in self._table.primary_key]
            key, present = self._key_message(batch, columns, result)
            _refuse(result, ~present, "missing_key", "the primary key is absent or null")
            pieces += nested(wire.EVENT_KEY, key, rows)
        for name, tag in ((self.event_time_column, wire.EVENT_TIME), (self.known_time_column, wire.EVENT_KNOWN)):
            if name is None:
                continue
            times, present = self._times(batch, name, result)
            _refuse(result, ~present, "missing_time", f"{name}: the time is absent or null")
            pieces += [Constant(tag, rows), Varints(times)]
            if tag == wire.EVENT_TIME:
                result.event_time_us = times
        if self._operation != "delete":
            for column in self._table.columns:
                pieces += self._column(batch, column, result)
            for link in self._table.links:
                pieces += self._link(batch, link, result)
        result.events = assemble(pieces, rows)
        return result

    def _column(self, batch: pa.RecordBatch, column: Column, result: EncodedRows) -> list[Piece]:
        if column.name not in batch.schema.names:
            return []
        array = plain(batch.column(column.name))
        hashed = self._hash if column.private else None
        head, rows = wire.column_name(column.name), batch.num_rows
        present = _present(array)
        content: list[Piece] | None = None
        if column.kind is ColumnKind.NUMERICAL and is_number(array.type):
            values = doubles(array)
            _refuse(result, np.isinf(values) & present, "not_finite", f"{column.name}: expected a finite number")
            mask = _mask(present)
            content = [Constant(head + wire.CELL_NUMBER, rows, mask), Doubles(values, mask)]
        elif column.kind is ColumnKind.BOOLEAN and (pa.types.is_boolean(array.type) or is_number(array.type)):
            bits = _whole(array, column.name, "bad_boolean", result)
            wrong = present & ((bits < 0) | (bits > 1))
            _refuse(result, wrong, "bad_boolean", f"{column.name}: expected true, false, 0 or 1, found another integer")
            mask = _mask(present)
            content = [Constant(head + wire.CELL_BOOLEAN, rows, mask), Varints(bits, mask)]
        elif column.kind is ColumnKind.TIMESTAMP:
            times, present = self._times(batch, column.name, result)
            mask = _mask(present)
            content = [Constant(head + wire.CELL_TIMESTAMP, rows, mask), Varints(times, mask)]
        elif column.kind is ColumnKind.CATEGORICAL and is_number(array.type):
            numbers = pa.array(_whole(array, column.name, "bad_text", result), mask=~present)
            content = [Constant(head + wire.CELL_TEXT, rows, _mask(present)), *self._texts(numbers, present, hashed)]
        elif column.kind in {ColumnKind.CATEGORICAL, ColumnKind.TEXT} and _is_text(array.type):
            content = [Constant(head + wire.CELL_TEXT, rows, _mask(present)), *self._texts(array, present, hashed)]
        if content is None:
            return self._slow(array, present, cell_encoder(column, hashed), head, result)
        return self._cells(content, present, head)

    def _link(self, batch: pa.RecordBatch, link: Link, result: EncodedRows) -> list[Piece]:
        if any(name not in batch.schema.names for name in link.columns):
            return []
        head = wire.column_name(link.name)
        types = self._schema.link_key_types(link)
        rows = batch.num_rows
        if len(types) > 1:
            key, present = self._key_message(batch, list(zip(link.columns, types, strict=True)), result)
            if not present.all():
                # A null part empties the whole key: encode those rows' keys one by one instead of masking each piece.
                parts = assemble(key, rows)
                key = [Blobs.of([part if there else b"" for part, there in zip(parts, present, strict=True)])]
            mask = _mask(present)
            return self._cells([Constant(head, rows, mask), *nested(wire.CELL_KEY, key, rows, mask)], present, head)
        array = plain(batch.column(link.name))
        present = _present(array)
        mask = _mask(present)
        values = self._key_values(array, present, link.name, types[0], result)
        tag = wire.CELL_INTEGER if types[0] is KeyType.INTEGER else wire.CELL_TEXT
        return self._cells([Constant(head + tag, rows, mask), *values], present, head)

    def _cells(self, content: list[Piece], present: NDArray[np.bool_], head: bytes) -> list[Piece]:
        rows, mask = len(present), _mask(present)
        pieces = nested(wire.EVENT_CELL, content, rows, mask)
        if mask is not None and self._operation == "upsert":
            null = head + wire.CELL_NULL
            pieces.append(Constant(wire.EVENT_CELL + wire.delimited(null), rows, ~present))
        return pieces

    def _key_message(
        self, batch: pa.RecordBatch, columns: Sequence[tuple[str, KeyType]], result: EncodedRows
    ) -> tuple[list[Piece], NDArray[np.bool_]]:
        """Encode a Key of every row, and say in which rows all its parts are there."""
        rows = batch.num_rows
        pieces: list[Piece] = []
        all_present = np.ones(rows, np.bool_)
        for name, kind in columns:
            if name not in batch.schema.names:
                return [], np.zeros(rows, np.bool_)
            array = plain(batch.column(name))
            present = _present(array)
            all_present &= present
            tag = wire.PART_INTEGER if kind is KeyType.INTEGER else wire.PART_TEXT
            part = [Constant(tag, rows), *self._key_values(array, present, name, kind, result, every_row=True)]
            pieces += nested(wire.KEY_PART, part, rows)
        return pieces, all_present

    def _key_values(
        self,
        array: pa.Array,
        present: NDArray[np.bool_],
        name: str,
        kind: KeyType,
        result: EncodedRows,
        *,
        every_row: bool = False,
    ) -> list[Piece]:
        """Encode key values behind their tag: an integer's varint, or a text with its length."""
        hashed = self._hash if name in self._table.private_keys else None
        there = np.ones_like(present) if every_row else present
        # A private key is a text whatever it was, so its numbers are hashed as integers are.
        if is_number(array.type) and (kind is KeyType.INTEGER or hashed is not None):
            numbers = _whole(array, name, "bad_key", result)
            if hashed is None:
                return [Varints(numbers, _mask(there))]
            return self._texts(pa.array(numbers, mask=~present), there, hashed)
        if kind is KeyType.STRING and _is_text(array.type):
            return self._texts(array, there, hashed)

        def encode(value: Any) -> bytes:
            return key_part(value, name, integer=kind is KeyType.INTEGER, hashed=hashed)[1:]

        parts = _one_by_one(array, encode, result)
        if every_row:
            parts = [part or b"\x00" for part in parts]
        return [Blobs.of(parts)]

    def _texts(self, array: pa.Array, present: NDArray[np.bool_], hashed: Hash | None) -> list[Piece]:
        if hashed is not None:
            encoded = pc.dictionary_encode(array)
            hashes = [None if value is None else hashed(value) for value in encoded.dictionary.to_pylist()]
            array = pc.take(pa.array(hashes, pa.string()), encoded.indices)
        texts = pc.fill_null(array.cast(pa.large_string()), "")
        offsets = np.frombuffer(texts.buffers()[1], np.int64)[texts.offset : texts.offset + len(texts) + 1]
        content = texts.buffers()[2]
        blobs = Blobs(np.frombuffer(content, np.uint8) if content is not None else np.empty(0, np.uint8), offsets)
        return [Varints(blobs.lengths, _mask(present)), blobs]

    def _times(
        self, batch: pa.RecordBatch, name: str, result: EncodedRows
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return microseconds int64 [N] and where there are any, both [N]."""
        if name not in batch.schema.names:
            return np.zeros(batch.num_rows, np.int64), np.zeros(batch.num_rows, np.bool_)
        array = plain(batch.column(name))
        present = _present(array)
        if pa.types.is_timestamp(array.type):
            multiply, divide = _UNIT_US[array.type.unit]
            return _filled(array.cast(pa.int64()), 0) * multiply // divide, present
        if pa.types.is_date32(array.type):
            return _filled(array.cast(pa.int32()).cast(pa.int64()), 0) * DAY_US, present
        if pa.types.is_date64(array.type):
            return _filled(array.cast(pa.int64()), 0) * 1000, present
        if pa.types.is_integer(array.type) or pa.types.is_decimal(array.type):
            values = _whole(array, name, "bad_time", result)
            size = np.abs(values)
            scale = np.where(size < SECONDS_LIMIT, 1_000_000, np.where(size < MILLISECONDS_LIMIT, 1_000, 1))
            return values * scale, present
        times = _one_by_one(array, lambda value: parse_time_us(value, name), result)
        return np.array([time or 0 for time in times], np.int64), present

    def _slow(
        self,
        array: pa.Array,
        present: NDArray[np.bool_],
        encode: Callable[[Any], bytes],
        head: bytes,
        result: EncodedRows,
    ) -> list[Piece]:
        pieces: list[Piece] = [Blobs.of(_one_by_one(array, encode, result))]
        if self._operation == "upsert" and not present.all():
            null = wire.EVENT_CELL + wire.delimited(head + wire.CELL_NULL)
            pieces.append(Constant(null, len(present), ~present))
        return pieces

    def _hash(self, value: str | int) -> str:
        if self._hashed:
            return str(value)
        assert self._privacy is not None, "privacy_for() refuses a private schema without a secret"
        return self._privacy.hash(value)


def _one_by_one(array: pa.Array, encode: Callable[[Any], Any], result: EncodedRows) -> list[Any]:
    out = []
    for row, value in enumerate(array.to_pylist()):
        if value is None:
            out.append(b"")
            continue
        try:
            out.append(encode(value))
        except RowError as error:
            result.refused.setdefault(row, error)
            out.append(b"")
    return out


def _refuse(result: EncodedRows, wrong: NDArray[np.bool_], reason: str, detail: str) -> None:
    for row in np.flatnonzero(wrong).tolist():
        result.refused.setdefault(row, RowError(reason, detail))


def _whole(array: pa.Array, name: str, reason: str, result: EncodedRows) -> NDArray[np.int64]:
    """The integers of a column of numbers, 0 where there is none; rows whose number is not whole are refused."""
    found = integers(array)
    _refuse(result, found.fraction, reason, f"{name}: expected an integer, found a number with a fraction")
    _refuse(result, found.inexact, reason, f"{name}: expected an integer of int64 that its type holds exactly")
    return found.values


def _present(array: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(array.is_valid().to_numpy(zero_copy_only=False), np.bool_)


def _mask(present: NDArray[np.bool_]) -> Mask:
    return None if present.all() else present


def _filled(array: pa.Array, value: float) -> Any:
    filled = pc.fill_null(array, value) if array.null_count else array
    return filled.to_numpy(zero_copy_only=False)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
