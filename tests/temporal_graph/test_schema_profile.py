"""What is seen of a data file."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from temporal_graph import schema_profile
from temporal_graph.errors import SchemaError
from temporal_graph.schema_profile import ColumnProfile, profile_file


def profile_column(folder: Path, values: Any) -> ColumnProfile:
    """The profile of one Parquet column."""
    path = folder / "table.parquet"
    pq.write_table(pa.table({"c": values}), path)
    return profile_file(path).columns[0]


NOON = datetime(2018, 4, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("values", "family"),
    [
        ([1, 2, None], "integer"),
        (pa.array([1, 2], pa.uint8()), "integer"),
        ([0, 1, None, 1], "boolean"),
        ([0, 0], "integer"),
        ([True, None], "boolean"),
        ([1.5, 2.0], "number"),
        (pa.array([2**63], pa.uint64()), "number"),
        (["a", None], "text"),
        (pa.array(["a", "b"], pa.large_string()), "text"),
        (pa.array(["a", "b"]).dictionary_encode(), "text"),
        (pa.nulls(3), "text"),
        ([NOON, None], "timestamp"),
        ([date(2018, 4, 1)], "timestamp"),
        (["2018-04-01 12:00:00", None], "timestamp"),
        (["2018-04-01T12:00:00.123456Z", "2018-04-01T12:00:00+02:00"], "timestamp"),
        (["2018-04-01", "soon"], "text"),
        (["1:26.572", "1:25.187"], "text"),
        ([["a"], [], None], "texts"),
        ([[1, 2], [3]], "texts"),
        ([[0.5, 1.0], [1.5, 2.0]], "vector"),
        (pa.array([[0.5, 1.0, 2.0]], pa.list_(pa.float32(), 3)), "vector"),
    ],
)
def test_families(tmp_path: Path, values: Any, family: str) -> None:
    """Each Arrow type, and texts that are times, fall into the family a schema has for them."""
    assert profile_column(tmp_path, values).family == family


@pytest.mark.parametrize(
    ("values", "days_only"),
    [
        ([NOON, None], False),
        ([date(2018, 4, 1), None], True),
        ([datetime(2018, 4, 1), datetime(2018, 4, 2)], True),
        ([datetime(2018, 4, 1), datetime(2018, 4, 2, 0, 0, 1)], False),
        (pa.array([1_522_533_600], pa.timestamp("s", "Europe/Berlin")), True),  # its midnight, not UTC's
        (pa.array([1_522_540_800], pa.timestamp("s", "Europe/Berlin")), False),
        (pa.array([1_522_540_800], pa.timestamp("s", "Nowhere/Town")), False),
        (["2018-04-01", None], True),
        (["2018-04-01 00:00:00"], False),
    ],
)
def test_a_clock_that_tells_days_alone_is_known_as_one(tmp_path: Path, values: Any, days_only: bool) -> None:
    """Dates, texts of dates, and times that are all a day's first moment by their own zone."""
    found = profile_column(tmp_path, values)
    assert (found.family, found.days_only) == ("timestamp", days_only)


@pytest.mark.parametrize(
    ("name", "values", "family"),
    [
        ("created_at", [1_522_540_831, 1_622_540_831], "timestamp"),
        ("eventTime", [1_522_540_831_000], "timestamp"),
        ("ts", [1_522_540_831_000_000, None], "timestamp"),
        ("timestamp_ms", [1_522_540_831_000], "timestamp"),
        ("created_at", [1_522_540_831, 1_522_540_831_000], "integer"),
        ("date", [20180401, 20180402], "integer"),
        ("amount", [1_522_540_831], "integer"),
        ("format", [1_522_540_831], "integer"),
        ("created_at", [1_522_540_831.5], "number"),
        ("created_at", [1_522_540_831.0, None], "number"),
        ("created_at", [Decimal(1_522_540_831)], "timestamp"),
    ],
)
def test_epochs(tmp_path: Path, name: str, values: Any, family: str) -> None:
    """Integers are times where the name says so and all are epochs of one unit; floats, which are not exact, never."""
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({name: values}), path)
    assert profile_file(path).columns[0].family == family


@pytest.mark.parametrize(
    ("values", "family", "null_count"),
    [
        (pa.array([3.0, float("nan"), 7.0]), "integer", 1),
        (pa.array([1.0, None, 0.0], pa.float32()), "boolean", 1),
        (pa.array([Decimal(3), Decimal(7)], pa.decimal128(38, 0)), "integer", 0),
        (pa.array([3.0, 7.0]), "number", 0),
        (pa.array([3.5, None, 7.0]), "number", 1),
        (pa.array([None, float("nan")]), "number", 2),
        (pa.array([Decimal(3)], pa.decimal128(10, 2)), "number", 0),
        (pa.array([Decimal(2**70)], pa.decimal128(38, 0)), "number", 0),
    ],
)
def test_integers_that_a_tool_wrote_otherwise(tmp_path: Path, values: pa.Array, family: str, null_count: int) -> None:
    """Whole floats beside nulls and decimals without digits behind the point may be keys; others are measures."""
    profile = profile_column(tmp_path, values)
    assert (profile.family, profile.null_count) == (family, null_count)


def test_counts(tmp_path: Path) -> None:
    """Distinct values and nulls are counted apart, over texts and integers of any width."""
    profile = profile_column(tmp_path, ["a", "bcd", "a", None])
    assert (profile.distinct_count, profile.null_count, profile.length_mean) == (2, 1, 2.0)
    profile = profile_column(tmp_path, pa.array([7, 7, 9, None], pa.int8()))
    assert (sorted(profile.distinct.to_pylist()), profile.null_count) == ([7, 9], 1)
    assert profile_column(tmp_path, [[0.5, 1.0]]).dim == 2
    assert profile_column(tmp_path, pa.array([None], pa.list_(pa.float32(), 3))).dim == 3
    assert profile_column(tmp_path, pa.array(["a"]).dictionary_encode()).words_only


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([{"a": 1}], "struct"),
        ([b"x"], "binary"),
        ([[0.5], [0.5, 1.0]], "lengths from 1 to 2"),
        ([[True]], "list<"),
    ],
)
def test_types_no_schema_has(tmp_path: Path, values: Any, says: str) -> None:
    """A column that no kind fits is left out by name and type, not in silence; a file with no other is refused."""
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"c": values, "id": range(len(values))}), path)
    found = profile_file(path)
    assert [column.name for column in found.columns] == ["id"]
    ((name, kind),) = found.left_out
    assert (name, says in kind) == ("c", True)
    with pytest.raises(SchemaError, match="expected at least one column"):
        profile_column(tmp_path, values)


def test_csv_and_parquet_agree(tmp_path: Path) -> None:
    """The same rows as CSV and as Parquet have the same families and counts."""
    (tmp_path / "my-rows.csv").write_text(
        "id,at,amount,flag,name\n1,2018-04-01 12:00:00,1.5,0,x\n2,2018-04-02 12:00:00,2,1,\n"
    )
    table = pa.table({"id": [1, 2], "at": [NOON, NOON], "amount": [1.5, 2.0], "flag": [0, 1], "name": ["x", None]})
    pq.write_table(table, tmp_path / "my-rows.parquet")
    csv, parquet = (profile_file(tmp_path / f"my-rows.{suffix}") for suffix in ("csv", "parquet"))
    assert csv.name == parquet.name == "my_rows"
    assert csv.row_count == parquet.row_count == 2
    described = [[(c.name, c.family, c.null_count, c.distinct_count) for c in each.columns] for each in (csv, parquet)]
    assert described[0] == described[1]


def test_jsonl_is_read_as_parquet_is(tmp_path: Path) -> None:
    """Lines of JSON have the families of the same columns elsewhere."""
    (tmp_path / "rows.jsonl").write_text(
        '{"id": 1, "at": "2018-04-01T12:00:00", "tags": ["a"], "name": "x"}\n{"id": 2, "tags": [], "name": null}\n'
    )
    found = profile_file(tmp_path / "rows.jsonl")
    assert [(c.name, c.family, c.null_count) for c in found.columns] == [
        ("id", "integer", 0),
        ("at", "timestamp", 1),
        ("tags", "texts", 0),
        ("name", "text", 1),
    ]


def test_rows_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most the stated number of rows is read, over row groups and CSV blocks alike."""
    monkeypatch.setattr(schema_profile, "ROWS_MAX", 150)
    monkeypatch.setattr(schema_profile, "_CSV_BLOCK_BYTES", 64)
    pq.write_table(pa.table({"c": list(range(400))}), tmp_path / "t.parquet", row_group_size=100)
    (tmp_path / "t.csv").write_text("c\n" + "".join(f"{i}\n" for i in range(400)))
    assert profile_file(tmp_path / "t.parquet").row_count == 150
    assert profile_file(tmp_path / "t.csv").row_count == 150


def test_files_that_are_none(tmp_path: Path) -> None:
    """Another format, a damaged file and a missing one are each refused as what they are."""
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes(b"not parquet at all")
    with pytest.raises(SchemaError, match=r"^damaged\.parquet: expected a readable Parquet, CSV or JSONL file"):
        profile_file(damaged)
    with pytest.raises(
        SchemaError, match=r"^a\.json: expected a file named \*\.parquet, .*\*\.csv, .*\*\.jsonl, .*found '\.json'"
    ):
        profile_file(tmp_path / "a.json")
    with pytest.raises(FileNotFoundError):
        profile_file(tmp_path / "none.parquet")
    with pytest.raises(FileNotFoundError):
        profile_file(tmp_path / "none.csv")
