"""Files become a graph: every row counted, what does not fit set aside."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from nowgraph.errors import UsageError
from nowgraph.loading import load_files, opened_graph
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import load_schema


def test_every_row_is_applied_once_and_loading_again_changes_nothing(
    example: Path, town: tuple[Path, Path], tmp_path: Path
) -> None:
    """The counts are the files'; a second time there is nothing left to read; progress is silent when quiet."""
    rows = sum(pq.read_metadata(path).num_rows for path in town)
    with TemporalGraph.create(load_schema(example / "schema.yaml"), arena_bytes=1 << 28) as graph:
        loaded = load_files(graph, town, quiet=True, dead_letters=tmp_path / "letters")
        assert (loaded.rows, loaded.applied, loaded.duplicate, loaded.dead_letters) == (rows, rows, 0, 0)
        before = graph.canonical_hash()
        again = load_files(graph, town, quiet=True, dead_letters=tmp_path / "letters")
        assert (again.rows, again.applied) == (0, 0)
        assert graph.canonical_hash() == before
    assert not (tmp_path / "letters").exists()


def test_progress_goes_to_standard_error(
    example: Path, town: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Standard output is the result's alone."""
    with TemporalGraph.create(load_schema(example / "schema.yaml"), arena_bytes=1 << 28) as graph:
        load_files(graph, town, quiet=False, dead_letters=tmp_path / "letters")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "loading" in shown.err


def test_a_graph_comes_from_files_or_from_an_arena(example: Path, town: tuple[Path, Path], tmp_path: Path) -> None:
    """One of the two, and the view reads what is there; neither or both are refused."""
    schema, arena = load_schema(example / "schema.yaml"), tmp_path / "arena"
    with opened_graph(schema, town[:1], None, quiet=True) as view:
        rows = view.row_count("transactions")
        assert rows == pq.read_metadata(town[0]).num_rows
    with TemporalGraph.create(schema, arena=arena, arena_bytes=1 << 28) as graph:
        load_files(graph, town[:1], quiet=True, dead_letters=tmp_path / "letters")
        with opened_graph(schema, [], arena, quiet=True) as view:
            assert view.row_count("transactions") == rows
    for files, folder in (([], None), (list(town), arena)):
        with pytest.raises(UsageError, match="--history"), opened_graph(schema, files, folder, quiet=True):
            pass
