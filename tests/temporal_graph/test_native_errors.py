"""The native core's refusals are this package's errors, each its own."""

from __future__ import annotations

import pytest

from temporal_graph import _native
from temporal_graph.errors import ArenaError, ArenaFullError, ImageRefusedError, TemporalGraphError
from temporal_graph.native_errors import translated


@pytest.mark.parametrize(
    ("native", "expected"),
    [
        (_native.ArenaFull, ArenaFullError),
        (_native.ArenaRefused, ArenaError),
        (_native.ImageRefused, ImageRefusedError),
    ],
)
def test_each_refusal_has_its_error(native: type[Exception], expected: type[TemporalGraphError]) -> None:
    """With the same words; what is nobody's refusal passes as it is."""
    with pytest.raises(expected, match="no room") as raised, translated():
        raise native("no room")
    assert type(raised.value) is expected
    with pytest.raises(KeyError), translated():
        raise KeyError("other")
