"""`nowgraph doctor` shows what it found, and its exit code says whether anything fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _free_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another server of this machine is no matter here."""
    monkeypatch.setenv("NOWGRAPH_SERVER_PORT", "0")
    monkeypatch.setenv("NOWGRAPH_SERVER_METRICS_PORT", "0")


def test_a_healthy_machine_exits_with_0(run_command: Callable, trained: Callable[[str], Path]) -> None:
    """A table for a person with the checkpoint's line, a document for a machine."""
    checkpoint = trained("fraud")
    assert "fraud, binary, version" in run_command("doctor", "--checkpoint", checkpoint).stdout
    document = json.loads(run_command("doctor", "--checkpoint", checkpoint, "--json").stdout)
    assert document["status"] in ("ok", "warn")
    assert {"check", "status", "found", "mend"} == set(document["findings"][0])


def test_a_failure_exits_with_1(run_command: Callable, trained: Callable[[str], Path], tmp_path: Path) -> None:
    """The line says how to mend it."""
    result = run_command("doctor", "--checkpoint", trained("fraud"), "--arena", tmp_path / "none", exit_code=1)
    assert "nowgraph update" in result.stdout


def test_a_serving_file_says_what_to_look_at(
    run_command: Callable, trained: Callable[[str], Path], tmp_path: Path
) -> None:
    """Each tenant's graph and models, under the tenant's name."""
    checkpoint = trained("fraud")
    path = tmp_path / "serving.yaml"
    path.write_text(
        "version: 1\ntenants:\n"
        f"  - {{name: north, schema: {checkpoint}/schema.yaml, arena: none, tasks: [{{checkpoint: {checkpoint}}}]}}\n"
    )
    document = json.loads(run_command("doctor", "--config", path, "--json", exit_code=1).stdout)
    statuses = {finding["check"]: finding["status"] for finding in document["findings"]}
    assert (statuses["north: checkpoint"], statuses["north: arena"]) == ("ok", "fail")
    result = run_command("doctor", "--config", path, "--checkpoint", checkpoint, exit_code=2)
    assert "--config says" in result.stderr
