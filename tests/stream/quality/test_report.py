from __future__ import annotations

from stream.quality.report import DELAY_EDGES_S


def test_edges_of_delays_rise() -> None:
    """A histogram's edges are ascending, and reach beyond any delay that a business waits for."""
    assert list(DELAY_EDGES_S) == sorted(set(DELAY_EDGES_S))
    assert DELAY_EDGES_S[-1] >= 60 * 86_400
