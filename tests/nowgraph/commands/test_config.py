"""`nowgraph config check` says what is wrong with a file, and its exit code whether anything is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path


def test_a_file_that_can_be_used_is_named_as_what_it_is(run_command: Callable, example: Path) -> None:
    """0, and one line for a person; a machine reads that there is no problem."""
    assert run_command("config", "check", example / "schema.yaml").stdout.endswith("is a valid schema file\n")
    document = json.loads(run_command("config", "check", example / "schema.yaml", "--json").stdout)
    assert (document["kind"], document["ok"], document["problems"]) == ("schema", True, [])


def test_problems_are_listed_by_their_keys(run_command: Callable, tmp_path: Path) -> None:
    """1, a table for a person, the same as JSON."""
    path = tmp_path / "serving.yaml"
    path.write_text("{version: 1, tenants: [{schema: a, arena: b, tasks: [{checkpoint: c, share: 1}]}]}")
    shown = run_command("config", "check", path, exit_code=1).stdout
    assert "tenants[0].tasks[0].share" in shown
    document = json.loads(run_command("config", "check", path, "--json", exit_code=1).stdout)
    assert document["ok"] is False
    assert document["problems"][0] == {"path": "tenants[0].tasks[0].share", "message": "there is no such key"}


def test_a_kind_that_nobody_knows_is_refused(run_command: Callable, example: Path) -> None:
    """2, with those that there are."""
    result = run_command("config", "check", example / "schema.yaml", "--kind", "recipe", exit_code=2)
    assert "expected one of serving, schema, plan, task, access, degraded" in result.stderr
