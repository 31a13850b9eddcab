"""The updater's limits are checked when they are made."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from graph_updater.settings import UpdaterSettings


def test_settings_come_from_the_environment_and_are_then_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """NOWGRAPH_UPDATER_* is read, what is given wins, and nothing changes afterwards."""
    monkeypatch.setenv("NOWGRAPH_UPDATER_POLL_RECORDS_MAX", "77")
    assert UpdaterSettings().poll_records_max == 77
    settings = UpdaterSettings(poll_records_max=5)
    assert settings.poll_records_max == 5
    with pytest.raises(ValidationError):
        settings.poll_records_max = 6  # type: ignore[misc]


def test_limits_that_make_no_sense_are_refused() -> None:
    """Zero records, no time, and thresholds that would flap."""
    for wrong in (
        {"poll_records_max": 0},
        {"poll_timeout_s": 0},
        {"behind_enter_records": 5, "behind_leave_records": 5},
    ):
        with pytest.raises(ValidationError):
            UpdaterSettings(**wrong)  # type: ignore[arg-type]
