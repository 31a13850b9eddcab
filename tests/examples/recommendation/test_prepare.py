"""The example's preparations: what is known when, what is left out, and a clock that gives nothing away."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from nowgraph.loading import load_files
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import load_schema

LINES = """
    select * from (values
      (1, '85a', 'LAMP', 2, timestamp '2011-01-05 10:00:00', 2.5, 7, 'France'),
      (1, 'POST', 'POSTAGE', 1, timestamp '2011-01-05 10:00:00', 9.0, 7, 'France'),
      (2, '85A', 'lamp, dented', 1, timestamp '2011-01-06 09:00:00', 1.0, 0, 'Spain'),
      (3, '22', 'CUP', 4, timestamp '2011-01-07 09:00:00', 3.0, 8, 'Spain'),
      (3, '22', 'CUP', 1, timestamp '2011-01-07 09:00:00', 3.0, 8, 'Spain')
    ) lines(invoice_no, stock_code, description, quantity, invoice_date, unit_price, customer_id, country)"""
SEQUENCES = """
    select user_id, unnest(list) as item_id, unnest(range(len(list))) as position
    from (values (1, [1, 2, 3]), (2, [4, 1])) users(user_id, list)"""
ITEMS = "select unnest([1, 2, 3, 4]) as item_id, unnest([[9, 5], [5], [], [7]]) as attributes"


def _written(folder: Path, **queries: str) -> Path:
    folder.mkdir()
    with duckdb.connect() as database:
        for name, query in queries.items():
            database.execute(f"copy ({query}) to '{folder / name}.parquet' (format parquet)")
    return folder


def _prepared(repository: Path, script: str, output: Path, *options: str) -> Path:
    path = repository / "examples" / "recommendation" / script
    subprocess.run([sys.executable, str(path), str(output), *options], check=True, timeout=200, capture_output=True)
    return output


def _rows(file: Path, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as database:
        return database.execute(query.format(f"'{file}.parquet'")).fetchall()


def _loaded(repository: Path, schema: str, folder: Path) -> int:
    """How many rows the schema took; all of them, or the test fails."""
    with TemporalGraph.create(load_schema(repository / "examples" / "recommendation" / schema)) as graph:
        loaded = load_files(graph, sorted(folder.glob("*.parquet")), quiet=True, dead_letters=folder / "letters")
    assert (loaded.dead_letters, loaded.duplicate, loaded.applied) == (0, 0, loaded.rows)
    return loaded.rows


@pytest.fixture
def retail(repository: Path, tmp_path: Path) -> Path:
    """The prepared tables of five lines."""
    raw = _written(tmp_path / "raw", invoice_lines=LINES)
    return _prepared(repository, "prepare.py", tmp_path / "out", "--data", str(raw))


@pytest.fixture
def toys(repository: Path, tmp_path: Path) -> Path:
    """The prepared tables of two sequences."""
    raw = _written(tmp_path / "raw", interactions=SEQUENCES, items=ITEMS)
    return _prepared(repository, "toys/prepare.py", tmp_path / "out", "--data", str(raw))


def test_a_product_is_what_its_first_sale_says(retail: Path) -> None:
    """Its time, text and price are those of then; two spellings of a code are one product."""
    found = _rows(retail / "products", "select * from {} order by first_sold_at")
    assert found == [
        ("85A", datetime(2011, 1, 5, 10), "LAMP", 2.5),
        ("22", datetime(2011, 1, 7, 9), "CUP", 3.0),
    ]


def test_lines_of_nobody_stay_and_postage_goes(repository: Path, retail: Path) -> None:
    """A product sold twice on one invoice has two lines; an unknown customer is none."""
    found = _rows(retail / "lines", "select product_id, customer_id, quantity from {} order by line_id")
    assert sorted(found, key=str) == [("22", 8, 1), ("22", 8, 4), ("85A", 7, 2), ("85A", None, 1)]
    assert _rows(retail / "customers", "select * from {} order by 1") == [(7, "France"), (8, "Spain")]
    assert _loaded(repository, "schema.yaml", retail) == 2 + 2 + 4


@pytest.mark.parametrize(("until", "lines"), [("2011-01-06T09:00:00", 1), ("2011-01-06T09:00:01", 2)])
def test_what_is_sold_later_is_left_out(repository: Path, tmp_path: Path, until: str, lines: int) -> None:
    """A sale at the cut is out, one just before it is in; products and customers are those sold by then."""
    raw = _written(tmp_path / "raw", invoice_lines=LINES)
    output = _prepared(repository, "prepare.py", tmp_path / "out", "--data", str(raw), "--until", until)
    assert _loaded(repository, "schema.yaml", output) == 1 + 1 + lines


def test_sequences_end_together_a_day_apart(repository: Path, toys: Path) -> None:
    """The last of each is at one time, the one before it a day earlier; their order is the data's."""
    found = _rows(toys / "interactions", "select position, happened_at from {} order by user_id, position")
    days = {3: [29, 30, 31], 2: [30, 31]}
    by_length = {3: found[:3], 2: found[3:]} if found[2][0] == 2 else {2: found[:2], 3: found[2:]}
    for length, rows in by_length.items():
        assert rows == [(place, datetime(2024, 12, day, 12)) for place, day in enumerate(days[length])]
    assert _loaded(repository, "toys/schema.yaml", toys) == 2 + 4 + 5


def test_numbers_are_permuted_as_wholes(toys: Path) -> None:
    """An item keeps its attributes and its users under its new number; no number is lost."""
    items = dict(_rows(toys / "items", "select item_id, attributes from {}"))
    assert sorted(items) == [1, 2, 3, 4]
    assert sorted(items.values()) == [[], ["5"], ["5", "9"], ["7"]]
    found = _rows(toys / "interactions", "select user_id, list(item_id order by position) from {} group by 1")
    texts = sorted([[items[item] for item in listed] for _, listed in found])
    assert texts == [[["5", "9"], ["5"], []], [["7"], ["5", "9"]]]


@pytest.mark.slow
@pytest.mark.skipif("NOWGRAPH_DATA" not in os.environ, reason="needs the real data")
def test_the_real_files_load_whole(repository: Path, tmp_path: Path) -> None:
    """No row of the real data is refused or taken for another, and no number of an item is what it was."""
    assert _loaded(repository, "schema.yaml", _prepared(repository, "prepare.py", tmp_path / "retail")) > 500_000
    toys = _prepared(repository, "toys/prepare.py", tmp_path / "toys")
    assert _loaded(repository, "toys/schema.yaml", toys) == 19_412 + 11_924 + 167_597
    ends = _rows(toys / "interactions", "select max(happened_at) from {}")
    assert ends == [(datetime(2024, 12, 31, 12),)]
