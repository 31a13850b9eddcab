"""Snapshots: whole or not there, the newest good one first, and a graph that goes on as if it had never stopped."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from temporal_graph.errors import ArenaError
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import Schema, parse_schema
from temporal_graph.snapshots import IMAGE, MAKING, MANIFEST, Snapshot, SnapshotError, Snapshots
from temporal_graph.view import GraphView

Build = Callable[..., bytes]
Snap = Callable[[Snapshots, TemporalGraph], Snapshot]
ARENA_BYTES = 64 << 20


def filled(schema: Schema, payment: Build, count: int) -> TemporalGraph:
    """A graph of so many payments."""
    graph = TemporalGraph.create(schema, arena_bytes=ARENA_BYTES)
    apply(graph, payment, 0, count)
    return graph


def apply(graph: TemporalGraph, payment: Build, first: int, end: int) -> None:
    """The payments of a part of the log, and what became known of some of them."""
    events = [payment(number, number, customer=number % 7, amount=float(number)) for number in range(first, end)]
    events += [payment(number, end, fraud=number % 2 == 0, operation="UPSERT") for number in range(first, end, 5)]
    graph.apply(events, backfill=True, positions={("p", 0): end})


@pytest.fixture(params=["local", "remote"])
def snapshots(request: pytest.FixtureRequest, tmp_path: Path) -> Snapshots:
    """A folder, and an object store."""
    if request.param == "local":
        return Snapshots(tmp_path / "snapshots")
    return Snapshots(f"memory://{tmp_path.name}", cache=tmp_path)


def test_a_restored_graph_goes_on_as_the_one_it_is_of(
    schema: Schema, payment: Build, snapshots: Snapshots, snap: Snap
) -> None:
    """Equal by hash and position then, and after both apply the rest of the log; in an arena of another size, too."""
    with filled(schema, payment, 500) as graph:
        snapshot = snap(snapshots, graph)
        then = graph.canonical_hash()
        restored = snapshots.restore(schema, arena_bytes=2 * ARENA_BYTES)
        assert restored is not None
        assert restored.snapshot == snapshot
        assert snapshot.offsets == {("p", 0): 500}
        with restored.graph as other:
            assert other.canonical_hash() == then
            assert other.positions == graph.positions
            assert other.view().position().sequence == graph.view().position().sequence
            for each in (graph, other):
                apply(each, payment, 500, 900)
            assert other.canonical_hash() == graph.canonical_hash() != then
            assert other.memory().tables == graph.memory().tables


def test_a_snapshot_says_which_topics_its_offsets_are_of(
    schema: Schema, payment: Build, tmp_path: Path, snap: Snap
) -> None:
    """A graph that is made of it knows them; a manifest that is older than such ids knows none."""
    snapshots = Snapshots(tmp_path)
    with filled(schema, payment, 10) as graph:
        graph.topic_ids["p"] = "an id"
        made = snap(snapshots, graph)
    restored = snapshots.restore(schema, arena_bytes=ARENA_BYTES)
    assert restored is not None
    with restored.graph as graph:
        assert graph.topic_ids == restored.snapshot.topic_ids == {"p": "an id"}
    manifest = tmp_path / made.name / MANIFEST
    written = json.loads(manifest.read_text())
    del written["topic_ids"]
    manifest.write_text(json.dumps(written))
    restored = snapshots.restore(schema, arena_bytes=ARENA_BYTES)
    assert restored is not None
    with restored.graph as graph:
        assert graph.topic_ids == {}


def test_an_image_is_of_the_moment_it_was_settled(schema: Schema, payment: Build, snapshots: Snapshots) -> None:
    """What is applied while it is copied is in it, what comes after it settled is not."""
    with filled(schema, payment, 4_000) as graph:
        folder = snapshots.making()
        image = graph.image(folder / IMAGE)
        copying = threading.Thread(target=lambda: image.copy(bytes_per_s=100 << 20))
        copying.start()
        for first in range(4_000, 8_000, 200):
            apply(graph, payment, first, first + 200)
        copying.join()
        settled, then = image.settle(), graph.canonical_hash()
        apply(graph, payment, 8_000, 8_200)
        snapshots.add(folder, settled, size=image.finish(), fingerprint="")
        assert settled.position.offsets == {("p", 0): 8_000}
        assert settled.pages > 0
    restored = snapshots.restore(schema, arena_bytes=ARENA_BYTES)
    assert restored is not None
    with restored.graph as other:
        assert other.canonical_hash() == then


def test_a_damaged_snapshot_is_refused_and_the_one_before_serves(
    schema: Schema, payment: Build, tmp_path: Path, snap: Snap
) -> None:
    """Whatever is damaged: the image, its end, its manifest; with the reason; without a good one there is none."""
    snapshots = Snapshots(tmp_path / "snapshots")
    with filled(schema, payment, 100) as graph:
        good = snap(snapshots, graph)
        apply(graph, payment, 100, 200)
        bad = [snap(snapshots, graph) for _ in range(4)]
    folders = [tmp_path / "snapshots" / each.name for each in bad]
    with (folders[0] / IMAGE).open("r+b") as file:
        file.seek(100_000)
        file.write(b"damage")
    with (folders[1] / IMAGE).open("r+b") as file:
        file.truncate(70_000)
    (folders[2] / IMAGE).unlink()
    (folders[3] / MANIFEST).write_text("{")
    with pytest.raises(SnapshotError, match="damaged: page 24 of "):
        snapshots.verify(bad[0])
    snapshots.verify(good)

    restored = snapshots.restore(schema, arena_bytes=ARENA_BYTES)
    assert restored is not None
    restored.graph.close()
    assert restored.snapshot == good
    reasons = {each.name: each.reason for each in restored.refused}
    assert set(reasons) == {each.name for each in bad}
    assert "damaged: page 24 of " in reasons[bad[0].name]
    assert "cut off" in reasons[bad[1].name]
    assert "not there" in reasons[bad[2].name]
    assert "manifest" in reasons[bad[3].name]
    (tmp_path / "snapshots" / good.name / IMAGE).write_bytes(b"")
    assert snapshots.restore(schema, arena_bytes=ARENA_BYTES) is None


def test_a_position_in_the_past_is_restored_from_a_snapshot_before_it(
    schema: Schema, payment: Build, snapshots: Snapshots, snap: Snap
) -> None:
    """At the position itself it serves, one record before it the one before does; with none before it there is none."""
    with filled(schema, payment, 100) as graph:
        first = snap(snapshots, graph)
        apply(graph, payment, 100, 200)
        second = snap(snapshots, graph)
    for until, expected in ((200, second), (199, first), (100, first)):
        restored = snapshots.restore(schema, arena_bytes=ARENA_BYTES, until={("p", 0): until})
        assert restored is not None
        restored.graph.close()
        assert restored.snapshot == expected
    assert snapshots.restore(schema, until={("p", 0): 99}) is None
    assert snapshots.restore(schema, until={("other", 0): 300}) is None


@pytest.mark.parametrize(
    ("written", "found", "named"),
    [
        ("amount: numerical", "amount: categorical", "another kind of column amount"),
        ("fraud: {kind: boolean, outcome: true}", "", "payments has no column fraud any more"),
        ("amount: numerical", "sum: numerical", "payments has no column amount any more"),
        (
            "customers:\n    primary_key: {customer_id: integer}",
            "customers:\n    primary_key: {customer_id: string}",
            "customers",
        ),
        ("  visits:\n    time_column: at\n    links: {customer_id: customers}\n", "", "no table visits"),
    ],
)
def test_a_snapshot_of_other_tables_is_refused_by_name(
    schema: Schema, schema_text: str, payment: Build, tmp_path: Path, written: str, found: str, named: str, snap: Snap
) -> None:
    """The first table, column or link that differs is named."""
    snapshots = Snapshots(tmp_path)
    with filled(schema, payment, 10) as graph:
        snap(snapshots, graph)
    text = schema_text.replace(written, found)
    assert text != schema_text
    with pytest.raises(ArenaError, match=named):
        TemporalGraph.create(parse_schema(text), arena_bytes=ARENA_BYTES, image=next(tmp_path.glob(f"*/{IMAGE}")))
    assert snapshots.restore(parse_schema(text), arena_bytes=ARENA_BYTES) is None


def test_a_schema_that_grew_takes_a_snapshot_over(
    schema: Schema, schema_text: str, payment: Build, tmp_path: Path, snap: Snap
) -> None:
    """With another table, column and link the graph is the one that the log builds under the larger schema."""
    grown = parse_schema(
        schema_text.replace("tables:\n", "tables:\n  shops:\n    primary_key: {shop_id: string}\n", 1)
        .replace("amount: numerical", "fee: numerical\n      amount: numerical")
        .replace("links: {customer_id: customers}", "links: {customer_id: customers, shop_id: shops}", 1)
    )
    snapshots = Snapshots(tmp_path)
    with filled(schema, payment, 300) as graph:
        snap(snapshots, graph)
        assert not graph.migrated
    restored = snapshots.restore(grown, arena=tmp_path / "arena", arena_bytes=ARENA_BYTES)
    assert restored is not None
    with restored.graph as other, filled(grown, payment, 300) as rebuilt:
        assert other.migrated
        assert other.canonical_hash() == rebuilt.canonical_hash()
        assert other.positions == rebuilt.positions
        for each in (other, rebuilt):
            apply(each, payment, 300, 400)
        assert other.canonical_hash() == rebuilt.canonical_hash()


def test_other_bounds_are_no_other_graph(
    schema: Schema, schema_text: str, payment: Build, tmp_path: Path, snap: Snap
) -> None:
    """Lateness and retention may change: the schema that restores says what they are."""
    snapshots = Snapshots(tmp_path)
    with filled(schema, payment, 10) as graph:
        snap(snapshots, graph)
    restored = snapshots.restore(
        parse_schema(schema_text.replace("lateness: 1h", "lateness: 2h")), arena_bytes=ARENA_BYTES
    )
    assert restored is not None
    with restored.graph as other:
        late = payment(99, 0, known_time_us=90 * 60_000_000)
        assert other.apply([late]).applied == 1


def test_readers_of_a_folder_are_sent_to_a_restored_generation(
    schema: Schema, payment: Build, tmp_path: Path, snap: Snap
) -> None:
    """Restored into a shared arena, a graph is one generation further, and serves."""
    arena, snapshots = tmp_path / "arena", Snapshots(tmp_path / "snapshots")
    with TemporalGraph.create(schema, arena=arena, arena_bytes=ARENA_BYTES) as graph:
        apply(graph, payment, 0, 50)
        snap(snapshots, graph)
    restored = snapshots.restore(schema, arena=arena, arena_bytes=ARENA_BYTES)
    assert restored is not None
    with restored.graph as other:
        view = GraphView.attach(schema, arena)
        assert view.position() == other.view().position()
        assert view.generation == 2
        assert view.row_count("payments") == 50
        view.close()


def test_only_the_newest_are_kept_and_what_died_is_removed(
    schema: Schema, payment: Build, snapshots: Snapshots, tmp_path: Path, snap: Snap
) -> None:
    """Older ones go, and folders that a process left in the making."""
    with filled(schema, payment, 10) as graph:
        made = [snap(snapshots, graph) for _ in range(4)]
    left = tmp_path / "snapshots" / f"{MAKING}dead"
    half = tmp_path / "snapshots" / "20990101T000000Z-1"
    if "memory" not in snapshots.url:
        left.mkdir()
        half.mkdir()
        (half / IMAGE).touch()
    removed = snapshots.keep(2)
    found, refused = snapshots.inventory()
    assert found == [made[3], made[2]]
    assert not refused
    assert {made[0].name, made[1].name} <= set(removed)
    assert not left.exists()
    assert not half.exists()


def test_what_died_is_removed_before_the_next_is_made(
    schema: Schema, payment: Build, tmp_path: Path, snap: Snap
) -> None:
    """Or on a disk that it has filled no snapshot would ever be made again."""
    snapshots = Snapshots(tmp_path)
    with filled(schema, payment, 10) as graph:
        made = snap(snapshots, graph)
    (tmp_path / f"{MAKING}dead").mkdir()
    (tmp_path / "20990101T000000Z-1").mkdir()
    folder = snapshots.making()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([folder.name, made.name])


def test_the_last_one_made_is_the_newest_whatever_the_clock_says(
    schema: Schema, payment: Build, tmp_path: Path, snap: Snap
) -> None:
    """A clock set back by an hour makes none that counts as older than those before it, to be removed at once."""
    now_us = iter([7_200_000_000, 3_600_000_000, 3_600_000_001])
    snapshots = Snapshots(tmp_path, clock_us=lambda: next(now_us))
    with filled(schema, payment, 10) as graph:
        made = [snap(snapshots, graph) for _ in range(3)]
    snapshots.keep(2)
    assert snapshots.inventory()[0] == [made[2], made[1]]


def test_a_snapshot_that_cannot_be_written_leaves_the_others(
    schema: Schema, payment: Build, tmp_path: Path, snap: Snap
) -> None:
    """Nothing of it stays, and what was there is as it was."""
    snapshots = Snapshots(tmp_path / "snapshots")
    with filled(schema, payment, 10) as graph:
        good = snap(snapshots, graph)
        folder = snapshots.making()
        image = graph.image(folder / IMAGE)
        image.copy()
        settled = image.settle()
        (tmp_path / "snapshots").rename(tmp_path / "gone")
        with pytest.raises(SnapshotError, match="can't be written"):
            snapshots.add(tmp_path / "gone" / folder.name, settled, size=image.finish(), fingerprint="")
        assert not (tmp_path / "gone" / folder.name).exists()
        (tmp_path / "gone").rename(tmp_path / "snapshots")
        with pytest.raises(ArenaError, match="cannot make image"):
            graph.image(tmp_path / "snapshots" / good.name / IMAGE)
    assert snapshots.inventory() == ([good], [])


def test_a_manifest_of_another_version_is_refused(schema: Schema, payment: Build, tmp_path: Path, snap: Snap) -> None:
    """It says which version was expected; one that is under another name says whose it is."""
    snapshots = Snapshots(tmp_path)
    with filled(schema, payment, 10) as graph:
        made = snap(snapshots, graph)
    manifest = tmp_path / made.name / MANIFEST
    assert Snapshot.from_dict(json.loads(manifest.read_text())) == made
    manifest.write_text(json.dumps(made.to_dict() | {"version": 9}))
    assert "version 9, expected 2" in snapshots.inventory()[1][0].reason
    manifest.write_text(json.dumps(made.to_dict() | {"name": "other"}))
    assert "of other" in snapshots.inventory()[1][0].reason
    assert Snapshots(tmp_path / "nothing").inventory() == ([], [])


class _RemembersListings(MemoryFileSystem):
    """An object store as its client of another process sees it: what was listed once is not asked for again."""

    protocol = "remembers"

    @classmethod
    def _strip_protocol(cls, path: Any) -> str:
        return str(super()._strip_protocol(str(path).replace("remembers:", "memory:")))

    def ls(self, path: str, detail: bool = True, **_: Any) -> Any:
        path = self._strip_protocol(path)
        if path not in self.dircache:
            self.dircache[path] = super().ls(path, detail=True)
        entries = self.dircache[path]
        return entries if detail else [each["name"] for each in entries]

    def invalidate_cache(self, path: str | None = None) -> None:
        self.dircache.clear()


def test_what_another_process_made_and_removed_is_seen(
    schema: Schema, payment: Build, tmp_path: Path, snap: Snap
) -> None:
    """Who stood by has listed the place long ago; it makes snapshots there once it takes over."""
    fsspec.register_implementation("remembers", _RemembersListings, clobber=True)
    url = f"//another/{tmp_path.name}"
    writer, standby = Snapshots(f"memory:{url}", cache=tmp_path), Snapshots(f"remembers:{url}", cache=tmp_path)
    with filled(schema, payment, 10) as graph:
        first = snap(writer, graph)
        assert standby.inventory() == ([first], [])
        newest = [snap(writer, graph) for _ in range(2)]
        writer.keep(1)
        assert standby.inventory() == (newest[1:], [])
        assert snap(standby, graph).made_time_us > newest[1].made_time_us


@pytest.mark.parametrize("call", ["cat_file", "ls"])
def test_a_place_that_cannot_be_read_for_a_while_keeps_its_snapshots(
    schema: Schema, payment: Build, snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch, call: str, snap: Snap
) -> None:
    """A file system that fails says nothing of what is there: nothing is taken for empty or left over, and removed."""
    with filled(schema, payment, 10) as graph:
        made = snap(snapshots, graph)
        with monkeypatch.context() as failing:
            for name in ("exists", call):
                failing.setattr(snapshots._fs, name, _fails if name == call else lambda *_, **__: False)
            if call == "ls":
                with pytest.raises(SnapshotError, match="connection reset"):
                    snapshots.restore(schema)
            else:
                assert [each.name for each in snapshots.inventory()[1]] == [made.name]
                shutil.rmtree(snapshots.making())
                assert snapshots.keep(1) == []
        assert snapshots.inventory() == ([made], [])
        snapshots.verify(made)


def _fails(*_: Any, **__: Any) -> None:
    raise ConnectionResetError("connection reset")
