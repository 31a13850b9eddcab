"""The updater on a thread ends cleanly, and its errors reach whoever started it."""

from __future__ import annotations

import gc
from pathlib import Path

import orjson
import pytest

from graph_updater.dead_letter_file import DeadLetterFile
from graph_updater.embedded import UpdaterThread
from graph_updater.updater import Updater
from stream.batch import Batch
from stream.decode import Decoder
from stream.file_rows import FileTable
from stream.file_source import FileSource
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import Schema, parse_schema

SCHEMA = """
version: 1
name: notes
tables:
  notes: {primary_key: {id: integer}, time_column: at, columns: {text: text}}
"""


@pytest.fixture
def schema() -> Schema:
    """One table of notes."""
    return parse_schema(SCHEMA)


@pytest.fixture
def source(schema: Schema, tmp_path: Path) -> FileSource:
    """Three notes in a file."""
    path = tmp_path / "notes.jsonl"
    path.write_bytes(b"".join(orjson.dumps({"id": i, "at": i, "text": "x"}) + b"\n" for i in range(3)))
    return FileSource(schema, [FileTable.of(schema, path)])


def test_it_ends_by_itself_when_the_source_does(schema: Schema, source: FileSource, tmp_path: Path) -> None:
    """Files are read to their end, and stopping after that changes nothing."""
    with (
        TemporalGraph.create(schema, arena_bytes=1 << 26) as graph,
        DeadLetterFile(tmp_path / "letters") as letters,
    ):
        thread = UpdaterThread(Updater(graph, [source], Decoder(schema), letters)).start()
        thread._thread.join(10)
        assert not thread.alive
        thread.stop()
        assert graph.view().row_count("notes") == 3


def test_what_is_loaded_is_not_looked_through_while_it_runs(schema: Schema, source: FileSource, tmp_path: Path) -> None:
    """The garbage collector leaves it alone from the start to the stop, and no longer."""
    with (
        TemporalGraph.create(schema, arena_bytes=1 << 26) as graph,
        DeadLetterFile(tmp_path / "letters") as letters,
    ):
        loaded = len(gc.get_objects())
        thread = UpdaterThread(Updater(graph, [source], Decoder(schema), letters)).start()
        assert gc.get_freeze_count() > 0.9 * loaded
        thread.stop()
        assert gc.get_freeze_count() == 0


class _Lost(FileSource):
    """A source that cannot be read."""

    def poll(self, max_records: int, timeout_s: float) -> Batch:
        raise OSError("the disk is gone")


def test_what_ended_it_is_raised_where_it_was_started(schema: Schema, source: FileSource, tmp_path: Path) -> None:
    """`check` and the end of the block raise the thread's own error; so nobody serves a graph that stands still."""
    source.__class__ = _Lost
    with (
        TemporalGraph.create(schema, arena_bytes=1 << 26) as graph,
        DeadLetterFile(tmp_path / "letters") as letters,
    ):
        thread = UpdaterThread(Updater(graph, [source], Decoder(schema), letters)).start()
        thread._thread.join(10)
        with pytest.raises(OSError, match="the disk is gone"):
            thread.check()
        with pytest.raises(OSError, match="the disk is gone"):
            thread.stop()


def test_a_thread_that_never_started_can_be_stopped(schema: Schema, source: FileSource, tmp_path: Path) -> None:
    """Stopping is always allowed: it closes the sources."""
    with (
        TemporalGraph.create(schema, arena_bytes=1 << 26) as graph,
        DeadLetterFile(tmp_path / "letters") as letters,
    ):
        UpdaterThread(Updater(graph, [source], Decoder(schema), letters)).stop()
