"""Files become a graph: every row counted, what does not fit set aside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
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


def test_rows_that_do_not_fit_are_said_with_their_reasons(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of five rows two have no time and one no number: each reason stands there with its count, the frequent first."""
    (tmp_path / "visits.csv").write_text("at,x\n2024-01-01,1\n,2\n,3\n2024-01-04,inf\n2024-01-05,5\n")
    text = "version: 1\nname: t\ntables:\n  visits: {time_column: at, columns: {x: numerical}}\n"
    (tmp_path / "schema.yaml").write_text(text)
    schema, letters = load_schema(tmp_path / "schema.yaml"), tmp_path / "letters"
    with TemporalGraph.create(schema, arena_bytes=1 << 28) as graph:
        loaded = load_files(graph, [tmp_path / "visits.csv"], quiet=False, dead_letters=letters)
    assert (loaded.applied, loaded.dead_letters) == (2, 3)
    shown = " ".join(capsys.readouterr().err.split())
    assert "3 of 5 rows did not fit the schema" in shown
    assert "2: at: the time is absent or null 1: x: expected a finite number" in shown


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


def test_past_labels_of_private_entities_find_them(world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels written from a graph hold hashes: loaded as rows of the task table they are linked to their entities."""
    from graph_transformer.finetune.query.label_table import LabelTable
    from graph_transformer.finetune.query.task_table import read_labels, task_table_schema, write_labels
    from graph_transformer.target import Kind, Target
    from online_sampler.plan import SamplingPlan
    from online_sampler.sampler import Sampler

    monkeypatch.setenv("NOWGRAPH_PRIVACY_SECRET", world.secret)
    target = Target(Kind.REGRESSION, "customers", event_level=False, task_table="past")
    row, at_us = np.arange(3), np.full(3, world.start_us)
    labels = LabelTable(target, row, at_us, at_us + 5, np.array([1.0, 2.0, 3.0]))
    write_labels(labels, tmp_path / "past.parquet", world.graph.view())
    with TemporalGraph.create(task_table_schema(world.schema, "past", target), arena_bytes=1 << 28) as graph:
        graph.apply([world.event(n, world.start_us, customer=n) for n in range(3)], backfill=True)
        loaded = load_files(graph, [tmp_path / "past.parquet"], quiet=True, dead_letters=tmp_path / "letters")
        view = graph.view()
        assert (loaded.applied, view.row_count("customers")) == (3, 3)
        sampler = Sampler(view, SamplingPlan.from_dict({"num_neighbors": [{"hop1": {"default": 9}}]}))
        customers = [world.privacy.hash(n) for n in range(3)]
        for cutoff_us, seen in ((world.start_us + 4, 0), (world.start_us + 5, 1)):
            found = sampler.sample_keys("customers", customers, np.full(3, cutoff_us))
            past = view.schema.table_index("past")
            per_seed = np.split(found.table == past, found.seed_offset[1:-1])
            assert [int(part.sum()) for part in per_seed] == [seen] * 3
        again = read_labels(tmp_path / "past.parquet", view)
        assert again.row.tolist() == view.row_index("customers", customers).tolist()
