"""`nowgraph demo-rank` says what it does; the run itself is tested with the demo."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nowgraph.commands import demo_rank
from nowgraph.demo_rank.run import RankDemo, RankDemoResult
from nowgraph.demo_rank.session import Step


@pytest.mark.parametrize("option", ["--output", "--simulated", "--json"])
def test_its_options_are_documented(run_command: Callable, option: str) -> None:
    """Each option is in the help."""
    assert option in run_command("demo-rank", "--help").stdout


def test_the_command_to_try_next_exists(run_command: Callable) -> None:
    """Every option that the demo suggests is one of the command it suggests it for."""
    lines = demo_rank.NEXT.format(activate="", model="m", tables="t").splitlines()
    (words,) = [line.split() for line in lines if line.strip().startswith("nowgraph ")]
    shown = run_command(words[1], "--help").stdout
    assert all(word in shown for word in words if word.startswith("--"))


def test_an_output_folder_that_cannot_be_made_is_an_error_of_one_line(run_command: Callable, tmp_path: Path) -> None:
    """A file stands where the folder should be: exit code 2 and its name, before any work is done."""
    (tmp_path / "file").write_text("")
    result = run_command("demo-rank", "--simulated", "--output", tmp_path / "file" / "out", exit_code=2)
    assert "file" in result.stderr


def test_it_ends_with_what_each_click_changed(
    run_command: Callable, run_json: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table of the clicks and a sentence for people, the same figures as JSON."""
    from nowgraph.client import GraphPosition, RankedItem, RankedItems
    from nowgraph.client_lists import RankTiming

    def found(*keys: str) -> RankedItems:
        items = tuple(RankedItem(key, 0.0, place, (), False) for place, key in enumerate(keys, start=1))
        timing = RankTiming(0, 0, 0, 0, 0, 0)
        return RankedItems("", "t", items, (), False, 1, 0, 0, 2, "v", 0, GraphPosition(1, 1, {}), timing)

    steps = (Step(None, None, found("a"), 0.0, 1.0), Step("a", found("a"), found("b"), 2.0, 3.0))
    result = RankDemoResult("a shop", Path("m"), Path("t"), Path("h"), steps, {"a": "product a"}, {"data": 1.0})
    monkeypatch.setattr(RankDemo, "run", lambda self: result)
    text = run_command("demo-rank").stdout
    assert "product a" in text
    assert "Each of the 1 clicks changed the next list" in text
    assert "--checkpoint m --history h" in text
    assert run_json("demo-rank")["changed"] == 1
