"""`nowgraph demo` says what it does; the run itself is tested with the demo."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from graph_transformer.finetune.question import written_task
from nowgraph.commands.demo import EXAMPLE, NEXT
from temporal_graph.schema import load_schema


def test_the_example_travels_with_the_package() -> None:
    """Schema and task are found beside the installed command, and fit each other."""
    schema = load_schema(EXAMPLE / "schema.yaml")
    written_task(EXAMPLE / "task.yaml", schema).check(schema)


def test_the_commands_to_try_next_exist(run_command: Callable) -> None:
    """Every option that the demo suggests is one of the command it suggests it for."""
    lines = NEXT.replace("\\\n", " ").format(example="examples/payments", model="m").splitlines()
    suggested = [line.split() for line in lines if line.strip().startswith("nowgraph ")]
    assert [words[1] for words in suggested] == ["train", "serve"]
    for words in suggested:
        shown = run_command(words[1], "--help").stdout
        assert all(word in shown for word in words if word.startswith("--"))


@pytest.mark.parametrize("option", ["--quick", "--output", "--simulated", "--json"])
def test_its_options_are_documented(run_command: Callable, option: str) -> None:
    """Each option is in the help."""
    assert option in run_command("demo", "--help").stdout


def test_an_output_folder_that_cannot_be_made_is_an_error_of_one_line(run_command: Callable, tmp_path: Path) -> None:
    """A file stands where the folder should be: exit code 2 and its name, before any work is done."""
    (tmp_path / "file").write_text("")
    result = run_command("demo", "--quick", "--output", tmp_path / "file" / "out", exit_code=2)
    assert "file" in result.stderr
