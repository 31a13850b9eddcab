from __future__ import annotations

from graph_transformer.encoding.layout import Layout, PathLayout


def test_paths_come_by_what_they_tell_and_how_often() -> None:
    """Paths with outcomes and other paths of events, each by falling share; never the seed's own, nor OTHER."""
    paths = (
        PathLayout(0, 0, timed=True, states=3),
        PathLayout(1, 1, 0.1),
        PathLayout(2, 0, 0.2, timed=True, states=3),
        PathLayout(2, 0, 0.4, timed=True, states=2),
        PathLayout(2, 2, 0.3, timed=True),
        PathLayout(3, 3, timed=True),
    )
    layout = Layout(paths, (), (), (), clock_width=1, seed_width=1, counts_width=1)
    assert layout.outcome_paths == (3, 2)
    assert layout.event_paths == (4,)
