"""Labels given as files: keys, times, kinds and splits."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from graph_transformer.errors import TaskError
from graph_transformer.finetune.query.files import SplitLabels, kind_of, read_label_files
from graph_transformer.splits import Interval
from graph_transformer.target import Kind
from temporal_graph.graph import TemporalGraph
from temporal_graph.reference import ReferenceEvent
from temporal_graph.time_rule import time_us_from_datetime

Make = Callable[..., ReferenceEvent]
Grown = Callable[..., TemporalGraph]
DAY_US = 86_400_000_000


def at(text: str) -> int:
    """Microseconds of a date and time in UTC."""
    return time_us_from_datetime(datetime.fromisoformat(text).replace(tzinfo=UTC))


@pytest.fixture
def graph(grown: Grown, user: Make) -> Iterator[TemporalGraph]:
    """Users 1 and 2."""
    with grown([user(1), user(2)]) as found:
        yield found


def written(path: Path, rows: list[tuple[str, int, Any]]) -> Path:
    """A file with the columns moment, who and y."""
    values = ", ".join(f"({moment}, {who}, {label})" for moment, who, label in rows)
    with duckdb.connect() as database:
        select = f"select * from (values {values}) as t(moment, who, y)"
        if path.suffix == ".jsonl":
            database.execute(f"copy ({select}) to '{path}' (format json)")
        else:
            database.execute(f"copy ({select}) to '{path}'")
    return path


def read(graph: TemporalGraph, files: dict[str, Path], **options: Any) -> SplitLabels:
    """The labels of these files, known a day later."""
    names = {"key": ["who"], "time": "moment", "value": "y", "task_name": "task", "table": "users"} | options
    return read_label_files(files, source=graph.view(), window_us=DAY_US, **names)


TRAIN = [("timestamp '2024-01-02'", 2, 1.5), ("timestamp '2024-01-01'", 1, 0.5), ("timestamp '2024-01-01'", 7, 9.0)]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_rows_of_every_form(graph: TemporalGraph, tmp_path: Path, suffix: str) -> None:
    """By time and row; known when their window is over; an entity the graph lacks is counted, and left out."""
    test = [("timestamp '2024-02-01 12:30:00.000001'", 1, 2.5)]
    files = {"train": written(tmp_path / f"a{suffix}", TRAIN), "test": written(tmp_path / f"b{suffix}", test)}
    found = read(graph, files)
    assert found.unknown == 1
    assert graph.view().keys("users", found.labels.row) == [1, 2, 1]
    assert found.labels.anchor_time_us.tolist() == [
        at("2024-01-01"),
        at("2024-01-02"),
        at("2024-02-01T12:30:00.000001"),
    ]
    assert (found.labels.known_time_us - found.labels.anchor_time_us == DAY_US).all()
    assert found.labels.label.tolist() == [0.5, 1.5, 2.5]
    target = found.labels.target
    assert (target.kind, target.horizon_us, target.task_table) == (Kind.REGRESSION, DAY_US, "task")
    assert found.splits.train == Interval(at("2024-01-01"), at("2024-01-02") + 1)
    assert found.splits.test == Interval(at("2024-02-01T12:30:00.000001"), at("2024-02-01T12:30:00.000002"))


def test_dates_and_times_with_zones(graph: TemporalGraph, tmp_path: Path) -> None:
    """A date is its midnight in UTC; a time with a zone is that moment."""
    for name, moment, expected in (
        ("date", "date '2024-01-01'", at("2024-01-01")),
        ("zone", "timestamptz '2024-01-01 02:00:00+02'", at("2024-01-01")),
    ):
        found = read(graph, {"train": written(tmp_path / f"{name}.parquet", [(moment, 1, 1)])})
        assert found.labels.anchor_time_us.tolist() == [expected]


def test_kinds_follow_from_the_values(graph: TemporalGraph, tmp_path: Path) -> None:
    """0 and 1 are two classes, texts are classes, other numbers numbers; unless the kind is given."""
    values = {"a": ("true", "false"), "b": ("'red'", "'blue'"), "c": ("0", "1")}
    moments = ("timestamp '2024-01-01'", "timestamp '2024-01-02'")
    paths = {
        name: written(tmp_path / f"{name}.parquet", [(at_, 1, y) for at_, y in zip(moments, ys, strict=True)])
        for name, ys in values.items()
    }
    assert read(graph, {"train": paths["a"]}).labels.label.tolist() == [1.0, 0.0]
    colors = read(graph, {"train": paths["b"]}).labels
    assert (colors.target.classes, colors.label.tolist()) == (("blue", "red"), [1.0, 0.0])
    assert read(graph, {"train": paths["c"]}).labels.target.kind is Kind.BINARY
    assert read(graph, {"train": paths["c"]}, kind=Kind.REGRESSION).labels.target.kind is Kind.REGRESSION
    assert kind_of(np.array([0.0, 0.5])) is Kind.REGRESSION


def test_rows_without_a_value_are_left_out(graph: TemporalGraph, tmp_path: Path) -> None:
    """A null key, time or label is no label."""
    rows = [("timestamp '2024-01-01'", 1, 1), ("timestamp '2024-01-02'", 2, "null"), ("null", 2, 1)]
    assert len(read(graph, {"train": written(tmp_path / "a.parquet", rows)}).labels) == 1


def test_what_is_wrong_is_named(graph: TemporalGraph, tmp_path: Path) -> None:
    """A column with its nearest name, splits that overlap, values that do not fit, files that are none."""
    train = written(tmp_path / "a.parquet", TRAIN)
    binary = written(tmp_path / "b.parquet", [("timestamp '2024-03-01'", 1, 1)])
    (tmp_path / "c.parquet").write_text("no")
    for files, options, expected in (
        ({"train": train}, {"value": "yy"}, "did you mean y"),
        ({"train": train, "validation": train}, {}, "overlap"),
        ({"train": train}, {"kind": Kind.BINARY}, "0 and 1"),
        ({"train": train}, {"kind": Kind.RANKING}, "labels.kind"),
        ({"train": train}, {"key": ["who", "moment"]}, "a column for each part of the key"),
        ({"test": train}, {}, "labels.files.train"),
        ({"train": train, "tset": binary}, {}, "one of train"),
        ({"train": tmp_path / "c.parquet"}, {}, "a file of labels"),
        ({"train": tmp_path / "c.xls"}, {}, "no such|No such"),
    ):
        with pytest.raises((TaskError, OSError), match=expected):
            read(graph, files, **options)


@pytest.mark.skipif(
    not (Path(os.environ.get("NOWGRAPH_DATA", ".")) / "f1" / "tasks").is_dir(), reason="needs NOWGRAPH_DATA's f1"
)
@pytest.mark.parametrize(
    ("task", "days", "query"),
    [
        (
            "driver-dnf",
            30,
            """
            PREDICT COUNT(results.* WHERE results.statusId != '1', 0, 30) > 0 FOR EACH drivers.driverId
            ASSUMING COUNT(results.*, 0, 30) > 0
            """,
        ),
        ("driver-position", 60, "PREDICT AVG(results.positionOrder, 0, 60) FOR EACH drivers.driverId"),
    ],
)
def test_queries_make_the_published_labels(task: str, days: int, query: str, repository: Path, tmp_path: Path) -> None:
    """Of a public benchmark with labels in files, a query gives every label: the same entities, times and values."""
    from graph_transformer.finetune.query import bind_query, parse_query
    from graph_transformer.finetune.query.labels import make_labels
    from stream.file_rows import FileTable
    from stream.file_source import FileSource
    from temporal_graph.schema import load_schema

    folder = Path(os.environ["NOWGRAPH_DATA"]) / "f1"
    schema = load_schema(repository / "examples" / "f1" / "schema.yaml")
    with duckdb.connect() as database:
        database.execute(f"copy (from '{folder / 'drivers.parquet'}') to '{tmp_path / 'drivers.parquet'}'")
        columns = "resultId, driverId, raceId, constructorId, date, statusId, positionOrder"
        results = f"select {columns} from '{folder / 'results.parquet'}'"
        database.execute(f"copy ({results} order by date) to '{tmp_path / 'results.parquet'}'")
    with TemporalGraph.create(schema) as graph:
        tables = [FileTable.of(schema, tmp_path / f"{name}.parquet") for name in ("drivers", "results")]
        source = FileSource(schema, tables)
        while not source.exhausted:
            batch = source.poll(50_000, 0.1)
            assert batch.decoded is not None
            graph.apply(batch.decoded.events, backfill=True)
        view = graph.view()
        parts = {"train": "train", "validation": "val", "test": "test"}
        given = read_label_files(
            {name: folder / "tasks" / f"{task}-{part}.parquet" for name, part in parts.items()},
            source=view,
            table="drivers",
            task_name="t",
            key=["driverId"],
            time="date",
            value="y",
            window_us=days * DAY_US,
        )
        bound = bind_query(parse_query(query), schema)
        made = make_labels(view, bound, given.labels.anchor_time_us)
    assert given.unknown == 0
    assert made.target.kind is given.labels.target.kind
    assert made.row.tolist() == given.labels.row.tolist()
    assert made.anchor_time_us.tolist() == given.labels.anchor_time_us.tolist()
    np.testing.assert_allclose(made.label, given.labels.label, rtol=1e-12)
