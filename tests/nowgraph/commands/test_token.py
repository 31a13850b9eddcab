"""`nowgraph token` makes a token and the entry that lets it in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from model_server.security.access import load_access


def test_a_token_and_its_entry_fit(run_command: Callable, tmp_path: Path) -> None:
    """The entry, put into an access file, lets this token in with these roles; standard output is the token alone."""
    result = run_command("token", "--name", "checkout", "--role", "score", "--role", "rank")
    token = result.stdout.strip()
    (tmp_path / "access.yaml").write_text(f"version: 1\ntokens:\n{result.stderr}")
    caller = load_access(tmp_path / "access.yaml").by_token(token)
    assert caller is not None
    assert (caller.name, sorted(caller.roles)) == ("checkout", ["rank", "score"])
    assert token not in result.stderr


def test_no_two_are_alike_and_json_has_both(run_json: Callable) -> None:
    """Machines read one document; each run makes another token."""
    documents = [run_json("token", "--name", "a", "--role", "admin") for _ in range(2)]
    assert documents[0]["token"] != documents[1]["token"]
    assert documents[0]["entry"]["roles"] == ["admin"]


def test_an_unknown_role_is_refused(run_command: Callable) -> None:
    """With those that there are."""
    result = run_command("token", "--name", "a", "--role", "root", exit_code=2)
    assert "--role root: expected one of score, rank, ingest, inspect, admin" in result.stderr
