"""Past labels as rows of the graph: the whole loop, at both sides of the time each is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from graph_transformer.errors import TaskError
from graph_transformer.finetune.query import bind_query, parse_query
from graph_transformer.finetune.query.label_table import LabelTable
from graph_transformer.finetune.query.labels import make_labels
from graph_transformer.finetune.query.task_table import (
    label_rows,
    read_labels,
    rows_of_keys,
    task_schema,
    task_table_schema,
    write_labels,
)
from graph_transformer.target import Kind, Target
from online_sampler.plan import SamplingPlan
from online_sampler.sampler import Sampler
from stream.file_rows import FileTable
from stream.file_source import FileSource
from temporal_graph.graph import TemporalGraph
from temporal_graph.reference import ReferenceEvent
from temporal_graph.schema import ColumnKind, Schema, dump_schema, parse_schema

Make = Callable[..., ReferenceEvent]
Wire = Callable[[Schema, ReferenceEvent], bytes]

SECOND_US = 1_000_000
T = 100 * SECOND_US
END = T + 2 * SECOND_US
TARGETS = {
    Kind.BINARY: "COUNT(orders.*, 0, 2, seconds) > 1",
    Kind.REGRESSION: "SUM(orders.price, 0, 2, seconds)",
    Kind.FORECAST: "SUM(orders.price, 0, 1, seconds) FORECAST 2 TIMEFRAMES",
    Kind.MULTICLASS: "LAST(orders.status, 0, 2, seconds)",
    Kind.MULTILABEL: "LIST_DISTINCT(orders.labels, 0, 2, seconds)",
}


def load(graph: TemporalGraph, path: Path) -> None:
    """Load a file as the loader of history does: through its source, as a backfill."""
    source = FileSource(graph.schema, [FileTable.of(graph.schema, path)])
    while not source.exhausted:
        batch = source.poll(1000, 0.1)
        assert batch.decoded is not None
        assert not batch.decoded.dead
        assert graph.apply(batch.decoded.events, backfill=True).rejected == ()
    source.close()


def shown(view: Any, cutoff_time_us: int) -> list[tuple[int, list[float]]]:
    """(anchor, cells) of the rows of the task table that user 1 sees at a cut-off, newest first."""
    edge = "users.user_id->task.user_id"
    sampler = Sampler(view, SamplingPlan.from_dict({"num_neighbors": [{"hop1": {"default": 0, edge: 9}}]}))
    found = sampler.sample_rows("users", view.row_index("users", np.array([1])), np.array([cutoff_time_us]))
    table = found.columns["task"]
    cells = np.concatenate([table.numerical, table.boolean, table.coded], axis=1)
    seen = zip(found.event_time_us[table.node].tolist(), cells.tolist(), strict=True)
    return sorted(((anchor, line) for anchor, line in seen), reverse=True)


@pytest.mark.parametrize("kind", TARGETS)
def test_a_sampler_sees_a_label_from_its_known_time(
    kind: Kind, shop: Schema, wire: Wire, user: Make, order: Make, tmp_path: Path
) -> None:
    """Schema with task table, history, labels, Parquet, the same graph: seen at its known time, not 1 µs before.

    A label that changes by a late report is seen as it stood when its window was over, and changed from the report on.
    """
    bound = bind_query(parse_query(f"PREDICT {TARGETS[kind]} FOR EACH users.user_id"), shop)
    assert bound.kind is kind
    schema = task_schema(shop, bound.target("task"))
    cells: dict[str, Any] = {"user": 1, "price": 2.0, "status": "a", "labels": ["x"]}
    late: dict[str, Any] = {"user": 1, "price": 3.0, "status": "b", "labels": ["y"]}
    events = [user(1), order(1, T + 1, **cells), order(2, T + 9, END + 50, **late)]
    with TemporalGraph.create(schema, arena_bytes=64 << 20) as graph:
        graph.apply([wire(schema, event) for event in events], backfill=True)
        view = graph.view()
        made = make_labels(view, bound, np.array([T]), task_name="task")
        assert (made.known_time_us.tolist(), len(made)) == ([END + 50], 1)
        path = tmp_path / "task.parquet"
        write_labels(made, path, view)
        read = read_labels(path, view)
        load(graph, path)
        view = graph.view()
        assert shown(view, END - 1) == []
        first, final = shown(view, END), shown(view, END + 50)
        assert shown(view, END + 49) == first
        assert [anchor for anchor, _ in first + final] == [T, T]
        assert first != final
    assert read.target == made.target
    for one, other in ((read, made), (read.first, made.first)):
        assert one is not None
        assert other is not None
        for name in ("row", "anchor_time_us", "known_time_us", "label"):
            assert getattr(one, name).tolist() == getattr(other, name).tolist(), name


def test_the_task_table_says_what_it_is(shop: Schema) -> None:
    """Key of entity and anchor, both clocks, the label as outcome, a link to the entity; its text reads back equal."""
    target = Target(Kind.FORECAST, "users", event_level=False, steps=3, task_table="spend")
    schema = task_table_schema(shop, "spend", target)
    table = schema.table("spend")
    assert [part.name for part in table.primary_key] == ["user_id", "anchor_time_us"]
    assert (table.time_column, table.known_time.column) == ("anchor_time", "known_time")
    assert [(column.name, column.outcome) for column in table.columns] == [
        ("label", True), ("label_2", False), ("label_3", False),
    ]  # fmt: skip
    assert {column.kind for column in table.columns} == {ColumnKind.NUMERICAL}
    assert table.links[0].forward == "spend.user_id->users.user_id"
    assert parse_schema(dump_schema(schema)) == schema
    assert schema.tables[:-1] == shop.tables


def test_what_cannot_be_a_task_table(shop: Schema) -> None:
    """A name that is taken, an entity without a key, lists of items."""
    users = Target(Kind.BINARY, "users", event_level=False)
    for name, target in (
        ("orders", users),
        ("t", replace(users, table="transfers")),
        ("t", replace(users, kind=Kind.RANKING)),
    ):
        with pytest.raises(TaskError):
            task_table_schema(shop, name, target)


def test_an_event_level_task_marks_its_column(shop: Schema) -> None:
    """The column predicted becomes the outcome, so that it is hidden where a row is asked; other tables stay."""
    target = Target(Kind.REGRESSION, "orders", event_level=True, column="price")
    schema = task_schema(shop, target)
    outcome = schema.table("orders").outcome
    assert outcome is not None
    assert outcome.name == "price"
    assert task_schema(shop, replace(target, column="fraud")) == shop


def test_keys_of_several_parts_and_clashing_names() -> None:
    """Each part has its column; a part that is named as a label's column gets the table's name before it."""
    schema = parse_schema("""
version: 1
name: s
tables:
  sites: {primary_key: {country: string, label: integer}}
  visits: {time_column: at, links: {sites: {table: sites, columns: [c, l]}}}
""")
    target = Target(Kind.BINARY, "sites", event_level=False, task_table="t")
    found = task_table_schema(schema, "t", target)
    assert [part.name for part in found.table("t").primary_key] == ["country", "sites_label", "anchor_time_us"]
    assert found.table("t").links[0].columns == ("country", "sites_label")

    class Sites:
        schema = found

        def keys(self, _: str, rows: np.ndarray) -> list[tuple[str, int]]:
            return [("de", 10 + int(row)) for row in rows]

        def row_index(self, _: str, keys: list[tuple[str, int]]) -> np.ndarray:
            return np.array([number - 10 for _, number in keys])

    labels = LabelTable(target, np.array([0, 1, 0]), np.array([5, 5, 6]), np.array([7, 7, 8]), np.array([0.0, 1, 1]))
    rows = label_rows(labels, Sites())  # type: ignore[arg-type]
    assert rows.column("sites_label").to_pylist() == [10, 11, 10]
    parts = [np.array(["de", "de"], dtype=object), np.array([11, 10])]
    assert rows_of_keys(Sites(), schema.table("sites"), parts).tolist() == [1, 0]  # type: ignore[arg-type]


def test_a_ranking_is_written_and_read(shop: Schema, wire: Wire, order: Make, tmp_path: Path) -> None:
    """As lists of keys, which are rows again when read."""
    query = "PREDICT LIST_DISTINCT(orders.item_id, 0, 2, seconds) RANK TOP 3 FOR EACH users.user_id"
    bound = bind_query(parse_query(query), shop)
    with TemporalGraph.create(shop, arena_bytes=64 << 20) as graph:
        events = [order(n, T + 1 + n, user=1, item=item) for n, item in enumerate("ab")]
        graph.apply([wire(shop, event) for event in events], backfill=True)
        made = make_labels(graph.view(), bound, np.array([T]))
        write_labels(made, tmp_path / "r.parquet", graph.view())
        read = read_labels(tmp_path / "r.parquet", graph.view())
    assert pq.read_table(tmp_path / "r.parquet").column("label").to_pylist() == [["a", "b"]]
    assert read.item is not None
    assert made.item is not None
    assert (read.item.tolist(), read.item_table, read.label.tolist()) == (made.item.tolist(), "items", [2.0])
    assert read.target == made.target


def test_other_files_are_refused(tmp_path: Path) -> None:
    """A Parquet file without the target is none of ours."""
    import pyarrow as pa

    pq.write_table(pa.table({"label": [1]}), tmp_path / "x.parquet")
    with pytest.raises(TaskError, match="a file of labels that nowgraph wrote"):
        read_labels(tmp_path / "x.parquet", None)  # type: ignore[arg-type]
