"""The demo's run: its phases around two commands, which the slow test runs for real."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nowgraph.demo_rank import run
from nowgraph.demo_rank.run import RankDemo
from nowgraph.demo_rank.settings import RankDemoSettings
from nowgraph.demo_rank.shop import ShopSettings
from nowgraph.errors import NowgraphError

SMALL = RankDemoSettings(shop=ShopSettings(customers=60, days=30))


@pytest.fixture
def commands(visited: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """The commands that the demo ran: a training that trains nothing, and a server that is the visited one."""
    ran: list[tuple[object, ...]] = []

    @contextmanager
    def served(checkpoint: Path, tables: Path, timeout_s: float) -> Iterator[str]:
        ran.append(("serve", checkpoint, tables))
        yield "nowhere:1"

    @contextmanager
    def client(target: str, *, timeout_s: float) -> Iterator[Any]:
        assert target == "nowhere:1"
        yield visited

    monkeypatch.delenv("NOWGRAPH_DATA", raising=False)
    monkeypatch.setattr(run, "_run", lambda *arguments: ran.append(arguments))
    monkeypatch.setattr(run, "_served", served)
    monkeypatch.setattr(run, "Client", client)
    return ran


def demo(settings: RankDemoSettings, shown: list[int]) -> RankDemo:
    """The demo under test."""
    return RankDemo(settings, say=lambda text: None, show=lambda step, number, data: shown.append(number))


def test_what_is_trained_is_served_and_visited(
    commands: list[tuple[object, ...]], visited: Any, tmp_path: Path
) -> None:
    """By the commands anybody would type, on the files that are left; every list is shown, and all clicks counted."""
    shown: list[int] = []
    result = demo(SMALL.into(tmp_path), shown).run()
    (train, *options), serve = commands
    assert train == "train"
    assert serve == ("serve", tmp_path / "model", tmp_path / "tables")
    for name, path in (("--task", result.task), ("--output", result.model), ("--history", result.tables)):
        assert options[options.index(name) + 1] == path
    assert shown == [0, 1, 2, 3, 4, 5]
    assert result.changed == 4
    document = json.loads(json.dumps(result.document(), default=str))
    assert (document["clicks"], document["changed"], len(document["lists"])) == (4, 4, 6)
    assert list(result.seconds) == ["data", "training", "session"]


def test_a_click_that_changes_nothing_is_a_failure(
    commands: list[tuple[object, ...]], visited: Any, tmp_path: Path
) -> None:
    """The demo does not end well by itself."""
    visited.deaf = True
    with pytest.raises(NowgraphError, match="0 of 4 clicks"):
        demo(SMALL.into(tmp_path), []).run()


def test_a_command_that_fails_is_quoted(tmp_path: Path) -> None:
    """What it said on standard error, one line."""
    with pytest.raises(NowgraphError, match=r"nowgraph train: .*schema"):
        run._run("train", "--schema", tmp_path / "no-schema.yaml", "--output", tmp_path)


@pytest.mark.integration
def test_a_server_that_cannot_serve_is_quoted(tmp_path: Path) -> None:
    """And nothing is left running."""
    with pytest.raises(NowgraphError, match=r"nowgraph serve: .*schema\.yaml"), run._served(tmp_path, tmp_path, 60):
        raise AssertionError("nothing is served")


@pytest.mark.integration
@pytest.mark.slow
def test_the_whole_demo_on_a_simulated_shop(tmp_path: Path) -> None:
    """`nowgraph demo-rank --simulated --json`: a real training, a real server, and each click in the next list."""
    done = subprocess.run(
        [sys.executable, "-m", "nowgraph.cli", "demo-rank", "--simulated", "--json", "--output", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["changed"] == document["clicks"] == 4
    assert [step["history"] for step in document["steps"]] == [1, 2, 3, 4]
    assert all(step["co-visited"] for step in document["steps"])
    assert document["listed_place"] is not None  # what no training has seen is shown once others bought it
    assert "Traceback" not in done.stderr
