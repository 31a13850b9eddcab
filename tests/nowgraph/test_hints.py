"""The command that is shown to try next works as it stands."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from graph_transformer.target import Kind, Target
from model_server.background import BackgroundServer
from model_server.settings import ServerSettings
from nowgraph.hints import activation, example_call


@pytest.mark.integration
@pytest.mark.parametrize("task", ["fraud", "spend"])
def test_the_command_that_is_shown_gives_an_answer(task: str, world_of: Callable[[str], Any]) -> None:
    """Typed into a shell it prints a score, of a row with known links or of an entity."""
    world = world_of(task)
    with BackgroundServer(lambda: world.server(ServerSettings(port=0, metrics_port=0))) as server:
        command = example_call(world.graph.view(), server.server.task.target, server.target)
        assert command.startswith("python -c ")
        typed = command.replace("python", sys.executable, 1)
        done = subprocess.run(typed, shell=True, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Score(")


@pytest.mark.integration
def test_a_ranking_is_asked_for_a_list(shop: Any) -> None:
    """Of the newest user the graph has a key for, as of its newest event."""
    with BackgroundServer(lambda: shop.server(ServerSettings(port=0, metrics_port=0))) as server:
        command = example_call(shop.graph.view(), shop.task.target, server.target)
        assert f").rank('...', event_time={shop.start_us + 20 * shop.day_us + shop.minute_us + 1})" in command
        typed = command.replace("python", sys.executable, 1)
        done = subprocess.run(typed, shell=True, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("RankedItems(")


def test_a_graph_of_the_past_is_asked_as_of_then(world_of: Callable[[str], Any]) -> None:
    """One microsecond after its newest event; a graph of today is asked now."""
    world = world_of("spend")
    target = Target(Kind.REGRESSION, "terminals", event_level=False)
    newest_us = world.start_us + 99 * 60_000_000
    assert f"event_time={newest_us + 1})" in example_call(world.graph.view(), target, "host:1")
    world.apply([world.event(500, time.time_ns() // 1_000)])
    assert "event_time" not in example_call(world.graph.view(), target, "host:1")


def test_keys_of_the_graph_are_used_and_hashes_are_not(world: Any) -> None:
    """A link leads to the newest parent of the graph; a private key is left for the person who knows one."""
    view = world.graph.view()
    call = example_call(view, Target(Kind.BINARY, "transactions", event_level=True, column="tx_fraud"), "host:1")
    assert "{'terminal_id': 9}" in call
    assert world.privacy.hash(1) not in call
    entity = example_call(view, Target(Kind.REGRESSION, "terminals", event_level=False), "host:1")
    assert ".score('terminals', 9, event_time=" in entity
    assert ".score('customers', '...', " in example_call(
        view, Target(Kind.REGRESSION, "customers", event_level=False), "host:1"
    )


def test_programs_that_are_not_on_the_path_are_put_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `make demo` nothing is activated: the line says how from where one stands; on the path, nothing."""
    script = tmp_path / "my env" / "bin" / "activate"
    script.parent.mkdir(parents=True)
    script.write_text("")
    program = script.with_name("nowgraph")
    program.write_text("")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "my env"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    assert activation() == "  source 'my env/bin/activate'\n"
    monkeypatch.chdir(script.parent)
    assert activation() == "  source activate\n"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert activation() == f"  source '{script}'\n"
    monkeypatch.setenv("PATH", str(script.parent))
    assert activation() == ""
    script.unlink()
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert activation() == ""
