"""The installed command: what it prints, where, and with which exit code."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import nowgraph
from nowgraph.cli import SHORT_HELP, app

# What commands compute with and speak by: help needs none of it.
LIBRARIES = {"torch", "grpc", "numpy", "pyarrow", "confluent_kafka", "google.protobuf", "prometheus_client", "fsspec"}


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the command as a process of its own."""
    import os

    return subprocess.run(
        [sys.executable, "-m", "nowgraph.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | environment,
    )


def test_the_version_is_that_of_the_package() -> None:
    """`nowgraph --version` prints one line and succeeds."""
    done = command("--version")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, nowgraph.__version__, "")


def test_every_subcommand_is_there_and_documented(run_command: Callable) -> None:
    """Each of the documented subcommands answers --help."""
    overview = run_command("--help").stdout
    for name in ("serve", "update", "train", "replay", "demo", "schema", "dead-letters"):
        assert name in overview
        assert "Usage" in run_command(name, "--help").stdout


def test_an_error_of_the_user_is_one_line_on_standard_error_and_exit_code_2(tmp_path: Path) -> None:
    """A file that is not there, a schema that is wrong: no traceback, nothing on standard output."""
    (tmp_path / "bad.yaml").write_text("version: 1\nname: x\ntables: {a: {primary_key: {i: number}}}\n")
    for file, expected in ((tmp_path / "none.yaml", "No such file"), (tmp_path / "bad.yaml", "tables.a.primary_key")):
        done = command("schema", "check", str(file))
        assert (done.returncode, done.stdout) == (2, "")
        assert len(done.stderr.strip().splitlines()) == 1
        assert done.stderr.startswith("nowgraph: ")
        assert expected in done.stderr


def test_a_wrong_log_level_is_refused(run_command: Callable) -> None:
    """An unknown level is named, together with those there are."""
    result = run_command("--log-level", "loud", "schema", "check", "x", exit_code=2)
    assert "loud" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "imported", "libraries"),
    [
        (["--help"], set(), LIBRARIES | {"pydantic", "structlog"}),
        (["serve", "--help"], {"serve"}, LIBRARIES),
        (["models", "push", "--help"], {"models"}, LIBRARIES),
    ],
)
def test_help_imports_only_the_command_it_is_of(arguments: list[str], imported: set[str], libraries: set[str]) -> None:
    """No module of another command, no library that takes long: a worker of `serve` pays for its own imports only."""
    code = "import sys; from nowgraph.cli import app; app(sys.argv[1:], standalone_mode=False); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120, check=True
    )
    modules = set(done.stdout.splitlines()[-1].split())
    assert all(map(find_spec, libraries))
    assert modules & libraries == set()
    commands = {f"nowgraph.commands.{name.replace('-', '_')}" for name in SHORT_HELP}
    assert modules & commands == {f"nowgraph.commands.{name}" for name in imported}


def test_the_list_of_commands_says_of_each_what_its_own_help_begins_with() -> None:
    """The line that is there without the command's module is the first paragraph of the help in the module."""
    group: Any = typer.main.get_group(app)
    assert {name: command.help.partition("\n\n")[0] for name, command in group.commands.items()} == SHORT_HELP


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("nowgraph dem", ["demo", "demo-rank"]),
        ("nowgraph models pr", ["promote"]),
        ("nowgraph serve --wo", ["--workers"]),
    ],
)
def test_a_shell_completes_commands_and_what_is_theirs(typed: str, offered: list[str]) -> None:
    """Names of commands from the list; commands of commands and options from the command's module."""
    told = {"_NOWGRAPH_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    result = CliRunner(env=told).invoke(app, prog_name="nowgraph")
    assert result.stdout.split() == offered


def test_the_client_is_imported_when_it_is_asked_for() -> None:
    """`nowgraph.Client` is there, and a name that is not raises AttributeError as any module does."""
    from nowgraph.client import AsyncClient, Client

    assert nowgraph.Client is Client
    assert nowgraph.AsyncClient is AsyncClient
    assert not hasattr(nowgraph, "Nothing")
