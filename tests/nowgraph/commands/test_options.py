"""Options mean the same in every command that has them."""

from __future__ import annotations

from collections.abc import Callable


def test_shared_options_have_one_name_everywhere(run_command: Callable) -> None:
    """--schema, --bootstrap-servers, --arena and --json are called that wherever they occur."""
    expected = {
        ("update",): ("--schema", "--arena", "--bootstrap-servers", "--history", "--json", "--quiet"),
        ("serve",): ("--schema", "--arena", "--bootstrap-servers", "--history", "--json", "--quiet"),
        ("train",): ("--schema", "--arena", "--history", "--json", "--quiet"),
        ("replay",): ("--schema", "--arena", "--bootstrap-servers", "--json", "--quiet"),
        ("dead-letters", "list"): ("--bootstrap-servers", "--json"),
        ("dead-letters", "redrive"): ("--bootstrap-servers", "--json"),
        ("demo",): ("--json",),
    }
    for command, options in expected.items():
        shown = run_command(*command, "--help").stdout
        missing = [option for option in options if option not in shown]
        assert not missing, (command, missing)
