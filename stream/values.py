"""One value of a row to its wire form, strictly: what does not fit its column's kind says so and goes no further.

Nothing is guessed: a number in quotes is not a number, a float is not a time. What is allowed beyond the exact type is
listed here and is exact: 0 and 1 as booleans, integers as categories (their decimal text), and a float that is whole
where an integer may stand (3.0 as 3), as tools write integers of columns that have nulls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from stream import wire
from temporal_graph.schema import Column, ColumnKind
from temporal_graph.time_rule import time_us_from_datetime

Hash = Callable[[str | int], str]

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
EXACT_MAX = 2**53 - 1
"""The largest integer that no other one was rounded to when it became a float."""
# An epoch time says its unit by its size: seconds until the year 5138, milliseconds until 5138, microseconds beyond.
# The price: milliseconds before 1973-03 and microseconds before 1973-03 would be taken for the coarser unit.
SECONDS_LIMIT = 10**11
MILLISECONDS_LIMIT = 10**14


_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)


class RowError(Exception):
    """This row cannot become an event: `reason` to count by, `detail` for a person, without any value of the row."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}")


class TimeUs(int):
    """An integer already known to be microseconds since the epoch, whatever its size."""


def kind_name(value: object) -> str:
    """Name a value's type as JSON's reader knows it; the value itself may be private."""
    return _NAMES.get(type(value), type(value).__name__)


_NAMES: dict[type, str] = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "a boolean",
    dict: "an object",
    list: "an array",
    type(None): "null",
    bytes: "bytes",
}


def whole(value: Any) -> Any:
    """Return a float that stands for one integer as that integer, and anything else as it is."""
    return int(value) if type(value) is float and value.is_integer() and abs(value) <= EXACT_MAX else value


def parse_time_us(value: Any, name: str) -> int:
    """Return microseconds since the epoch of an ISO-8601 text (UTC where it has no zone), a date or an epoch integer.

    Raises:
        RowError: `bad_time`, for anything else, floats included: a float cannot hold microseconds exactly.
    """
    if type(value) is str:
        try:
            moment = datetime.fromisoformat(value)
        except ValueError as error:
            raise RowError("bad_time", f"{name}: a string that is no ISO-8601 time") from error
        # What time_us_from_datetime does, without giving a naive time its zone first: this is the hot path of JSON.
        return (moment - _EPOCH) // _MICROSECOND if moment.tzinfo is None else time_us_from_datetime(moment)
    if type(value) is TimeUs:
        return _checked_time(value, name)
    if type(value) is int:
        size = abs(value)
        if size < SECONDS_LIMIT:
            return value * 1_000_000
        return value * 1_000 if size < MILLISECONDS_LIMIT else _checked_time(value, name)
    if isinstance(value, datetime):
        return time_us_from_datetime(value)
    if isinstance(value, date):
        return time_us_from_datetime(datetime(value.year, value.month, value.day, tzinfo=UTC))
    raise RowError("bad_time", f"{name}: expected an ISO-8601 string or an epoch integer, found {kind_name(value)}")


def _checked_time(value: int, name: str) -> int:
    if not INT64_MIN < value <= INT64_MAX:
        raise RowError("bad_time", f"{name}: an integer that does not fit int64 microseconds")
    return int(value)


def key_part(value: Any, name: str, *, integer: bool, hashed: Hash | None) -> bytes:
    """Encode one part of a primary or foreign key.

    Raises:
        RowError: `bad_key`, where it is not of the schema's type: texts stay texts and numbers numbers, as two writers
            of one key would otherwise make two rows.
    """
    value = whole(value)
    if hashed is not None:
        if type(value) is not str and type(value) is not int:
            raise RowError("bad_key", f"{name}: expected a string or an integer, found {kind_name(value)}")
        return wire.text_part(hashed(value).encode())
    if integer:
        if type(value) is not int:
            raise RowError("bad_key", f"{name}: expected an integer, found {kind_name(value)}")
        if not INT64_MIN <= value <= INT64_MAX:
            raise RowError("bad_key", f"{name}: an integer that does not fit int64")
        return wire.integer_part(value)
    if type(value) is not str:
        raise RowError("bad_key", f"{name}: expected a string, found {kind_name(value)}")
    return wire.text_part(encode_text(value, name))


def integer_key_encoder(name: str, prefixes: Sequence[bytes]) -> Callable[[Any], bytes]:
    """Return what encodes an integer key as `prefixes[n]` and its varint of n bytes: no call in between, for speed."""

    def encode(value: Any) -> bytes:
        if type(value) is int and INT64_MIN <= value <= INT64_MAX:
            number = wire.varint(value)
            return prefixes[len(number)] + number
        if type(integer := whole(value)) is int and integer is not value:
            return encode(integer)
        return key_part(value, name, integer=True, hashed=None)  # which says what is wrong

    return encode


def encode_text(value: str, name: str) -> bytes:
    """Return the UTF-8 of a text.

    Raises:
        RowError: `bad_text`, for lone surrogates, which no UTF-8 can say.
    """
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise RowError("bad_text", f"{name}: a string that is no valid Unicode") from error


def cell_encoder(column: Column, hashed: Hash | None, *, lenient_numbers: bool = False) -> Callable[[Any], bytes]:
    """Return what encodes a value of this column (never None) as a whole cell of an event.

    `lenient_numbers` takes a decimal text as a number, for sources that write exact decimals so. The encoder raises
    RowError with a reason `bad_...` where the value does not fit.
    """
    name, head = column.name, wire.column_name(column.name)
    if column.kind is ColumnKind.NUMERICAL:
        return _number_encoder(name, head, lenient=lenient_numbers)
    if column.kind is ColumnKind.BOOLEAN:
        return _boolean_encoder(name, head)
    if column.kind is ColumnKind.TIMESTAMP:
        return lambda value: cell(head + wire.CELL_TIMESTAMP + wire.varint(parse_time_us(value, name)))
    if column.kind is ColumnKind.MULTICATEGORICAL:
        return _texts_encoder(name, head, hashed)
    if column.kind is ColumnKind.EMBEDDING:
        return _vector_encoder(name, head, column.dim)
    return _text_encoder(name, head, hashed, integers=column.kind is ColumnKind.CATEGORICAL or hashed is not None)


def cell(content: bytes) -> bytes:
    """Wrap the content of a cell as a field of its event."""
    return wire.EVENT_CELL + wire.varint(len(content)) + content


def _number_encoder(name: str, head: bytes, *, lenient: bool) -> Callable[[Any], bytes]:
    # A double always takes eight bytes, so everything before it is constant.
    prefix = wire.EVENT_CELL + wire.varint(len(head) + 9) + head + wire.CELL_NUMBER
    pack, isfinite = wire.pack_double, math.isfinite

    def encode(value: Any) -> bytes:
        if type(value) is not float and type(value) is not int:
            value = _number(value, name, lenient=lenient)
        try:
            if isfinite(value):
                return prefix + pack(value)
        except OverflowError:
            pass
        raise RowError("not_finite", f"{name}: expected a finite number")

    return encode


def _number(value: Any, name: str, *, lenient: bool) -> float:
    if type(value) is str and lenient:
        try:
            return float(value)
        except ValueError as error:
            raise RowError("bad_number", f"{name}: a string that is no decimal number") from error
    if type(value) is str:
        raise RowError("number_as_string", f"{name}: expected a number, found a string; send it without quotes")
    raise RowError("bad_number", f"{name}: expected a number, found {kind_name(value)}")


def _boolean_encoder(name: str, head: bytes) -> Callable[[Any], bytes]:
    false, true = (cell(head + wire.CELL_BOOLEAN + wire.varint(bit)) for bit in (0, 1))

    def encode(value: Any) -> bytes:
        value = whole(value)
        if value is True or value is False or (type(value) is int and 0 <= value <= 1):
            return true if value else false
        raise RowError("bad_boolean", f"{name}: expected true, false, 0 or 1, found {_other(value)}")

    return encode


def _other(value: object) -> str:
    return "another integer" if type(value) is int else kind_name(value)


def _text_encoder(name: str, head: bytes, hashed: Hash | None, *, integers: bool) -> Callable[[Any], bytes]:
    prefix = head + wire.CELL_TEXT

    def encode(value: Any) -> bytes:
        return cell(prefix + wire.delimited(_text(value, name, hashed, integers=integers)))

    return encode


def _text(value: Any, name: str, hashed: Hash | None, *, integers: bool) -> bytes:
    if integers and type(value) is float:
        value = whole(value)
    if type(value) is not str and not (integers and type(value) is int):
        expected = "a string or an integer" if integers else "a string"
        raise RowError("bad_text", f"{name}: expected {expected}, found {kind_name(value)}")
    return hashed(value).encode() if hashed is not None else encode_text(str(value), name)


def _texts_encoder(name: str, head: bytes, hashed: Hash | None) -> Callable[[Any], bytes]:
    def encode(value: Any) -> bytes:
        if type(value) is not list:
            raise RowError("bad_texts", f"{name}: expected an array of strings, found {kind_name(value)}")
        elements = [wire.ELEMENT + wire.delimited(_text(one, name, hashed, integers=True)) for one in value]
        return cell(head + wire.CELL_TEXTS + wire.delimited(b"".join(elements)))

    return encode


def _vector_encoder(name: str, head: bytes, dim: int) -> Callable[[Any], bytes]:
    def encode(value: Any) -> bytes:
        if type(value) is not list:
            raise RowError("bad_vector", f"{name}: expected an array of {dim} numbers, found {kind_name(value)}")
        if len(value) != dim:
            raise RowError("wrong_dim", f"{name}: {len(value)} components, expected {dim}")
        if not all((type(one) is float or type(one) is int) and abs(one) <= _FLOAT32_MAX for one in value):
            raise RowError("bad_vector", f"{name}: expected {dim} finite numbers within float32")
        return cell(head + wire.CELL_VECTOR + wire.delimited(wire.vector_message(value)))

    return encode


_FLOAT32_MAX = 3.4028234663852886e38
