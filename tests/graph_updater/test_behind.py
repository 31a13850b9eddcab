"""The switch for being behind has two thresholds."""

from __future__ import annotations

import pytest

from graph_updater.behind import Behind


def test_it_turns_on_at_the_upper_threshold_and_off_only_at_the_lower() -> None:
    """Between the thresholds it stays as it was, on the way up and on the way down."""
    behind = Behind(100, 10)
    assert [behind.update(lag) for lag in (0, 99, 100, 50, 11, 10, 99)] == [
        False,
        False,
        True,
        True,
        True,
        False,
        False,
    ]
    assert not behind


def test_thresholds_that_would_flap_are_refused() -> None:
    """The lower threshold must be below the upper."""
    with pytest.raises(ValueError, match="leave"):
        Behind(10, 10)
