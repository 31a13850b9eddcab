"""The example's preparation makes history that its schema takes whole, and cuts it where asked."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import duckdb
import pytest

from nowgraph.loading import load_files
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import load_schema

RACES = """
select * from (values (1, 1950, 1, 1, 'First', timestamp '1950-05-13'),
  (2, 1950, 2, 1, 'Second', timestamp '1950-05-21'),
  (3, 2010, 1, 1, 'Later', timestamp '2010-03-14 12:00:00')) t(raceId, year, round, circuitId, name, date)"""
RESULTS = """
select row_number() over () as resultId, raceId, driverId, 1 as constructorId, null::double as number, 0 as grid,
  null::double as position, 'R' as positionText, driverId as positionOrder, 0e0 as points, 3 as laps,
  null::varchar as time, null::double as milliseconds, null::double as fastestLap, null::double as rank,
  case when raceId = 3 then '1:27.452' end as fastestLapTime, null::double as fastestLapSpeed, 5 as statusId, date
from races, (values (1), (2)) d(driverId)"""
PLAIN = {
    "circuits": "select 1 as circuitId, 'a' as circuitRef, 'A' as name, 'B' as location, 'C' as country, 1e0 as lat, "
    "2e0 as lng, null::double as alt",
    "drivers": "select * from (values (1, '1896-12-28', 'British'), (2, '1985-01-07', 'British')) "
    "t(driverId, dob, nationality)",
    "constructors": "select 1 as constructorId, 'A' as name, 'Italian' as nationality",
    "qualifying": "select 1 as qualifyId, 3 as raceId, 2 as driverId, 1 as constructorId, 7 as number, 1 as position, "
    "'1:26.572' as q1, '0:59.5' as q2, null::varchar as q3, timestamp '2010-03-13 12:00:00' as date",
    "standings": "select raceId as driverStandingsId, raceId, 1 as driverId, 0e0 as points, 1 as position, "
    "'1' as positionText, 0 as wins, date from races",
    "constructor_results": "select raceId as constructorResultsId, raceId, 1 as constructorId, 0e0 as points, "
    "null::varchar as status, date from races",
    "constructor_standings": "select raceId as constructorStandingsId, raceId, 1 as constructorId, 0e0 as points, "
    "1 as position, '1' as positionText, 0 as wins, date from races",
}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny database with the shape of Ergast's, and the label files of both tasks."""
    folder = tmp_path_factory.mktemp("raw")
    (folder / "tasks").mkdir()
    with duckdb.connect() as database:
        database.execute(f"create table races as {RACES}")
        for table, query in {"races": "select * from races", "results": RESULTS, **PLAIN}.items():
            database.execute(f"copy ({query}) to '{folder / table}.parquet' (format parquet)")
        for task in ("driver-dnf", "driver-position"):
            for split in ("train", "val", "test"):
                query = "select timestamp '2010-03-01' as date, 1 as driverId, 1 as y"
                database.execute(f"copy ({query}) to '{folder / 'tasks' / task}-{split}.parquet' (format parquet)")
    return folder


def prepared(repository: Path, output: Path, *options: str) -> Path:
    script = repository / "examples" / "f1" / "prepare.py"
    subprocess.run([sys.executable, str(script), str(output), *options], check=True, timeout=120, capture_output=True)
    return output


def loaded_rows(repository: Path, folder: Path) -> int:
    """How many rows the example's schema took; all of them, or the test fails."""
    schema = load_schema(repository / "examples" / "f1" / "schema.yaml")
    with TemporalGraph.create(schema) as graph:
        loaded = load_files(graph, sorted(folder.glob("*.parquet")), quiet=True, dead_letters=folder / "letters")
    assert (loaded.dead_letters, loaded.duplicate, loaded.applied) == (0, 0, loaded.rows)
    return loaded.rows


@pytest.mark.parametrize(("until", "rows"), [(None, 23), ("2010-03-14T12:00:00", 17), ("2010-03-13T12:00:00", 16)])
def test_every_row_loads_up_to_the_time_asked_for(
    repository: Path, tmp_path: Path, raw: Path, until: str | None, rows: int
) -> None:
    """Rows of 1950 load as those of 2010 do; with a time, what happened at it or later is left out, labels never."""
    output = prepared(repository, tmp_path / "out", "--data", str(raw), *(["--until", until] if until else []))
    assert loaded_rows(repository, output) == rows
    assert len(list((output / "labels").glob("driver-*.parquet"))) == 6


def test_lap_times_become_seconds(repository: Path, tmp_path: Path, raw: Path) -> None:
    """Minutes and seconds written as text are one number; a missing time stays missing."""
    output = prepared(repository, tmp_path / "out", "--data", str(raw))
    with duckdb.connect() as database:
        rows = database.execute(f"select q1, q2, q3 from '{output}/qualifying.parquet'").fetchall()
    assert rows == [(pytest.approx(86.572), 59.5, None)]


@pytest.mark.skipif("NOWGRAPH_DATA" not in os.environ, reason="needs the real data")
def test_real_labels_follow_from_the_real_results(repository: Path, tmp_path: Path) -> None:
    """The label files are what the tasks say: any status but 1 within 30 days, the mean place within 60."""
    output = prepared(repository, tmp_path / "out")
    assert loaded_rows(repository, output) > 90_000
    with duckdb.connect() as database:
        for task, days, label in (("dnf", 30, "max((statusId != 1)::int)"), ("position", 60, "avg(positionOrder)")):
            wrong = f"""
                select count(*) from '{output}/labels/driver-{task}-*.parquet' l where y is distinct from (
                  select {label} from '{output}/results.parquet' r where r.driverId = l.driverId
                    and r.date > l.date and r.date <= l.date + to_days({days}))"""
            assert database.execute(wrong).fetchall() == [(0,)]


def test_the_cut_database_ends_where_it_should(repository: Path, tmp_path: Path, raw: Path) -> None:
    """No table with a time has a row from the cut on."""
    output = prepared(repository, tmp_path / "out", "--data", str(raw), "--until", "2010-01-01")
    with duckdb.connect() as database:
        newest = database.execute(f"select max(date) from '{output}/results.parquet'").fetchall()
    assert newest == [(datetime(1950, 5, 21),)]
