"""`nowgraph predict` answers a file, from a graph of history files or of a running updater."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def options(folder: Path, asked: Path) -> list[object]:
    """The options of a prediction from the folder that training left."""
    history = [word for path in sorted((folder / "history").iterdir()) for word in ("--history", path)]
    return ["predict", "--checkpoint", folder, "--input", asked, "--output", folder / "answers.parquet", *history]


def write(path: Path, **columns: Any) -> Path:
    """A Parquet file of these columns."""
    pq.write_table(pa.table(columns), path)
    return path


def test_entities_are_answered_beside_their_keys(
    run_json: Callable[..., Any], trained: Callable[[str], Path], tmp_path: Path, world: Any
) -> None:
    """Keys alone are asked as of the newest time of the graph; the schema is the checkpoint's; the rest stays."""
    folder = trained("spend")
    asked = write(tmp_path / "asked.parquet", customer_id=[3, 99], note=["known", "unknown"])
    document = run_json(*options(folder, asked))
    assert (document["rows"], document["empty_history"]) == (2, 1)
    assert (document["task"], document["kind"]) == ("spend", "regression")
    answers = pq.read_table(folder / "answers.parquet").to_pylist()
    assert [row["note"] for row in answers] == ["known", "unknown"]
    newest = datetime.fromtimestamp(world.start_us / 1e6 + 59 * 60, UTC)
    assert {row["cutoff_time"] for row in answers} == {newest}
    assert [row["history_count"] > 0 for row in answers] == [True, False]
    assert answers[0]["value"] == answers[0]["quantiles"][3]["value"]
    assert answers[0]["model_version"] == document["model_version"]


def test_a_persons_table_says_where_the_answers_are(
    run_command: Callable[..., Any], trained: Callable[[str], Path], tmp_path: Path
) -> None:
    """Standard output is the summary, standard error the bar; quiet leaves the summary alone."""
    folder = trained("spend")
    asked = write(tmp_path / "asked.parquet", customer_id=[3])
    shown = run_command(*options(folder, asked))
    assert "answers.parquet" in shown.stdout
    assert "predicting" in shown.stderr
    assert run_command(*options(folder, asked), "--quiet").stderr == ""


def test_the_graph_of_a_running_updater_gives_the_same_bits(
    run_json: Callable[..., Any], run_command: Callable[..., Any], trained: Callable[[str], Path], tmp_path: Path
) -> None:
    """Files or an arena: with a fixed shape there is no difference in any answer."""
    folder = trained("fraud")
    times = pa.array([datetime(2023, 1, 1, 1, 30)] * 3, pa.timestamp("us"))
    asked = write(tmp_path / "asked.parquet", transaction_id=[900, 901, 902], tx_datetime=times, customer_id=[1, 2, 77])
    run_json(*options(folder, asked), "--fixed-shape")
    from_files = pq.read_table(folder / "answers.parquet")
    arena = tmp_path / "arena"
    history = sorted((folder / "history").iterdir())
    run_command("replay", *history, "--schema", folder / "schema.yaml", "--arena", arena, "--quiet")
    run_json(*options(folder, asked)[:7], "--arena", arena, "--fixed-shape")
    assert pq.read_table(folder / "answers.parquet") == from_files
    assert from_files["history_count"].to_pylist()[2] == 0


def test_what_is_missing_is_said(
    run_command: Callable[..., Any], trained: Callable[[str], Path], tmp_path: Path, world: Any
) -> None:
    """No graph, two graphs, no schema, no past labels in the schema, a wrong row: one line each, exit code 2."""
    folder = trained("spend")
    asked = write(tmp_path / "asked.parquet", customer_id=[3])
    given = options(folder, asked)
    assert "--history" in run_command(*given[:7], exit_code=2).stderr
    assert "--history" in run_command(*given, "--arena", tmp_path, exit_code=2).stderr
    wrong = write(tmp_path / "wrong.parquet", customer_id=[1.5])
    assert "wrong.parquet: row 0: customer_id: " in run_command(*options(folder, wrong), exit_code=2).stderr
    before = world.schema_text.index("  spend:\n")
    (folder / "old.yaml").write_text(
        world.schema_text[:before] + world.schema_text[world.schema_text.index("sources:") :]
    )
    (folder / "history" / "spend.parquet").unlink()
    refused = run_command(*options(folder, asked), "--schema", folder / "old.yaml", exit_code=2)
    assert "no table 'spend', where the task's past labels stand" in refused.stderr
    (folder / "schema.yaml").unlink()
    assert "schema.yaml, so --schema" in run_command(*options(folder, asked), exit_code=2).stderr


def test_a_graph_without_past_labels_is_warned_of(
    run_command: Callable[..., Any], trained: Callable[[str], Path], tmp_path: Path
) -> None:
    """The answer comes, and with it which file would make it better."""
    folder = trained("spend")
    asked = write(tmp_path / "asked.parquet", customer_id=[3])
    assert "no_past_labels" not in run_command(*options(folder, asked)).stderr
    (folder / "history" / "spend.parquet").unlink()
    assert "spend.parquet" in run_command(*options(folder, asked)).stderr
