"""Erasure reaches what is on the disk: the arena's file, and snapshots that were made before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from protos.nowgraph.v1 import row_event_pb2 as pb
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import dump_schema, parse_schema
from temporal_graph.snapshot_erasure import erase_in_snapshots
from temporal_graph.snapshots import IMAGE, MANIFEST, Snapshot, Snapshots
from temporal_graph.view import Erased

Snap = Callable[[Snapshots, TemporalGraph], Snapshot]
ARENA_BYTES = 64 << 20
SCHEMA = parse_schema("""
version: 1
name: people
tables:
  people:
    primary_key: {email: string}
    columns: {name: text, city: categorical}
  orders:
    primary_key: {id: integer}
    time_column: at
    columns: {note: text}
    links: {person: {table: people, erase: true}, agent: people}
""")
HERS = [b"ada@example.org", b"Ada Lovelace", b"a note of Ada", b"Ada changed her mind"]
OTHERS = [b"bob@example.org", b"Bob", b"a note of Bob", b"London"]


def event(table: str, key: int | str, at: int | None = None, operation: str = "INSERT", **texts: str) -> bytes:
    """A row event whose cells are texts."""
    made = pb.RowEvent(table=table, operation=pb.Operation.Value(f"OPERATION_{operation}"))
    made.key.parts.add(integer=key) if isinstance(key, int) else made.key.parts.add(text=key)
    if at is not None:
        made.event_time_us = at
    for name, text in texts.items():
        made.cells.add(column=name, text=text)
    return made.SerializeToString()


PEOPLE = [
    event("people", "ada@example.org", name="Ada Lovelace", city="London"),
    event("people", "bob@example.org", name="Bob", city="London"),
    event("orders", 1, 10, note="a note of Ada", person="ada@example.org", agent="bob@example.org"),
    event("orders", 2, 20, note="a note of Bob", person="bob@example.org", agent="ada@example.org"),
    event("orders", 1, 30, "UPSERT", note="Ada changed her mind"),
]
ERASURE = event("people", "ada@example.org", 100, "ERASE")


def made_before(place: Path, snap: Snap) -> Snapshots:
    """Two snapshots of a graph that knows Ada."""
    snapshots = Snapshots(place)
    with TemporalGraph.create(SCHEMA, arena_bytes=ARENA_BYTES) as graph:
        for count in (3, 5):
            graph.apply(PEOPLE[:count], positions={("p", 0): count})
            snap(snapshots, graph)
    return snapshots


def held(place: Path) -> set[bytes]:
    """Which of all texts any file under a folder holds."""
    files = [path.read_bytes() for path in place.rglob("*") if path.is_file()]
    return {text for text in HERS + OTHERS if any(text in content for content in files)}


def test_the_arenas_file_holds_nothing_of_what_is_erased(tmp_path: Path) -> None:
    """Not one byte, while a view is attached; what went is counted; the order that Ada only handled stays."""
    with TemporalGraph.create(SCHEMA, arena=tmp_path, arena_bytes=ARENA_BYTES) as graph:
        graph.apply(PEOPLE)
        view = graph.view()
        assert held(tmp_path) == {*HERS, *OTHERS}
        before = view.erasures
        assert graph.apply([ERASURE]).applied == 1
        assert held(tmp_path) == set(OTHERS)
        assert view.erasures == before + 1
        assert view.overwrites_due == 0
        assert view.erased("people") == Erased(rows=1, versions=1, links=0, strings=1)
        assert view.erased("orders") == Erased(rows=1, versions=2, links=3, strings=2)
        orders = graph.dump()["orders"]
        assert [version[3] for version in orders["[2]"]["versions"]] == [
            {"note": "a note of Bob", "person": "bob@example.org"}
        ]
        assert "[1]" not in orders
        assert graph.apply(PEOPLE).erased == 3
        assert held(tmp_path) == set(OTHERS)


def test_columns_of_rows_are_asked_too() -> None:
    """The bulk path drops what is erased, and leaves the rest as it is without an erasure."""
    schema = parse_schema("""
version: 1
name: bulk
tables:
  people: {primary_key: {id: integer}}
  visits: {primary_key: {id: integer}, time_column: at, links: {person: {table: people, erase: true}}}
""")
    keys, times, people = np.arange(6), np.arange(6) * 10, np.array([1, 2, 1, 2, 1, 2])
    with TemporalGraph.create(schema, arena_bytes=ARENA_BYTES) as graph:
        graph.apply([event("people", 1, 25, "ERASE")])
        applied = graph.append("visits", keys, event_time_us=times, parents={"person": people})
        assert (applied.applied, applied.duplicate, applied.erased) == (4, 0, 2)
        applied = graph.append("visits", keys, event_time_us=times, parents={"person": people})
        assert (applied.applied, applied.duplicate, applied.erased) == (0, 4, 2)
        with TemporalGraph.create(schema, arena_bytes=ARENA_BYTES) as other:
            other.append("visits", keys, event_time_us=times, parents={"person": people})
            other.apply([event("people", 1, 25, "ERASE")])
            assert other.canonical_hash() == graph.canonical_hash()
            assert other.dump() == graph.dump()


def test_a_schema_that_grew_takes_erasures_over(tmp_path: Path, snap: Snap) -> None:
    """Tables move, and what was erased stays so: a late change is dropped, also of what was its own."""
    snapshots = Snapshots(tmp_path)
    with TemporalGraph.create(SCHEMA, arena_bytes=ARENA_BYTES) as graph:
        graph.apply([*PEOPLE, ERASURE, event("orders", 1, 200, "UPSERT", note="later")])
        snap(snapshots, graph)
    text = dump_schema(SCHEMA).replace("tables:", "tables:\n  cities: {primary_key: {name: string}}")
    grown = parse_schema(text)
    restored = snapshots.restore(grown, arena_bytes=ARENA_BYTES)
    assert restored is not None
    with restored.graph as graph, TemporalGraph.create(grown, arena_bytes=ARENA_BYTES) as clean:
        assert graph.migrated
        assert "[1]" in graph.dump()["orders"]
        again = event("people", "ada@example.org", 300, "ERASE")
        graph.apply([again])
        assert "[1]" not in graph.dump()["orders"]  # hers, as only changes said that are gone
        assert graph.apply(PEOPLE).erased == 3
        clean.apply([*PEOPLE, ERASURE, event("orders", 1, 200, "UPSERT", note="later"), again])
        assert graph.canonical_hash() == clean.canonical_hash()
        assert graph.dump() == clean.dump()


def test_snapshots_made_before_are_written_anew(tmp_path: Path, snap: Snap) -> None:
    """Each keeps its place and positions, holds what a replay holds, and nothing of what is erased; once is enough."""
    snapshots = made_before(tmp_path, snap)
    before, _ = snapshots.inventory()
    done = erase_in_snapshots(snapshots, SCHEMA, [ERASURE], arena_bytes=ARENA_BYTES)
    assert held(tmp_path) == set(OTHERS)
    after, refused = snapshots.inventory()
    assert list(done.rewritten) == after
    assert not refused
    assert [each.offsets for each in after] == [each.offsets for each in before] == [{("p", 0): 5}, {("p", 0): 3}]
    assert [each.erasures for each in after] == [1, 1]
    for each in after:
        snapshots.verify(each)
    restored = snapshots.restore(SCHEMA, arena_bytes=ARENA_BYTES)
    assert restored is not None
    with restored.graph as graph, TemporalGraph.create(SCHEMA, arena_bytes=ARENA_BYTES) as clean:
        clean.apply([ERASURE, *PEOPLE])
        assert graph.canonical_hash() == clean.canonical_hash()
        assert graph.apply(PEOPLE).erased == 3
    again = erase_in_snapshots(snapshots, SCHEMA, [ERASURE], arena_bytes=ARENA_BYTES)
    assert list(again.clean) == after
    assert not again.rewritten


def test_a_rewrite_that_was_cut_off_is_done_again(tmp_path: Path, snap: Snap) -> None:
    """The process died when the new snapshot stood and the old one was still there."""
    snapshots = made_before(tmp_path, snap)
    olds = {folder.name: {file.name: file.read_bytes() for file in folder.iterdir()} for folder in tmp_path.iterdir()}
    erase_in_snapshots(snapshots, SCHEMA, [ERASURE], arena_bytes=ARENA_BYTES)
    for name, files in olds.items():
        (tmp_path / name).mkdir()
        for file, content in files.items():
            (tmp_path / name / file).write_bytes(content)
    assert held(tmp_path) == {*HERS, *OTHERS}
    erase_in_snapshots(snapshots, SCHEMA, [ERASURE], arena_bytes=ARENA_BYTES)
    assert held(tmp_path) == set(OTHERS)
    assert len(snapshots.inventory()[0]) == 2


def test_a_snapshot_that_cannot_be_read_is_named(tmp_path: Path, snap: Snap) -> None:
    """Nobody may believe that it is clean; the others are done."""
    snapshots = made_before(tmp_path, snap)
    newest, oldest = snapshots.inventory()[0]
    with (tmp_path / newest.name / IMAGE).open("r+b") as file:
        file.seek(70_000)
        file.write(b"damage")
    done = erase_in_snapshots(snapshots, SCHEMA, [ERASURE], arena_bytes=ARENA_BYTES)
    assert [each.name for each in done.refused] == [newest.name]
    assert [each.offsets for each in done.rewritten] == [oldest.offsets]


def test_an_erasure_that_fits_no_table_changes_nothing(tmp_path: Path, snap: Snap) -> None:
    """It is refused with its reason."""
    snapshots = made_before(tmp_path, snap)
    with pytest.raises(ValueError, match="unknown_table"):
        erase_in_snapshots(snapshots, SCHEMA, [event("nobody", 1, 5, "ERASE")], arena_bytes=ARENA_BYTES)
    assert held(tmp_path) == {*HERS, *OTHERS}


def test_a_new_snapshot_removes_those_that_hold_what_it_has_erased(tmp_path: Path, snap: Snap) -> None:
    """Unless it is damaged itself; one that holds the erasure, too, stays."""
    snapshots = made_before(tmp_path, snap)
    restored = snapshots.restore(SCHEMA, arena_bytes=ARENA_BYTES)
    assert restored is not None
    with restored.graph as graph:
        assert snapshots.keep(4) == []
        graph.apply([ERASURE])
        third = snap(snapshots, graph)
        image = tmp_path / third.name / IMAGE
        whole = image.read_bytes()
        image.write_bytes(whole[:-1])
        with pytest.raises(Exception, match="cut off"):
            snapshots.keep(4)
        assert held(tmp_path) == {*HERS, *OTHERS}
        image.write_bytes(whole)
        assert len(snapshots.keep(4)) == 2
        assert held(tmp_path) == set(OTHERS)
        graph.apply([event("people", "cleo@example.org")])
        fourth = snap(snapshots, graph)
        assert snapshots.keep(4) == []
        assert snapshots.inventory()[0] == [fourth, third]
        assert {path.name for path in (tmp_path / fourth.name).iterdir()} == {IMAGE, MANIFEST}
