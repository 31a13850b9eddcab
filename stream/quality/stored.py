"""Records as bytes, for shells that keep them in a table: what the monitor needs to go on, by a name of their own.

A record has the same name when it comes again, so that a table holds it once. Versions have names of their own: the
monitor chooses among them.
"""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import orjson

from stream.quality.records import Answer, Interaction, Outcome, Record, ShownList, Stream, identity

_TAGS: dict[type[Record], str] = {Answer: "answer", Outcome: "outcome", ShownList: "list", Interaction: "interaction"}


def name_of(record: Record) -> bytes:
    """Return the digest that names a record."""
    if isinstance(record, Answer):
        parts = [*astuple(record.stream), *record.key, record.event_time_us, record.answered_time_us]
    elif isinstance(record, ShownList):
        parts = [*astuple(record.stream), *record.user, record.event_time_us, record.request_id]
    elif isinstance(record, Outcome):
        parts = [record.task, *record.key, record.anchor_time_us or 0, record.known_time_us, record.offset]
    else:
        parts = [record.task, record.row.hex(), record.known_time_us, record.offset]
    return identity(parts)


def time_of(record: Record) -> int:
    """Return the time from which on a record grows old, in microseconds."""
    return record.known_time_us if isinstance(record, Outcome) else record.event_time_us


def encode(record: Record) -> bytes:
    """Return a record as JSON; numbers that are not finite are null there."""
    values = [value.hex() if isinstance(value, bytes) else value for value in astuple(record)]
    return orjson.dumps([_TAGS[type(record)], *values])


def decode(value: bytes) -> Record:
    """Return the record of `encode`; raises ValueError for anything else."""
    tag, *values = orjson.loads(value)
    try:
        if tag == "answer":
            stream, key, time_us, answered_us, scores, numbers = values
            return Answer(Stream(*stream), tuple(key), time_us, answered_us, tuple(scores), _floats(numbers))
        if tag == "list":
            stream, user, time_us, answered_us, request_id, items = values
            return ShownList(Stream(*stream), tuple(user), time_us, answered_us, request_id, tuple(items))
        if tag == "outcome":
            task, key, known_us, label, anchor_us, offset = values
            return Outcome(task, tuple(key), known_us, None if label is None else tuple(label), anchor_us, offset)
        if tag == "interaction":
            task, user, row, *rest = values
            return Interaction(task, tuple(user), bytes.fromhex(row), *rest)
    except TypeError as error:
        raise ValueError(f"no record: {error}") from error
    raise ValueError(f"no record: {tag!r}")


def _floats(values: list[Any]) -> tuple[float, ...]:
    return tuple(float("nan") if value is None else value for value in values)
