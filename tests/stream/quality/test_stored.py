from __future__ import annotations

import math

import pytest

from stream.quality.records import Answer, Interaction, Outcome, Record, ShownList, Stream
from stream.quality.stored import decode, encode, name_of, time_of

STREAM = Stream("shop", "t", "v1", "shadow")
RECORDS: list[Record] = [
    Answer(STREAM, (1, "a"), 10, 11, (0.1, 0.2), (1.5,)),
    ShownList(STREAM, (1,), 10, 11, "r", (2**64 - 1, 3)),
    Outcome("t", (1, "a"), 12, (1.0,), 10, 7),
    Outcome("t", (1, "a"), 13, None, None, 8),
    Interaction("t", ("u",), b"\x00\xff", 14, 15, 2**63, 9),
    Interaction("t", ("u",), b"\x00\xff", 14, 16, None, 9),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: type(r).__name__)
def test_a_record_comes_back_as_it_was(record: Record) -> None:
    """Every field, of every kind of record."""
    assert decode(encode(record)) == record
    assert time_of(record) in (10, 12, 13, 14)


def test_nulls_among_numbers_come_back() -> None:
    """NaN is not JSON: null stands for it."""
    found = decode(encode(Answer(STREAM, (1,), 10, 11, (0.5,), (math.nan, 2.0))))
    assert isinstance(found, Answer)
    assert math.isnan(found.numbers[0])
    assert found.numbers[1] == 2.0


def test_names_tell_versions_apart_and_repetitions_not() -> None:
    """The same record again has the same name; another version of it another one."""
    assert len({name_of(record) for record in RECORDS}) == len(RECORDS)
    assert name_of(RECORDS[0]) == name_of(decode(encode(RECORDS[0])))


@pytest.mark.parametrize("value", [b"[]", b'["what"]', b'["answer", 1]', b"{"])
def test_anything_else_is_refused(value: bytes) -> None:
    """A table that somebody else wrote is an error, not a guess."""
    with pytest.raises(ValueError):  # noqa: PT011 - of orjson, of unpacking and of ours
        decode(value)
