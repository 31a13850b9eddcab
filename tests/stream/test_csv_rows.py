"""Cells of a CSV file become what the schema says their columns are, or refuse their own row."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.csv_rows import CsvRows, count_csv_rows, csv_rows
from stream.file_rows import FileTable
from temporal_graph.schema import Schema


def read(schema: Schema, path: Path, text: str) -> CsvRows:
    """The first block of a file of this text."""
    path.write_text(text)
    return next(csv_rows(schema, FileTable.of(schema, path).source, path))


def column(schema: Schema, folder: Path, name: str, *cells: str, ordered_at: str = "2024-01-31") -> tuple[list, list]:
    """A column of orders with these cells: its values, and the rows that are refused."""
    lines = "".join(f'{i},{ordered_at},"{cell}"\n' for i, cell in enumerate(cells))
    found = read(schema, folder / "orders.csv", f"order_id,ordered_at,{name}\n{lines}")
    return found.batch.column(name).to_pylist(), sorted(found.refused)


@pytest.mark.parametrize(
    ("name", "cells", "values", "refused"),
    [
        ("amount", ("1", "2.5", "", "NA", " 1e3"), [1.0, 2.5, None, None, 1000.0], []),
        ("amount", ("1", "1_000", "much"), [1.0, None, None], [1, 2]),
        ("paid", ("true", "0", "False", "1", ""), [True, False, False, True, None], []),
        ("paid", ("yes", "2", "1"), [None, None, True], [0, 1]),
        ("customer_id", ("7", "", "-8"), [7, None, -8], []),
        ("customer_id", ("7.0", "", "x7", "7.5"), [7, None, None, None], [2, 3]),
        ("customer_id", ("9223372036854775807", "9223372036854775808"), [2**63 - 1, None], [1]),
        ("due", ("2024-01-31", "", "2024-01-31T10:00:00+02:00"), ["2024-01-31", None, "2024-01-31T10:00:00+02:00"], []),
        ("due", ("1706659200", ""), [1706659200, None], []),
        ("due", ("20240131",), ["20240131"], []),
    ],
)
def test_cells_are_what_their_column_is(
    schema: Schema, tmp_path: Path, name: str, cells: tuple[str, ...], values: list[object], refused: list[int]
) -> None:
    """Numbers, booleans, integer keys and times are read as such; a cell that cannot be that refuses its row alone."""
    assert column(schema, tmp_path, name, *cells) == (values, refused)


def test_lists_are_written_as_in_json(schema: Schema, tmp_path: Path) -> None:
    """A list of texts and a vector are JSON within their cell; other texts are refused."""
    path = tmp_path / "orders.csv"
    text = 'order_id;ordered_at;tags;taste\n1;2024-01-31;["a","b"];[1,2,3]\n2;2024-01-31;a b;\n'
    found = read(schema, path, text)
    assert found.batch.column("tags").to_pylist() == [["a", "b"], None]
    assert found.batch.column("taste").to_pylist() == [[1, 2, 3], None]
    assert found.refused[1].reason == "bad_list"
    assert found.row(1)["tags"] == "a b", "a refused row is kept as it was written"


def test_categories_are_integers_where_a_tool_wrote_integers(schema: Schema, tmp_path: Path) -> None:
    """3.0 beside nulls is the integer 3, as in Parquet; versions that end in .0 stay what they are."""
    assert column(schema, tmp_path, "status", "3.0", "", "4.0")[0] == ["3", None, "4"]
    assert column(schema, tmp_path, "status", "3.0", "", "4.5")[0] == ["3.0", None, "4.5"]
    assert column(schema, tmp_path, "status", "3.0", "4.0")[0] == ["3.0", "4.0"]
    assert column(schema, tmp_path, "status", "007", "x")[0] == ["007", "x"]


def test_rows_are_counted_as_they_are_read(schema: Schema, tmp_path: Path) -> None:
    """A line break in quotes is no row, nor is a last line without an end missing."""
    path = tmp_path / "orders.csv"
    found = read(schema, path, 'order_id,ordered_at,note\n1,2024-01-31,"two\nlines"\n2,2024-01-31,x')
    assert count_csv_rows(path) == found.batch.num_rows == 2


def test_names_with_other_characters(schema: Schema, tmp_path: Path) -> None:
    """A header `order id` is the schema's order_id."""
    found = read(schema, tmp_path / "orders.csv", "order id,ordered-at,amount\n1,2024-01-31,2\n")
    assert found.batch.schema.names == ["order_id", "ordered_at", "amount"]
