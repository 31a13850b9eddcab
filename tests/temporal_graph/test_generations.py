"""One arena, several processes: a dead reader frees its slot, a dead writer is replaced by a new generation."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from temporal_graph.errors import ArenaError, OvertakenError, WriterBusyError
from temporal_graph.generations import CurrentGeneration, Generation, WriterLock
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import Schema, dump_schema
from temporal_graph.view import GraphView

Build = Callable[..., bytes]

WRITER = """
import sys
from pathlib import Path
from protos.nowgraph.v1 import row_event_pb2 as pb
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import load_schema

folder, schema = Path(sys.argv[1]), load_schema(Path(sys.argv[2]))
graph = TemporalGraph.create(schema, arena=folder, arena_bytes=256 << 20)
print("ready", flush=True)
for batch in range(1_000_000):
    events = []
    for key in range(batch * 10, batch * 10 + 10):
        event = pb.RowEvent(table="payments", operation=pb.OPERATION_INSERT, event_time_us=key)
        event.key.parts.add(integer=key)
        event.cells.add(column="customer_id", integer=key % 7)
        events.append(event.SerializeToString())
    graph.apply(events, positions={("p", 0): batch * 10 + 10})
    if batch == 200:
        print("filled", flush=True)
        sys.stdin.readline()
"""

READER = """
import sys
from pathlib import Path
from temporal_graph.schema import load_schema
from temporal_graph.view import GraphView

view = GraphView.attach(load_schema(Path(sys.argv[2])), Path(sys.argv[1]))
while True:
    position = view.position()
    rows = view.row_count("payments")
    assert rows >= position.offsets.get(("p", 0), 0), (rows, position)
    print(rows, view.generation, view.superseded, flush=True)
    if not sys.stdin.readline():
        break
"""


class Process:
    """A child that prints a line for each line it is sent; killed at the end whatever happens."""

    def __init__(self, code: str, *arguments: Path) -> None:
        command = [sys.executable, "-P", "-c", code, *map(str, arguments)]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def line(self) -> str:
        """Wait for the next line."""
        assert self._child.stdout is not None
        return self._child.stdout.readline().strip()

    def ask(self) -> list[str]:
        """Send a line and return the answer's words."""
        assert self._child.stdin is not None
        self._child.stdin.write("\n")
        self._child.stdin.flush()
        return self.line().split()

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                pipe.close()


def eventually(check: Callable[[], bool]) -> bool:
    """Whether the check holds within ten seconds."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if check():
            return True
        time.sleep(0.02)
    return False


@pytest.mark.integration
def test_readers_outlive_a_dead_reader_and_a_dead_writer(schema: Schema, tmp_path: Path, payment: Build) -> None:
    """kill -9 of a reader frees its slot; kill -9 of the writer leaves readers reading; the next writer's generation
    takes over only once it is published, and the old arena's file is gone.
    """
    folder, schema_path = tmp_path / "arena", tmp_path / "schema.yaml"
    schema_path.write_text(dump_schema(schema))
    writer = Process(WRITER, folder, schema_path)
    readers: list[Process] = []
    try:
        assert writer.line() == "ready"
        readers = [Process(READER, folder, schema_path) for _ in range(2)]
        assert [reader.line().split()[1] for reader in readers] == ["1", "1"]
        assert writer.line() == "filled"
        assert int(readers[0].ask()[0]) == 2_010

        watching = GraphView.attach(schema, folder)
        slots = watching.readers()
        readers[1].kill()
        assert eventually(lambda: watching.readers() == slots - 1)

        writer.kill()
        assert readers[0].ask() == ["2010", "1", "False"]
        with TemporalGraph.create(schema, arena=folder, arena_bytes=64 << 20, publish=False) as successor:
            successor.apply([payment(1, 1)])
            assert readers[0].ask() == ["2010", "1", "False"]
            successor.publish_generation()
            assert readers[0].ask() == ["2010", "1", "True"]
            assert watching.superseded
            assert GraphView.attach(schema, folder).row_count("payments") == 1
            assert [path.name for path in folder.glob("*.arena")] == ["gen-2.arena"]
    finally:
        for process in [writer, *readers]:
            process.kill()


def test_generations_count_up_and_the_newest_published_stays(tmp_path: Path) -> None:
    """Two that are built at once have two numbers; publishing one unlinks those before it."""
    first, second = Generation(tmp_path), Generation(tmp_path)
    assert (first.number, second.number) == (1, 2)
    for each in (first, second):
        each.arena.touch()
    lock = WriterLock(tmp_path)
    lock.publish(1)
    assert CurrentGeneration(tmp_path).get() == 1
    assert first.arena.exists()
    assert second.arena.exists()
    lock.publish(2)
    assert not first.arena.exists()
    assert second.arena.exists()
    with pytest.raises(OvertakenError, match="generation 2 serves"):
        first.check()
    second.check()
    lock.close()


def test_what_a_dead_builder_left_is_removed_and_a_living_ones_is_not(tmp_path: Path) -> None:
    """By the next that takes a number, and by a writer that publishes; the serving one stays, whoever built it."""
    serving = Generation(tmp_path)
    lock = WriterLock(tmp_path)
    lock.publish(serving.number)
    living, dead = Generation(tmp_path), Generation(tmp_path)
    for each in (serving, living, dead):
        each.arena.touch()
    for each in (serving, dead):
        each.close()  # as the kernel does for a process that is killed
    assert Generation(tmp_path).number == 3
    assert not dead.arena.exists()
    assert serving.arena.exists()
    living.close()
    lock.publish(serving.number)
    assert not living.arena.exists()
    assert serving.arena.exists()
    lock.close()


def test_who_stands_by_takes_the_place_once_it_is_free(schema: Schema, tmp_path: Path, payment: Build) -> None:
    """Beside the writer it may build and not publish; afterwards it is the writer, and readers are sent to it."""
    with (
        TemporalGraph.create(schema, arena=tmp_path, arena_bytes=64 << 20) as writer,
        TemporalGraph.create(schema, arena=tmp_path, arena_bytes=64 << 20, standby=True) as standby,
    ):
        writer.apply([payment(1, 1)])
        view = GraphView.attach(schema, tmp_path)
        standby.apply([payment(1, 1), payment(2, 2)])
        assert not standby.take_place()
        with pytest.raises(WriterBusyError, match="stands by"):
            standby.publish_generation()
        assert (view.row_count("payments"), view.superseded) == (1, False)
        writer.close()
        assert standby.take_place()
        assert not view.superseded
        standby.publish_generation()
        assert view.superseded
        assert GraphView.attach(schema, tmp_path).row_count("payments") == 2
        with pytest.raises(WriterBusyError):
            TemporalGraph.create(schema, arena=tmp_path, arena_bytes=64 << 20)


def test_of_two_who_stand_by_one_is_overtaken(schema: Schema, tmp_path: Path) -> None:
    """The older one can never serve once the younger does; it learns so when it asks, and leaves nothing behind."""
    make = partial(TemporalGraph.create, schema, arena=tmp_path, arena_bytes=64 << 20, standby=True)
    older, younger = make(), make()
    assert younger.take_place()
    assert not older.take_place()
    younger.publish_generation()
    with pytest.raises(OvertakenError):
        older.take_place()
    younger.close()
    with pytest.raises(OvertakenError):
        older.take_place()
    older.close()
    with make() as next_one:
        assert next_one.take_place()
    assert [path.name for path in tmp_path.glob("*.arena")] == ["gen-2.arena"]


def test_nothing_is_current_before_the_first_writer(tmp_path: Path) -> None:
    """A folder that no writer has opened is refused by name."""
    with pytest.raises(ArenaError, match=str(tmp_path)):
        CurrentGeneration(tmp_path)
