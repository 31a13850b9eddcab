"""Log lines go to standard error, from the level that was asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import structlog

from nowgraph.logs import configure_logs


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def test_lines_are_json_on_standard_error_from_the_level_on(capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe gets one JSON object a line; what is below the level is not written."""
    configure_logs("warning")
    log = structlog.get_logger("x")
    log.info("hidden")
    log.warning("shown", table="payments")
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    found = json.loads(line)
    assert (found["event"], found["level"], found["table"]) == ("shown", "warning", "payments")
