"""The read face: keys, codes, outcomes and the state that was published."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from protos.nowgraph.v1 import row_event_pb2 as pb
from temporal_graph.errors import ArenaError, SchemaMismatchError
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import Schema, parse_schema
from temporal_graph.time_rule import ALWAYS_US
from temporal_graph.view import GraphView

Build = Callable[..., bytes]


def test_keys_and_rows_map_both_ways(schema: Schema, payment: Build) -> None:
    """Known keys give their row and back, unknown ones -1 and None, by list and by array."""
    with TemporalGraph.create(schema) as graph:
        graph.apply([payment(7, 1), payment(-3, 2)])
        view = graph.view()
        assert view.row_index("payments", [7, -3, 8]).tolist() == [0, 1, -1]
        assert view.row_index("payments", np.array([-3, 9])).tolist() == [1, -1]
        assert view.keys("payments", np.array([1, 0, -1])) == [-3, 7, None]
        with pytest.raises(IndexError):
            view.keys("payments", np.array([2]))


def test_composite_and_text_keys_are_found() -> None:
    """Parts are compared by type and value: a text is never an integer, a prefix never the whole."""
    schema = parse_schema("{version: 1, name: n, tables: {o: {primary_key: {region: string, number: integer}}}}")
    event = pb.RowEvent(table="o", operation=pb.OPERATION_INSERT)
    event.key.parts.add(text="é")
    event.key.parts.add(integer=4)
    with TemporalGraph.create(schema) as graph:
        assert graph.apply([event.SerializeToString()]).applied == 1
        view = graph.view()
        assert view.row_index("o", [("é", 4), ("é", 5), ("é",), ("e", 4)]).tolist() == [0, -1, -1, -1]
        assert view.keys("o", np.array([0])) == [("é", 4)]


def test_codes_have_strings(schema: Schema) -> None:
    """Codes count from 1 in order of arrival; 0 and -1 are no string."""
    with TemporalGraph.create(schema) as graph:
        for key, segment in enumerate(["gold", "", "gold"]):
            event = pb.RowEvent(table="customers", operation=pb.OPERATION_INSERT)
            event.key.parts.add(integer=key)
            event.cells.add(column="segment", text=segment)
            graph.apply([event.SerializeToString()])
        view = graph.view()
        assert view.dictionary_size("customers", "segment") == 3
        codes = np.array([1, 2, 0, -1], np.int32)
        assert view.strings("customers", "segment", codes) == ["gold", "", None, None]


def test_outcomes_carry_when_they_were_known(schema: Schema, payment: Build) -> None:
    """Each change of the outcome is listed with the row's own event time and the change's visible time."""
    with TemporalGraph.create(schema) as graph:
        graph.apply([payment(1, 100, amount=1.0), payment(2, 110, fraud=False)], backfill=True)
        graph.apply([payment(1, 900, known_time_us=900, fraud=True, operation="UPSERT")])
        outcomes = graph.view().outcomes("payments", "fraud")
        assert outcomes.row.tolist() == [0, 1]
        assert outcomes.event_time_us.tolist() == [100, 110]
        assert outcomes.value.tolist() == [1.0, 0.0]
        assert outcomes.visible_time_us.tolist() == [900, 110]


def test_watermark_is_the_newest_event_time(schema: Schema, payment: Build) -> None:
    """It never goes back, and is ALWAYS_US before there is any."""
    with TemporalGraph.create(schema) as graph:
        view = graph.view()
        assert view.watermark_us == ALWAYS_US
        graph.apply([payment(1, 100), payment(2, 50)], backfill=True)
        assert view.watermark_us == 100


def test_attach_refuses_what_is_not_there_or_not_ours(schema: Schema, payment: Build, tmp_path: Path) -> None:
    """No folder, no published generation and another schema each have their own error; the right one reads the rows."""
    with pytest.raises(ArenaError, match="no writer"):
        GraphView.attach(schema, tmp_path / "nothing")
    with TemporalGraph.create(schema, arena=tmp_path, arena_bytes=64 << 20, publish=False) as graph:
        with pytest.raises(ArenaError, match="caught up"):
            GraphView.attach(schema, tmp_path)
        graph.apply([payment(1, 1)])
        graph.publish_generation()
        assert GraphView.attach(schema, tmp_path).row_count("payments") == 1
        other = parse_schema("{version: 1, name: n, tables: {a: {primary_key: {id: integer}}}}")
        with pytest.raises(SchemaMismatchError):
            GraphView.attach(other, tmp_path)


def test_a_view_outlives_the_graph_s_close(schema: Schema, payment: Build) -> None:
    """Memory goes with the last view of it."""
    graph = TemporalGraph.create(schema)
    graph.apply([payment(1, 1)])
    view = graph.view()
    graph.close()
    assert view.row_count("payments") == 1


def test_views_see_up_to_when_the_graph_is_complete(schema: Schema, tmp_path: Path) -> None:
    """Unknown at first, then what the writer says, in this process and over the folder, each generation its own."""
    with TemporalGraph.create(schema) as graph:
        view = graph.view().twin()
        assert view.complete_time_us is None
        graph.set_complete_time(17)
        assert view.complete_time_us == 17
    with TemporalGraph.create(schema, arena=tmp_path, arena_bytes=64 << 20) as graph:
        view = GraphView.attach(schema, tmp_path)
        assert view.complete_time_us is None
        graph.set_complete_time(18)
        assert (view.complete_time_us, view.twin().complete_time_us) == (18, 18)
    with TemporalGraph.create(schema, arena=tmp_path, arena_bytes=64 << 20):
        assert view.complete_time_us == 18  # what the old generation's readers still read
        assert GraphView.attach(schema, tmp_path).complete_time_us is None
        assert [path.name for path in tmp_path.glob("*.complete")] == ["gen-2.complete"]
        (tmp_path / "gen-2.complete").unlink()
        assert GraphView.attach(schema, tmp_path).complete_time_us is None  # a writer that says nothing


def test_a_change_that_comes_late_is_told_with_what_follows_it(schema: Schema, payment: Build) -> None:
    """Behind a newer version of its row it may say something of it too; other rows are not told."""
    with TemporalGraph.create(schema) as graph:
        view = graph.view()
        graph.apply([payment(key, 10 * key) for key in (1, 2, 3)], backfill=True)
        graph.apply([payment(2, 90, amount=5.0, operation="UPSERT")], backfill=True)
        mark = view.rows_changed("payments").mark

        graph.apply([payment(2, 50, fraud=True, operation="UPSERT")], backfill=True)
        graph.apply([payment(4, 60)], backfill=True)
        told = view.rows_changed("payments", mark)

        assert (told.row.tolist(), told.visible_time_us.tolist()) == ([1, 1], [50, 90])
        graph.apply([payment(2, 50, fraud=True, operation="UPSERT")], backfill=True)  # once more
        assert len(view.rows_changed("payments", told.mark)) == 0


def test_what_an_erasure_leaves_of_a_row_is_told(schema: Schema, payment: Build) -> None:
    """It may show less than before from each of its times on; of a row that is gone nothing is told."""
    with TemporalGraph.create(schema) as graph:
        view = graph.view()
        graph.apply([payment(1, 10, amount=1.0), payment(2, 20), payment(3, 30)], backfill=True)
        graph.apply([payment(1, 70, fraud=True, operation="UPSERT")], backfill=True)
        mark = view.rows_changed("payments").mark
        graph.apply([payment(1, 50, operation="ERASE"), payment(2, 50, operation="ERASE")], backfill=True)
        told = view.rows_changed("payments", mark)
        assert (told.row.tolist(), told.visible_time_us.tolist()) == ([0], [70])
        assert len(view.rows_changed("payments", told.mark)) == 0


def test_every_change_is_told_while_others_are_made(schema: Schema, payment: Build) -> None:
    """A reader that looks again and again beside the writer misses none, in order or late, and hears of none twice."""
    rows, batches = 50, 200
    with TemporalGraph.create(schema) as graph:
        view = graph.view()
        graph.apply([payment(key, 0) for key in range(rows)], backfill=True)
        told: list[tuple[int, int]] = []
        done = threading.Event()

        def read() -> None:
            mark = None
            while True:
                last = done.is_set()
                found = view.rows_changed("payments", mark)
                mark = found.mark
                # The first of a row is new; those that follow it may have been told before.
                first = np.append(True, found.row[1:] != found.row[:-1])[: len(found)]
                told.extend(zip(found.row[first].tolist(), found.visible_time_us[first].tolist(), strict=True))
                if last:
                    return

        reader = threading.Thread(target=read)
        reader.start()
        made = []
        for batch in range(1, batches):
            time_us = 1000 - batch if batch % 16 == 0 else 1000 + batch
            key = batch % rows
            graph.apply([payment(key, time_us, amount=float(batch), operation="UPSERT")], backfill=True)
            made.append((key, time_us))
        done.set()
        reader.join()
    assert len(told) == len(set(told))
    assert {row for row, _ in told} == {row for row, _ in made}
    assert {row: min(t for r, t in told if r == row) for row, _ in made} == {
        row: min(t for r, t in made if r == row) for row, _ in made
    }
