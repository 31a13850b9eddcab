"""CSV files as tools write them: delimiters, a byte order mark, line breaks in quotes."""

from __future__ import annotations

from pathlib import Path

import pytest

from temporal_graph.csv_file import open_csv


def rows(path: Path, *, texts: bool = False) -> list[dict[str, object]]:
    """All rows of the file."""
    with open_csv(path, texts=texts) as reader:
        return [row for batch in reader for row in batch.to_pylist()]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_header_says_the_delimiter(tmp_path: Path, delimiter: str) -> None:
    """Each of the usual ones is found, and others within quotes are none."""
    path = tmp_path / "t.csv"
    path.write_text(f'id{delimiter}name\n1{delimiter}"a{delimiter}b,c"\n', encoding="utf-8-sig")
    assert rows(path) == [{"id": 1, "name": f"a{delimiter}b,c"}]


def test_a_line_break_in_quotes_ends_no_row(tmp_path: Path) -> None:
    """A text of two lines is one cell."""
    path = tmp_path / "t.csv"
    path.write_text('id,note\n1,"two\nlines"\n2,NA\n3,\n')
    assert [row["note"] for row in rows(path)] == ["two\nlines", None, None]


def test_texts_stay_as_they_are_written(tmp_path: Path) -> None:
    """Leading zeros and points are kept where every column is read as text."""
    path = tmp_path / "t.csv"
    path.write_text("zip,share\n007,3.0\n")
    assert rows(path, texts=True) == [{"zip": "007", "share": "3.0"}]
    assert rows(path) == [{"zip": 7, "share": 3.0}]
