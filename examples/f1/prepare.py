"""Makes what the commands load from raw Ergast tables: nine history files by time, and the labels of two tasks.

    FOLDER/*.parquet       ─► OUT/*.parquet          the tables, lap times as seconds, nothing from --until on
    FOLDER/tasks/*.parquet ─► OUT/labels/*.parquet   date, driverId, y; never cut

Usage: python examples/f1/prepare.py out/ [--data FOLDER] [--until 2010-01-01]
"""

from __future__ import annotations

import argparse
import os
from datetime import datetime
from pathlib import Path

import duckdb

STATIC = ("circuits", "drivers", "constructors")
TIMED = ("races", "qualifying", "results", "standings", "constructor_results", "constructor_standings")
LAP_TIMES = {"qualifying": ("q1", "q2", "q3"), "results": ("fastestLapTime",)}
"""Columns written as minutes:seconds."""
TASKS = ("driver-dnf", "driver-position")
SPLITS = {"train": "train", "val": "validation", "test": "test"}


def seconds(column: str) -> str:
    """The SQL that reads minutes:seconds as a number of seconds."""
    return f"split_part({column}, ':', 1)::double * 60 + split_part({column}, ':', 2)::double"


def select(table: str, file: Path, until: datetime | None) -> str:
    """The SQL of one table's rows, in order of time."""
    replaced = ", ".join(f"{seconds(column)} as {column}" for column in LAP_TIMES.get(table, ()))
    columns = f"* replace ({replaced})" if replaced else "*"
    where = f"where date < timestamp '{until.isoformat(sep=' ')}'" if until is not None and table in TIMED else ""
    return f"select {columns} from '{file}' {where} order by {'date, 1' if table in TIMED else '1'}"


def main() -> None:
    """Writes the nine tables as they were known before ``--until``, and the label tables."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--data", type=Path, help="folder of the nine tables; default: NOWGRAPH_DATA's f1")
    parser.add_argument("--until", type=datetime.fromisoformat, help="leave out what happened from here on")
    arguments = parser.parse_args()
    folder = arguments.data or Path(os.environ.get("NOWGRAPH_DATA", ".")) / "f1"
    if not (folder / "results.parquet").is_file():
        parser.error(f"no results.parquet in {folder}: give --data, or set NOWGRAPH_DATA to the folder that has f1/")
    labels = arguments.output / "labels"
    labels.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as database:
        for table in (*STATIC, *TIMED):
            query = select(table, folder / f"{table}.parquet", arguments.until)
            database.execute(f"copy ({query}) to '{arguments.output / table}.parquet' (format parquet)")
        for task in TASKS:
            for split, name in SPLITS.items():
                query = f"select * from '{folder / 'tasks' / task}-{split}.parquet' order by date, driverId"
                database.execute(f"copy ({query}) to '{labels / task}-{name}.parquet' (format parquet)")
    print(f"{len(STATIC) + len(TIMED)} tables in {arguments.output}, labels in {labels}")


if __name__ == "__main__":
    main()
