"""The example's tasks take the label files as they are, split by split, and know each label when its window ends."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from graph_transformer.finetune.question import question_of
from graph_transformer.finetune.task_file import load_task_file
from graph_transformer.splits import Splits
from nowgraph.loading import load_files
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import load_schema
from temporal_graph.time_rule import time_us_from_datetime

pytestmark = pytest.mark.skipif("NOWGRAPH_DATA" not in os.environ, reason="needs the real data")


@pytest.fixture(scope="module")
def folder(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("f1")
    script = repository / "examples" / "f1" / "prepare.py"
    subprocess.run([sys.executable, str(script), str(output)], check=True, timeout=100, capture_output=True)
    return output


@pytest.mark.parametrize(("name", "days"), [("driver_dnf", 30), ("driver_position", 60)])
def test_each_label_is_its_files(repository: Path, folder: Path, tmp_path: Path, name: str, days: int) -> None:
    """Every row of the three files is one question, since 1950; the test split is the test file, no more, no less."""
    example = repository / "examples" / "f1"
    schema, task = load_schema(example / "schema.yaml"), example / f"{name}.yaml"
    question = question_of(schema, task=task, labels=folder / "labels")
    with TemporalGraph.create(question.schema) as graph:
        load_files(graph, [folder / "drivers.parquet"], quiet=True, dead_letters=tmp_path / "letters")
        view = graph.view()
        found = question.label_table(view)
        assert found is not None
        labels, splits = found
        keys = view.keys("drivers", labels.row)
    assert labels.known_time_us.tolist() == (labels.anchor_time_us + days * 86_400_000_000).tolist()
    stem = folder / "labels" / name.replace("_", "-")
    with duckdb.connect() as database:
        rows = database.execute(f"select driverId, date, y from '{stem}-*.parquet'").fetchall()
        test = database.execute(f"select count(*), min(date), max(date) from '{stem}-test.parquet'").fetchall()[0]
    theirs = {(driver, time_us_from_datetime(date)): float(y) for driver, date, y in rows}
    mine = dict(zip(zip(keys, labels.anchor_time_us.tolist(), strict=True), labels.label.tolist(), strict=True))
    assert mine == pytest.approx(theirs)
    assert splits.test is not None
    times = labels.anchor_time_us
    assert int(((times >= splits.test.start_us) & (times < splits.test.end_us)).sum()) == test[0]
    assert (test[2] - test[1]) > timedelta(days=365)


@pytest.mark.parametrize("name", ["driver_dnf", "driver_position"])
def test_capped_is_the_same_question_of_a_frozen_database(repository: Path, name: str) -> None:
    """The rolling task's labels and its refit, if it has one, of a database that ended: only the freezing differs."""
    example = repository / "examples" / "f1"
    rolling, capped = (load_task_file(example / f"{task}.yaml") for task in (name, f"{name}_capped"))
    assert capped.label_files == rolling.label_files
    assert capped.splits is not None
    assert capped.splits.frozen_us == time_us_from_datetime(datetime(2010, 1, 1))
    assert replace(capped.splits, frozen_us=None) == (rolling.splits or Splits(train=capped.splits.train))
