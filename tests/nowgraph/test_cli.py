"""The installed command: what it prints, where, and with which exit code."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nowgraph


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


def test_the_command_starts_without_loading_the_model() -> None:
    """Asking for help or checking a schema does not import torch: it would take seconds."""
    code = "import sys, nowgraph, nowgraph.cli; sys.exit('torch' in sys.modules or 'grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_the_client_is_imported_when_it_is_asked_for() -> None:
    """`nowgraph.Client` is there, and a name that is not raises AttributeError as any module does."""
    from nowgraph.client import AsyncClient, Client

    assert nowgraph.Client is Client
    assert nowgraph.AsyncClient is AsyncClient
    assert not hasattr(nowgraph, "Nothing")
