"""The simulated database loads whole, is the same for the same seed, and hides what is known later."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from nowgraph.loading import load_files
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import load_schema


def simulated(repository: Path, output: Path, seed: int = 7) -> Path:
    script = repository / "examples" / "helpdesk" / "prepare.py"
    options = ["--seed", str(seed), "--accounts", "40"]
    subprocess.run([sys.executable, str(script), str(output), *options], check=True, timeout=120, capture_output=True)
    return output


@pytest.fixture(scope="module")
def folder(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulated(repository, tmp_path_factory.mktemp("helpdesk"))


def value(query: str) -> Any:
    with duckdb.connect() as database:
        return database.execute(query).fetchall()[0][0]


def test_every_row_loads(repository: Path, folder: Path, tmp_path: Path) -> None:
    """All rows fit the schema: composite and text keys, nulls, lists, times, and outcomes as later versions."""
    schema = load_schema(repository / "examples" / "helpdesk" / "schema.yaml")
    with TemporalGraph.create(schema) as graph:
        loaded = load_files(graph, sorted(folder.glob("*.parquet")), quiet=True, dead_letters=tmp_path / "letters")
    assert (loaded.dead_letters, loaded.duplicate, loaded.applied) == (0, 0, loaded.rows)
    assert loaded.rows > 3_000


def test_a_seed_makes_one_database(repository: Path, folder: Path, tmp_path: Path) -> None:
    """The same seed gives the same rows, another seed others."""
    again, other = simulated(repository, tmp_path / "again"), simulated(repository, tmp_path / "other", seed=8)
    tickets = pq.read_table(folder / "tickets.parquet")
    assert pq.read_table(again / "tickets.parquet").equals(tickets)
    assert not pq.read_table(other / "tickets.parquet").equals(tickets)


def test_the_outcome_is_not_in_the_row_that_is_asked(folder: Path) -> None:
    """A ticket's row has what is known when it is opened; outcome and effort come in another file, later."""
    assert not {"escalated", "minutes_spent", "probability"} & set(pq.read_schema(folder / "tickets.parquet").names)
    joined = f"'{folder}/closed_tickets.parquet' join '{folder}/tickets.parquet' using (ticket_id)"
    assert value(f"select min(closed - opened) from {joined}") > timedelta(0)
    assert value(f"select max(closed - opened) from {joined}") <= timedelta(days=12, seconds=1)
    assert value(f"select count(*) from {joined} where escalated is null") == 0


def test_one_component_is_new_after_training(folder: Path) -> None:
    """The last component has neither release nor ticket before its launch, and some after it."""
    first = f"select min(opened)::date::varchar from '{folder}/tickets.parquet' where component = 'backup'"
    assert value(first) >= "2024-03-16"
