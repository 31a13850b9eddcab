from __future__ import annotations

import pytest
from pydantic import ValidationError

from stream.quality.config import QualitySettings


def test_windows_come_from_the_environment_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """NOWGRAPH_QUALITY_WINDOWS_US is a JSON list; the longest is the last."""
    monkeypatch.setenv("NOWGRAPH_QUALITY_WINDOWS_US", "[200, 100]")
    assert QualitySettings().windows_us == (100, 200)


@pytest.mark.parametrize("windows", [(), (0,), (5, 5)])
def test_windows_that_mean_nothing_are_refused(windows: tuple[int, ...]) -> None:
    """None, an empty one, or the same one twice."""
    with pytest.raises(ValidationError, match="at least one window"):
        QualitySettings(windows_us=windows)
