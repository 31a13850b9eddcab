"""The example's preparation parts what was scheduled from what became of it, and its schema takes every row."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pytest

from graph_transformer.finetune.query.labels import make_labels
from graph_transformer.finetune.question import question_of
from nowgraph.loading import load_files
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import draft_schema, load_schema
from temporal_graph.time_rule import time_us_from_datetime

FLIGHTS = """\
year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,flight,tailnum,origin,dest,air_time,distance,hour,minute,time_hour
2013,7,1,700,600,60,900,800,60,UA,1,N1,EWR,IAH,200,1400,6,0,2013-07-01T10:00:00Z
2013,7,1,610,615,-5,800,815,-15,AA,2,N2,JFK,BQN,180,1500,6,15,2013-07-01T10:00:00Z
2013,7,2,NA,700,NA,NA,900,NA,AA,2,NA,LGA,IAH,NA,1400,7,0,2013-07-02T11:00:00Z
2013,8,1,700,700,0,900,900,0,UA,1,N1,EWR,IAH,200,1400,7,0,2013-08-01T11:00:00Z
"""
RAW = {
    "airlines": "carrier,name\nUA,United\nAA,American\n",
    "airports": "faa,name,lat,lon,alt,tz,dst,tzone\n"
    + "".join(f"{code},{code},40.1,-70.2,9,-5,A,America/New_York\n" for code in ("EWR", "JFK", "LGA", "IAH")),
    "planes": "tailnum,year,type,manufacturer,model,engines,seats,speed,engine\n"
    "N1,NA,Fixed,BOEING,737,2,150,NA,Turbo\n",
    "weather": "origin,year,month,day,hour,temp,dewp,humid,wind_dir,wind_speed,wind_gust,precip,pressure,visib,"
    "time_hour\n"
    "EWR,2013,7,1,6,75.2,71.6,88.5,NA,6.9,NA,0,NA,9,2013-07-01T10:00:00Z\n",
}


@pytest.fixture(scope="module")
def folder(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the preparation makes of July, from tables as the package has them."""
    raw, out = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("flights")
    for name, text in RAW.items():
        (raw / f"{name}.csv").write_text(text)
    with zipfile.ZipFile(raw / "flights.csv.zip", "w") as packed:
        packed.writestr("flights.csv", FLIGHTS)
    script = repository / "examples" / "flights" / "prepare.py"
    options = ["--data", str(raw), "--since", "2013-07-01", "--until", "2013-08-01"]
    subprocess.run([sys.executable, str(script), str(out), *options], check=True, timeout=120, capture_output=True)
    return out


def test_what_became_of_a_flight_is_news_of_its_landing(folder: Path) -> None:
    """Flights hold what was known before departure; an arrival comes when it landed; one that never flew has none."""
    with duckdb.connect() as database:
        flights = database.sql(f"select * from '{folder}/flights.csv'")
        assert not {"dep_delay", "arr_delay", "departure_delay", "arrival_delay", "air_time"} & set(flights.columns)
        assert len(flights.fetchall()) == 3, "August is left out"
        arrivals = dict(database.sql(f"select flight_id, arrived from '{folder}/arrivals.csv'").fetchall())
    scheduled = datetime(2013, 7, 1, 10)
    assert sorted(arrivals.values()) == [
        scheduled + timedelta(minutes=15 - 5 + 180 + 25),
        scheduled + timedelta(minutes=60 + 200 + 25),
    ]


def test_every_row_loads_and_answers_are_known_late(repository: Path, folder: Path, tmp_path: Path) -> None:
    """The schema takes the CSV files whole; a flight's label is that of its delay, from its landing on."""
    example = repository / "examples" / "flights"
    question = question_of(load_schema(example / "schema.yaml"), task=example / "late.yaml")
    with TemporalGraph.create(question.schema) as graph:
        loaded = load_files(graph, sorted(folder.glob("*.csv")), quiet=True, dead_letters=tmp_path / "letters")
        assert (loaded.dead_letters, loaded.rows) == (0, 13)
        view = graph.view()
        assert question.bound is not None
        labels = make_labels(view, question.bound, np.empty(0, np.int64), task_name="late")
    known_us = time_us_from_datetime(datetime(2013, 7, 1, 10, tzinfo=UTC) + timedelta(minutes=60 + 200 + 25))
    assert labels.label.tolist() == [1.0, 0.0]
    assert int(labels.known_time_us[0]) == known_us


def test_the_draft_finds_all_but_what_a_person_knows(repository: Path, folder: Path) -> None:
    """Links by name and by value, times and keys are those of the example; the arrivals are asked about."""
    schema, text = draft_schema(sorted(folder.glob("*.csv")))
    mine = load_schema(repository / "examples" / "flights" / "schema.yaml")
    for table in mine.tables:
        assert schema.table(table.name).time_column == table.time_column
        if table.name != "weather":  # of one row, any column is unique
            assert schema.table(table.name).primary_key == table.primary_key
    found = {(link.name, link.parent) for link in schema.table("flights").links}
    assert {("carrier", "airlines")} <= found
    assert "topic: arrivals, table: flights" in " ".join(text.replace("  #", "").split())
