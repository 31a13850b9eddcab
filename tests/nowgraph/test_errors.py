"""Errors that a user can mend are one line; defects are not hidden."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from graph_transformer.errors import QueryError
from graph_updater.settings import UpdaterSettings
from nowgraph.errors import UsageError, explain
from temporal_graph.errors import SchemaError


def test_our_own_errors_are_one_line() -> None:
    """Whatever a package of ours raises is said in one line, however many it was written in."""
    line = explain(SchemaError("tables.a", "a mapping", None))
    assert line is not None
    assert "tables.a" in line
    assert explain(UsageError("one\n  two")) == "one two"


def test_an_error_that_shows_a_place_keeps_its_lines() -> None:
    """What is wrong with a query is said with its line and a mark under the place."""
    error = QueryError("PREDICT x", 8, expected="a table", found="'x'")
    assert (explain(error) or "").split("\n")[1:] == ["  PREDICT x", "          ^"]


def test_files_and_settings_are_named() -> None:
    """A file that cannot be opened is named; a setting that is wrong is named with what is wrong about it."""
    with pytest.raises(OSError, match="nowhere") as missing:
        Path("nowhere.yaml").read_text()
    assert explain(missing.value) == "nowhere.yaml: No such file or directory"
    with pytest.raises(ValidationError) as wrong:
        UpdaterSettings(poll_records_max=0)
    assert "poll_records_max" in (explain(wrong.value) or "")


def test_a_defect_keeps_its_traceback() -> None:
    """What nobody foresaw is not explained away."""
    assert explain(ZeroDivisionError("x")) is None
    assert explain(ValueError("x")) is None
    assert explain(OSError("no file in it")) is None
