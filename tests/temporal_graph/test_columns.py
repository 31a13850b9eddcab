"""Columns on disk: found by readers, gone with their generation, refused when they are not whole."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from temporal_graph.columns import columns_link
from temporal_graph.errors import ArenaError
from temporal_graph.generations import arena_path
from temporal_graph.graph import TemporalGraph
from temporal_graph.image import columns_of_image
from temporal_graph.schema import Schema, dump_schema, parse_schema
from temporal_graph.snapshots import COLUMNS, IMAGE, Snapshots
from temporal_graph.view import GraphView

Build = Callable[..., bytes]
ARENA_BYTES = 64 << 20


@pytest.fixture
def on_disk(schema_text: str) -> Schema:
    """The payments schema with the payments' columns on disk."""
    return parse_schema(schema_text.replace("    lateness: 1h\n", "    lateness: 1h\n    storage: disk\n"))


def payments(payment: Build, first: int, end: int) -> list[bytes]:
    """Payments with amounts, and reports of fraud on some."""
    found = [payment(key, key, customer=key % 7, amount=float(key)) for key in range(first, end)]
    return found + [payment(key, end, fraud=True, operation="UPSERT") for key in range(first, end, 3)]


def files(folder: Path) -> set[str]:
    """The columns' files of a folder, whichever arena they are of."""
    return {path.name for path in folder.glob("*/gen-*.columns")}


def create(schema: Schema, folder: Path, *, publish: bool = True) -> TemporalGraph:
    """A graph whose arena others may map."""
    return TemporalGraph.create(
        schema, arena=folder / "arena", arena_bytes=ARENA_BYTES, columns=folder / "columns", publish=publish
    )


def test_columns_take_the_disk_and_not_the_arena(schema: Schema, on_disk: Schema, payment: Build) -> None:
    """A payment's 16 bytes of cells become 4 of memory; the graph is the same by hash and by what it shows."""
    graphs = [TemporalGraph.create(each, arena_bytes=ARENA_BYTES) for each in (schema, on_disk)]
    for graph in graphs:
        graph.apply(payments(payment, 0, 500), backfill=True)
    plain, other = graphs
    assert other.canonical_hash() == plain.canonical_hash()
    assert other.dump() == plain.dump()
    found = {name: graph.memory().tables[1] for name, graph in (("plain", plain), ("other", other))}
    assert found["plain"].cell_bytes == 500 * 16
    assert found["plain"].disk_bytes == plain.memory().columns_bytes == 0
    assert found["other"].cell_bytes == 500 * 8  # with what aligns the record
    assert found["other"].disk_bytes == 501 * 16
    assert other.memory().version_bytes < plain.memory().version_bytes + 170 * 16
    for graph in graphs:
        graph.close()


def test_readers_find_the_columns_of_the_generation_that_serves(
    on_disk: Schema, payment: Build, tmp_path: Path
) -> None:
    """By the arena's folder alone; the next generation takes the file of the last one with it, who maps it reads on."""
    with create(on_disk, tmp_path) as first:
        first.apply(payments(payment, 0, 100), backfill=True)
        old = GraphView.attach(on_disk, tmp_path / "arena")
        assert files(tmp_path / "columns") == {"gen-1.columns"}
        shown = old.versions("payments").numerical
    with create(on_disk, tmp_path, publish=False) as second:
        second.apply(payments(payment, 0, 200), backfill=True)
        assert files(tmp_path / "columns") == {"gen-1.columns", "gen-2.columns"}
        second.publish_generation()
        assert files(tmp_path / "columns") == {"gen-2.columns"}
        assert not columns_link(tmp_path / "arena", 1).is_symlink()
        assert (old.versions("payments").numerical == shown)[:, 0].sum() == len(shown)
        assert old.superseded
        assert GraphView.attach(on_disk, tmp_path / "arena").row_count("payments") == 200
    with create(on_disk, tmp_path, publish=False):
        assert files(tmp_path / "columns") == {"gen-2.columns", "gen-3.columns"}
    assert files(tmp_path / "columns") == {"gen-2.columns"}


def test_columns_of_an_arena_that_is_gone_are_removed(on_disk: Schema, tmp_path: Path) -> None:
    """A restart of the machine empties the folder in memory, not the one on disk; other arenas' files are let alone."""
    with create(on_disk, tmp_path):
        pass
    (own,) = (tmp_path / "columns").iterdir()
    for name in ("gen-1.columns", "gen-5.columns"):
        (own / name).write_bytes(b"left behind")
    other = tmp_path / "columns" / "other-arena" / "gen-1.columns"
    other.parent.mkdir()
    other.write_bytes(b"of another")
    for path in (tmp_path / "arena").iterdir():
        path.unlink()
    with create(on_disk, tmp_path):
        assert [path.name for path in own.iterdir()] == ["gen-1.columns"]
        assert other.exists()
        assert GraphView.attach(on_disk, tmp_path / "arena").row_count("payments") == 0


@pytest.mark.parametrize("damage", ["missing", "cut off", "of another arena"])
def test_columns_that_are_not_whole_are_refused(on_disk: Schema, tmp_path: Path, damage: str) -> None:
    """At attach, with what is wrong and the file's name; the file as it was is read again."""
    with create(on_disk, tmp_path), create(on_disk, tmp_path / "other"):
        path = columns_link(tmp_path / "arena", 1).readlink()
        if damage == "missing":
            path.rename(path.with_suffix(".away"))
        elif damage == "cut off":
            with path.open("r+b") as file:
                file.truncate(1 << 20)
        else:
            path.unlink()
            path.symlink_to(columns_link(tmp_path / "other" / "arena", 1).readlink())
        expected = "cannot open the columns" if damage == "missing" else damage
        with pytest.raises(ArenaError, match=f"{expected}|gen-1.columns {damage}"):
            GraphView.attach(on_disk, tmp_path / "arena")
        assert arena_path(tmp_path / "arena", 1).exists()
        if damage == "missing":
            path.with_suffix(".away").rename(path)
            GraphView.attach(on_disk, tmp_path / "arena").close()


def test_a_shared_arena_says_where_its_columns_lie(on_disk: Schema, schema: Schema, tmp_path: Path) -> None:
    """Without a folder for them it is refused by the tables' names and leaves nothing; where none is needed none is."""
    with pytest.raises(ArenaError, match="columns of payments are to lie on disk"):
        TemporalGraph.create(on_disk, arena=tmp_path, arena_bytes=ARENA_BYTES)
    assert list(tmp_path.glob("gen-*")) == []
    with TemporalGraph.create(schema, arena=tmp_path, arena_bytes=ARENA_BYTES):
        assert list(tmp_path.glob("gen-*.columns")) == []


def test_nothing_is_left_of_a_graph_of_one_process(on_disk: Schema, payment: Build, tmp_path: Path) -> None:
    """Its file has no name while it is written, so that no crash leaves it behind."""
    with TemporalGraph.create(on_disk, arena_bytes=ARENA_BYTES, columns=tmp_path) as graph:
        assert list(tmp_path.iterdir()) == []
        graph.apply(payments(payment, 0, 50), backfill=True)
        assert graph.memory().columns_bytes > 0


@pytest.mark.parametrize("moves", ["stays", "to disk", "to memory"])
@pytest.mark.parametrize("place", ["local", "remote"])
def test_a_snapshot_has_the_columns_and_the_setting_may_change(
    schema: Schema, on_disk: Schema, payment: Build, tmp_path: Path, moves: str, place: str
) -> None:
    """Restored where the schema wants them by now, equal by hash, and goes on as the graph it is of."""
    snapshots = Snapshots(tmp_path / "snapshots" if place == "local" else f"memory://{tmp_path.name}", cache=tmp_path)
    before, after = {"stays": (on_disk, on_disk), "to disk": (schema, on_disk), "to memory": (on_disk, schema)}[moves]
    with TemporalGraph.create(before, arena_bytes=ARENA_BYTES) as graph:
        graph.apply(payments(payment, 0, 400), backfill=True, positions={("p", 0): 400})
        folder = snapshots.making()
        image = graph.image(folder / IMAGE)
        image.copy()
        graph.apply(payments(payment, 400, 500), backfill=True, positions={("p", 0): 500})
        settled = image.settle()
        size = image.finish()
        assert (folder / COLUMNS).exists() == (before is on_disk)
        snapshots.verify(snapshots.add(folder, settled, size=size, fingerprint=""))
        restored = snapshots.restore(after, arena_bytes=ARENA_BYTES)
        assert restored is not None
        with restored.graph as other:
            assert other.migrated == (moves != "stays")
            assert (other.memory().columns_bytes > 0) == (after is on_disk)
            assert other.positions == {("p", 0): 500}
            for each in (graph, other):
                each.apply(payments(payment, 500, 600), backfill=True)
            assert other.canonical_hash() == graph.canonical_hash()


def test_an_erasure_leaves_nothing_of_the_cells_on_disk(on_disk: Schema, payment: Build, tmp_path: Path) -> None:
    """Neither of the row nor of its changes, in the columns' file and in a snapshot that had copied them before."""
    amounts = {"inserted": 1234567.25, "changed": 7654321.75, "other": 3141592.5}

    def held(path: Path) -> set[str]:
        with path.open("rb") as file:
            content = file.read(1 << 24)
        return {name for name, amount in amounts.items() if struct.pack("<d", amount) in content}

    with create(on_disk, tmp_path) as graph:
        graph.apply(
            [payment(1, 10, amount=amounts["inserted"]), payment(2, 10, amount=amounts["other"])], backfill=True
        )
        graph.apply([payment(1, 20, amount=amounts["changed"], operation="UPSERT")], backfill=True)
        image = graph.image(tmp_path / "image")
        image.copy()
        columns, copied = columns_link(tmp_path / "arena", 1), columns_of_image(tmp_path / "image")
        assert held(columns) == held(copied) == set(amounts)
        assert graph.apply([payment(1, 100, operation="ERASE")], backfill=True).applied == 1
        assert held(columns) == {"other"}
        image.settle()
        image.finish()
        assert held(copied) == {"other"}
        assert graph.apply([payment(1, 10, amount=amounts["inserted"])], backfill=True).erased == 1
        assert held(columns) == {"other"}


FILLS = """
import sys
from pathlib import Path
from protos.nowgraph.v1 import row_event_pb2 as pb
from temporal_graph.errors import ArenaFullError
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import load_schema
from temporal_graph.view import GraphView

schema, folder, columns = load_schema(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
graph = TemporalGraph.create(schema, arena=folder, arena_bytes=256 << 20, columns=columns)
applied = 0
try:
    while True:
        event = pb.RowEvent(table="items", operation=pb.OPERATION_INSERT)
        event.key.parts.add(integer=applied)
        event.cells.add(column="vector").vector.values.extend([float(applied)] * 256)
        graph.apply([event.SerializeToString()], positions={("p", 0): applied + 1})
        applied += 1
except ArenaFullError as error:
    print(error)
view = GraphView.attach(schema, folder)
assert view.row_count("items") == view.position().sequence == applied > 8192
assert view.position().offsets == {("p", 0): applied}
assert (view.versions("items").embedding[:, 0] == range(applied)).all()
print(graph.canonical_hash() and "whole")
"""
ITEMS = """
version: 1
name: n
tables:
  items: {primary_key: {id: integer}, storage: disk, columns: {vector: {kind: embedding, dim: 256}}}
"""


@pytest.mark.integration
def test_a_full_disk_stops_the_writer_before_an_event_is_half_in(tmp_path: Path) -> None:
    """On a file system of 40 MB: an error that names it, and a graph that holds exactly what was applied, readable."""
    disk, schema_path = tmp_path / "disk", tmp_path / "schema.yaml"
    disk.mkdir()
    schema_path.write_text(dump_schema(parse_schema(ITEMS)))
    mount = f'mount -t tmpfs -o size=40m tmpfs "{disk}"'
    own_mounts = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*own_mounts, mount], check=False, capture_output=True).returncode != 0:
        pytest.skip("no mounts of our own are allowed here (unshare)")
    command = f'{mount} && exec "$@"'
    python = [sys.executable, "-P", "-c", FILLS, str(schema_path), str(tmp_path / "arena"), str(disk)]
    done = subprocess.run(
        [*own_mounts, command, "sh", *python], check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    error, whole = done.stdout.splitlines()
    assert "the file system of" in error
    assert "gen-1.columns" in error
    assert whole == "whole"
