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
    lines = NEXT.replace("\\\n", " ").format(activate="", example="examples/payments", model="m").splitlines()
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


def test_it_ends_with_the_table_the_curve_and_three_commands(
    run_command: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """People see rates, quality beside the payment alone, where curve and model lie, and what to type next."""
    from nowgraph.demo.measures import Measures
    from nowgraph.demo.result import ALONE, GRAPH, DemoResult, Rates
    from nowgraph.demo.run import Demo

    measures = {GRAPH: Measures(0.71, 0.9, 0.3, 100, 5), ALONE: Measures(0.13, 0.6, 0.1, 100, 5)}
    rates = Rates(100, 50.0, 200, 100.0, 2.0, 8.0, 4.0, 12.0, 8)
    result = DemoResult("the data", 9, 1.0, rates, measures, measures, {"data": 1.0}, Path("m"), Path("curve.png"))
    monkeypatch.setattr(Demo, "run", lambda self: result)
    monkeypatch.chdir(tmp_path)  # not in the clone: the example is the installed one
    text = run_command("demo").stdout
    for word in ("How good, on the data", "0.71", "0.13", "scores over gRPC", "8", "12", "Curve: curve.png   Model: m"):
        assert word in text
    _, _, after = text.partition("Try next:\n")
    commands = [words for line in after.replace("\\\n", " ").splitlines() if (words := line.split())]
    assert [words[:2] for words in commands if words[0] != "source"] == [
        ["python", f"{EXAMPLE}/prepare.py"],
        ["nowgraph", "train"],
        ["nowgraph", "serve"],
    ]
    assert (EXAMPLE / "prepare.py").is_file()
    assert "m" in commands[-1]
