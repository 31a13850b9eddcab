from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos.nowgraph.v1 import row_event_pb2
from stream import wire

INT64 = st.integers(-(2**63), 2**63 - 1)


@given(INT64)
def test_varints_are_those_of_protobuf(number: int) -> None:
    """Any int64, negative ones too, is read back by the generated code as the same number, in the same bytes."""
    expected = row_event_pb2.RowEvent(event_time_us=number).SerializeToString()
    assert wire.EVENT_TIME + wire.varint(number) == expected


@pytest.mark.parametrize("number", [0, 127, 128, 16383, 16384, 2**21, 2**63 - 1, -1, -(2**63)])
def test_varints_at_the_edges_of_their_lengths(number: int) -> None:
    """Every length of a varint is right at its first and last number."""
    assert row_event_pb2.RowEvent.FromString(wire.EVENT_TIME + wire.varint(number)).event_time_us == number


@given(st.sampled_from(["insert", "upsert", "delete"]), st.text(min_size=1))
def test_the_head_says_table_and_operation(operation: str, table: str) -> None:
    """The constant beginning of an event holds its table and operation and nothing else."""
    number = {"insert": 1, "upsert": 2, "delete": 3}[operation]
    expected = row_event_pb2.RowEvent(table=table, operation=number).SerializeToString()  # type: ignore[arg-type]
    assert wire.event_head(table, operation) == expected


@given(st.lists(st.one_of(INT64, st.text()), min_size=1, max_size=4))
def test_keys_are_those_of_protobuf(parts: list[int | str]) -> None:
    """Keys of any parts, an integer 0 and an empty text too, are written as the generated code writes them."""
    key = row_event_pb2.Key()
    encoded = []
    for part in parts:
        if isinstance(part, int):
            key.parts.add(integer=part)
            encoded.append(wire.integer_part(part))
        else:
            key.parts.add(text=part)
            encoded.append(wire.text_part(part.encode()))
    assert wire.key_message(encoded) == key.SerializeToString()


@given(st.lists(st.floats(width=32, allow_nan=False), max_size=8))
def test_vectors_are_those_of_protobuf(vector: list[float]) -> None:
    """Packed, as the generated code writes them, empty ones too."""
    assert wire.vector_message(vector) == row_event_pb2.Vector(values=vector).SerializeToString()
