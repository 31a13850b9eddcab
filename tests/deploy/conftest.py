"""What the tests of deploy/ share: which command lines nowgraph takes, and which variables it reads."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache

import pytest

# Read by the command itself, not by one of its settings; ARENA_BYTES only stands for an option's value.
OF_THE_COMMAND = {"NOWGRAPH_LOG_LEVEL", "NOWGRAPH_UPDATER_METRICS_HOST", "KAFKA_BOOTSTRAP"}


@cache
def _help(command: str) -> str:
    from typer.testing import CliRunner

    from nowgraph.cli import app

    result = CliRunner(env={"COLUMNS": "250"}).invoke(app, [command, "--help"])
    assert result.exit_code == 0, f"nowgraph has no command {command}"
    return re.sub(r"\x1b\[[0-9;]*m", "", result.output)


@pytest.fixture(scope="session")
def accepts() -> Callable[[Sequence[str]], None]:
    """Fails unless the nowgraph command takes these words: a subcommand and its options."""

    def check(command: Sequence[str]) -> None:
        for word in command[1:]:
            if word.startswith("--"):
                assert re.search(rf"{word}\b", _help(command[0])), f"nowgraph {command[0]} has no {word}"

    return check


@pytest.fixture(scope="session")
def known_variables() -> set[str]:
    """Every variable of the environment that server, updater and stream read."""
    from graph_updater.settings import UpdaterSettings
    from model_server.settings import ServerSettings
    from stream.settings import StreamSettings

    settings = {"SERVER_": ServerSettings, "UPDATER_": UpdaterSettings, "": StreamSettings}
    names = {f"NOWGRAPH_{prefix}{name.upper()}" for prefix, one in settings.items() for name in one.model_fields}
    return names | OF_THE_COMMAND
