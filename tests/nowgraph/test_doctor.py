from __future__ import annotations

from collections.abc import Iterator

import pytest

from model_server.settings import ServerSettings
from nowgraph.doctor import Finding, Patient, Status, examine, guarded, worst
from nowgraph.errors import UsageError


def test_an_error_is_a_finding_and_stops_nothing() -> None:
    """One that the user can mend by its own words, another by its type; what was found before it stays."""

    def look(error: Exception) -> Iterator[Finding]:
        yield Finding("a", Status.OK, "fine")
        raise error

    fine, failed = guarded("a", lambda: look(UsageError("no such file")), "look again")
    assert fine.status is Status.OK
    assert failed == Finding("a", Status.FAIL, "no such file", "look again")
    assert list(guarded("a", lambda: look(ValueError("two\nlines"))))[1].found == "ValueError: two lines"


def test_the_worst_decides() -> None:
    """One failure among warnings; nothing found is fine."""
    findings = [Finding("", status, "") for status in (Status.OK, Status.WARN, Status.FAIL)]
    assert [worst(findings[:count]) for count in range(4)] == [Status.OK, Status.OK, Status.WARN, Status.FAIL]


def test_a_machine_that_runs_these_tests_can_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without files and services nothing fails here, and each thing is looked at once."""
    findings = list(examine(Patient(ServerSettings(port=0, metrics_port=0))))
    names = [finding.check for finding in findings]
    assert names[:4] == ["python", "processor", "native module", "torch"]
    assert len(names) == len(set(names))
    assert [finding for finding in findings if finding.status is Status.FAIL] == []
    assert all(finding.mend for finding in findings if finding.status is not Status.OK)
