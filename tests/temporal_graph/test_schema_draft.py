"""A draft's comments: what a person should look at, where it stands."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from temporal_graph.schema import draft_schema, parse_schema

DAYS = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=i) for i in range(6)]


@pytest.fixture
def lines(tmp_path: Path) -> dict[str, list[str]]:
    """Of a draft of a shop: the lines of each table, the comments above it first."""
    tables: dict[str, dict[str, Any]] = {
        "people": {
            "person_id": range(10, 16),
            "manager_id": [None, 10, 10, 11, 11, 12],
            "e-mail": [f"p{i}@example.org" for i in range(6)],
            "hired": [f"{i}.5.2024" for i in range(1, 7)],
            "nothing": pa.nulls(6),
        },
        "orders": {
            "order_id": range(100, 106),
            "ordered_at": DAYS,
            "shipped_at": DAYS,
            "due_at": DAYS,
            "taken_by": [10, 11, 12, 13, 14, 15],
            "origin": ["a", "b", "c", "a", "b", "c"],
            "photo": [b"x"] * 6,
        },
        "lines": {"order_id": [100, 100, 101, 102, 103, 104], "number": [1, 2, 1, 1, 1, 1], "price": [0.5] * 6},
        "deliveries": {"order_id": range(100, 106), "delivered_at": DAYS, "late": [0, 1] * 3},
        "places": {"code": list("abcdef"), "size": [1.5] * 6},
    }
    paths = [tmp_path / f"{name}.parquet" for name in tables]
    for path, columns in zip(paths, tables.values(), strict=True):
        pq.write_table(pa.table(columns), path)
    schema, text = draft_schema(paths)
    assert parse_schema(text) == schema
    found: dict[str, list[str]] = {"": []}
    above: list[str] = []
    for line in text.splitlines():
        if re.match(r"  # ", line):
            above.append(line)
        elif match := re.match(r"  (\w+):", line):
            found[match[1]], above = [*above, line], []
        else:
            list(found.values())[-1].append(line)
    return found


def said(lines: list[str]) -> str:
    """The comments of a table, as one text."""
    return " ".join(line.strip(" #") for line in lines)


def place(lines: list[str], column: str) -> str:
    """The line of a column."""
    return next(line for line in lines if line.strip().startswith(f"{column}:"))


def test_what_a_row_knew_when_it_happened(lines: dict[str, list[str]]) -> None:
    """The head says how a later value is given; a timestamp beside the clock is asked about, one known ahead is not."""
    assert "operation: upsert" in "\n".join(lines[""])
    assert place(lines["orders"], "shipped_at").endswith("# known by ordered_at? Else see above")
    assert "#" not in place(lines["orders"], "due_at")


def test_rows_without_time_of_a_table_with_time(lines: dict[str, list[str]]) -> None:
    """Lines of orders would be seen before the orders: the note says what to copy."""
    note = said(lines["lines"])
    assert "LOOK: no time" in note
    assert "Copy its ordered_at into this file" in note
    assert "Unique together: order_id, number; as primary_key: {order_id: integer, number: integer}" in note


def test_texts_that_come_again_may_be_things(tmp_path: Path) -> None:
    """Twenty machines with three rows each are worth a question each; three kinds, or names that come once, are not."""
    path = tmp_path / "runs.parquet"
    machine = [f"m{i % 20}" for i in range(60)]
    columns = {"machine": machine, "kind": list("abc") * 20, "label": [f"l{i}" for i in range(60)], "at": DAYS * 10}
    pq.write_table(pa.table(columns), path)
    lines = draft_schema([path])[1].splitlines()
    assert "A link of machine to a table of that key gives each its history" in place(lines, "machine")
    assert "#" not in place(lines, "kind")


def test_years_are_times(tmp_path: Path) -> None:
    """A year of a table without a time is no thing that its rows have in common: the note says what to write."""
    path = tmp_path / "seasons.parquet"
    pq.write_table(
        pa.table({"player": ["a", "a", "b", "b"], "yearID": [2001, 2002, 2001, 2002], "hits": [1.5] * 4}), path
    )
    schema, text = draft_schema([path])
    assert [table.name for table in schema.tables] == ["seasons"]
    assert "yearID holds years: as a time_column, write the day they are known" in said(text.splitlines())


def test_a_table_of_the_same_keys_may_be_later_news(lines: dict[str, list[str]]) -> None:
    """The source is written out, with the table's own clock."""
    source = "topic: deliveries, table: orders, format: json, operation: upsert, event_time: delivered_at"
    assert f"{{{source}, known_time: delivered_at}}" in said(lines["deliveries"])


def test_links(lines: dict[str, list[str]]) -> None:
    """Texts that are another table's keys are linked, a manager to his own table; an integer is asked about."""
    assert "places" in place(lines["orders"], "origin")
    assert "people" in place(lines["people"], "manager_id")
    assert place(lines["orders"], "taken_by").endswith("numerical  # a link? All its values are keys of people")


def test_columns_worth_a_look(lines: dict[str, list[str]]) -> None:
    """Another name, personal data, dates of another form, no values, and what no kind can hold."""
    assert place(lines["people"], "e_mail").endswith(
        "# personal? {kind: categorical, private: true} keeps a hash of it; 'e-mail' in the file"
    )
    assert "2024-01-31" in place(lines["people"], "hired")
    assert place(lines["people"], "nothing").endswith("# no value in the rows that were read")
    assert "Left out: photo (binary)." in " ".join(lines["orders"])


def test_a_unique_text_is_offered_as_the_key(tmp_path: Path) -> None:
    """A table whose unique column is not at the front is not said to have none; other columns are no such offer."""
    path = tmp_path / "payments.parquet"
    columns = {"amount": [5.5] * 6, "customer": [1, 1, 2, 2, 3, 3], "cheque": list("abcdef"), "paid_at": DAYS}
    pq.write_table(pa.table(columns), path)
    text = said(draft_schema([path])[1].splitlines())
    assert "No column is named as its key: its rows have no key" in text
    assert "cheque is unique; as primary_key: {cheque: string}." in text
    pq.write_table(pa.table(columns | {"cheque": list("aabbcc")}), path)
    assert "No column is unique" in said(draft_schema([path])[1].splitlines())


def test_rows_without_a_time_are_counted(tmp_path: Path) -> None:
    """A row without its time is not loaded, which the draft says; of complete times it says nothing."""
    path = tmp_path / "offers.parquet"
    pq.write_table(pa.table({"offer_id": range(6), "begins_at": [None, *DAYS[1:]]}), path)
    assert "1 of 6 rows have no begins_at: they are not loaded." in draft_schema([path])[1]
    pq.write_table(pa.table({"offer_id": range(6), "begins_at": DAYS}), path)
    assert "not loaded" not in draft_schema([path])[1]


def test_a_state_at_the_end_is_asked_about(tmp_path: Path) -> None:
    """A status in a row with a time may be the last one, which the row did not know; without a time it is no news."""
    columns = {"order_id": range(6), "ordered_at": DAYS, "orderStatus": list("aabbab"), "statute": list("aabbab")}
    path = tmp_path / "orders.parquet"
    pq.write_table(pa.table(columns), path)
    text = draft_schema([path])[1]
    assert "orderStatus: categorical  # as it was at ordered_at, or as it ended?" in text
    assert "statute: categorical\n" in text
    pq.write_table(pa.table({name: each for name, each in columns.items() if name != "ordered_at"}), path)
    assert "as it ended" not in draft_schema([path])[1]


@pytest.mark.parametrize("name", ["phone1", "AddressLine2", "fullname", "lname", "Phone"])
def test_personal_columns_have_numbers_too(tmp_path: Path, name: str) -> None:
    """phone1 is as personal as phone; a file name and a phonetic are not."""
    path = tmp_path / "people.parquet"
    pq.write_table(pa.table({"person_id": range(6), name: list("abcdef"), "phonetic": list("abcdef")}), path)
    text = draft_schema([path])[1]
    assert f"{name}: categorical  # personal?" in text
    assert "phonetic: categorical\n" in text
