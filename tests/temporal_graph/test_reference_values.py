"""One canonical value for each thing said, and what orders equal times."""

from __future__ import annotations

import math
from typing import Any

import pytest

from temporal_graph.reference_values import canonical_cell, canonical_cells, content_hash, key_order, key_text
from temporal_graph.schema_parse import parse_schema
from temporal_graph.schema_types import ColumnKind
from temporal_graph.time_rule import ALWAYS_US

TABLE = parse_schema("""
version: 1
name: x
tables:
  p: {primary_key: {id: integer}}
  q: {primary_key: {a: string, b: integer}}
  t:
    primary_key: {id: integer}
    columns:
      number: numerical
      word: categorical
      words: multicategorical
      flag: boolean
      moment: timestamp
      vector: {kind: embedding, dim: 2}
    links:
      p_id: p
      q: {table: q, columns: [a, b]}
""").table("t")


def test_keys_are_ordered_by_value_then_by_bytes() -> None:
    """Integers by value before texts by UTF-8 bytes, composite keys part by part."""
    keys: list[tuple[int | str, ...]] = [("b",), (10,), ("é",), (-1,), ("a", 2), ("a", 1), ("Z",), ("a",), (9,)]
    expected: list[tuple[int | str, ...]] = [(-1,), (9,), (10,), ("Z",), ("a",), ("a", 1), ("a", 2), ("b",), ("é",)]
    assert sorted(keys, key=key_order) == expected


def test_utf8_order_is_not_utf16_order() -> None:
    """A text beyond the basic plane comes after every text within it, as bytes do."""
    assert key_order(("\U0001f600",)) > key_order(("\uffff",))


def test_keys_are_named_compactly() -> None:
    """A key is named by a JSON list without spaces, its texts as they are."""
    assert key_text((7,)) == "[7]"
    assert key_text(("é", 7)) == '["é",7]'


@pytest.mark.parametrize(
    ("kind", "value", "canonical"),
    [
        (ColumnKind.NUMERICAL, 3, 3.0),
        (ColumnKind.BOOLEAN, True, True),
        (ColumnKind.TIMESTAMP, 5, 5),
        (ColumnKind.TIMESTAMP, ALWAYS_US, None),
        (ColumnKind.CATEGORICAL, 7, "7"),
        (ColumnKind.TEXT, "", ""),
        (ColumnKind.MULTICATEGORICAL, ["b", "a", "b"], ["a", "b"]),
        (ColumnKind.MULTICATEGORICAL, [""], []),
        (ColumnKind.EMBEDDING, [0.1, 2], [0.10000000149011612, 2.0]),
        (None, 7, (7,)),
        (None, ("a", 7), ("a", 7)),
        (None, None, None),
        (ColumnKind.NUMERICAL, None, None),
    ],
)
def test_cells_have_one_form(kind: ColumnKind | None, value: Any, canonical: Any) -> None:
    """Different ways to say the same give one value of one type."""
    result = canonical_cell(kind, value)
    assert result == canonical
    assert type(result) is type(canonical)


def test_zero_has_no_sign() -> None:
    """Minus zero is zero, so it is no other content."""
    assert math.copysign(1, canonical_cell(ColumnKind.NUMERICAL, -0.0)) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_are_finite(number: float) -> None:
    """NaN and infinities are refused, alone and within a vector."""
    with pytest.raises(ValueError, match="finite"):
        canonical_cell(ColumnKind.NUMERICAL, number)
    with pytest.raises(ValueError, match="finite"):
        canonical_cell(ColumnKind.EMBEDDING, [0.0, number])


def test_nulls_say_something_only_in_a_patch() -> None:
    """An insert leaves its nulls out, an upsert keeps them, a delete has no cells at all."""
    cells = {"a+b": None, "number": 1, "word": None}
    assert canonical_cells(TABLE, "insert", cells) == {"number": 1.0}
    assert canonical_cells(TABLE, "upsert", cells) == {"number": 1.0, "word": None, "a+b": None}
    assert list(canonical_cells(TABLE, "upsert", cells)) == ["number", "word", "a+b"]
    assert canonical_cells(TABLE, "delete", cells) == {}


def test_unknown_cells_raise() -> None:
    """A cell that the table does not have is a mistake of the test, and raises."""
    with pytest.raises(KeyError, match="nummer"):
        canonical_cells(TABLE, "insert", {"nummer": 1})


def test_contents_differ_where_cells_do() -> None:
    """Every cell, every null and every absence changes the content; an insert without cells is a row of nulls."""
    upserts: list[dict[str, Any]] = [
        {},
        {"number": None},
        {"number": 1.0},
        {"number": 2.0},
        {"moment": 1},
        {"word": "a"},
        {"word": "b"},
        {"words": ["a", "b"]},
        {"words": ["ab"]},
        {"flag": True},
        {"flag": False},
        {"vector": [1.0, 2.0]},
        {"vector": [2.0, 1.0]},
        {"p_id": (1,)},
        {"p_id": (2,)},
        {"a+b": ("a", 1)},
        {"a+b": ("a", 2)},
    ]
    hashes = [content_hash(TABLE, "upsert", cells) for cells in upserts]
    assert len(set(hashes)) == len(upserts)
    assert all(0 <= value < 2**64 for value in hashes)
    full: dict[str, Any] = dict.fromkeys([c.name for c in TABLE.columns] + [link.name for link in TABLE.links])
    assert content_hash(TABLE, "insert", {}) == content_hash(TABLE, "upsert", full)


def test_hash_vectors() -> None:
    """The hash is FNV-1a over the documented bytes: the empty content is the offset basis, and one known cell."""
    assert content_hash(TABLE, "upsert", {}) == 0xCBF29CE484222325
    expected = 0xCBF29CE484222325
    for byte in b"\x03\x00\x03\x01":  # slot 3, tag 3, true
        expected = (expected ^ byte) * 0x100000001B3 % 2**64
    assert content_hash(TABLE, "upsert", {"flag": True}) == expected
