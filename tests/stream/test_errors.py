from __future__ import annotations

import pytest

from stream import errors


def test_a_gap_says_where_and_what_is_missing() -> None:
    """The error names topic, partition and both offsets, in its text and as attributes."""
    error = errors.GapError("payments", 2, 10, 15)
    assert (error.topic, error.partition, error.expected_offset, error.found_offset) == ("payments", 2, 10, 15)
    assert str(error) == "payments[2]: expected offset 10, but the next one is 15: records are lost"
    assert "no longer has it" in str(errors.GapError("payments", 2, 10, -1))


@pytest.mark.parametrize("kind", [errors.ConfigurationError, errors.SourceError, errors.DeliveryError])
def test_all_errors_have_one_root(kind: type[errors.StreamError]) -> None:
    """Who wants to catch whatever the stream raises catches StreamError."""
    assert issubclass(kind, errors.StreamError)
    assert issubclass(errors.GapError, errors.SourceError)
