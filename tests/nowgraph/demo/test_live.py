"""The live picture is readable on a terminal, in a pipe, and silent when asked."""

from __future__ import annotations

import io
import math
from dataclasses import replace

from rich.console import Console

from nowgraph.demo.live import Moment, Picture, phase

MOMENT = Moment(
    clock_us=1_533_686_400_000_000,
    scored=1200,
    applied=2400,
    scores_per_s=300.0,
    events_per_s=600.0,
    visible_ms_p50=2.0,
    visible_ms_p99=8.0,
    score_ms_p50=3.1,
    score_ms_p99=9.9,
    labels_known=0,
    frauds_known=0,
    graph_ap=math.nan,
    alone_ap=math.nan,
)


def _shown(*, terminal: bool, show: bool = True) -> str:
    out = io.StringIO()
    picture = Picture(Console(file=out, force_terminal=terminal, width=120), show=show)
    with picture.running():
        if picture.due():
            picture.draw(MOMENT)
        picture.draw(replace(MOMENT, graph_ap=0.7, alone_ap=0.1, frauds_known=55))
    with phase(picture, "Training", lambda: "done well"):
        pass
    return out.getvalue()


def test_a_pipe_gets_plain_lines() -> None:
    """One line a moment, with every figure and no control codes; what is not known yet is a dash."""
    text = _shown(terminal=False)
    assert "\x1b" not in text
    first, second = text.splitlines()[:2]
    assert "2018-08-08 00:00" in first
    assert "AP - with the graph, - without" in first
    assert "AP 0.7 with the graph, 0.1 without" in second
    assert "visible 2.0/8.0 ms" in second
    assert "done well" in text


def test_a_terminal_gets_a_table() -> None:
    """The same figures in a table that stays when the play is over."""
    text = _shown(terminal=True)
    assert "\x1b" in text
    for word in ("event to visible", "score over gRPC", "AP so far, with the graph", "1,200"):
        assert word in text


def test_nothing_is_shown_when_nothing_was_asked_for() -> None:
    """Machines that read JSON get no pictures, and nothing is computed for them."""
    assert _shown(terminal=True, show=False) == ""
    assert not Picture(Console(file=io.StringIO()), show=False).due()


def test_moments_are_not_due_all_the_time() -> None:
    """Right after a picture the next is not due: average precision costs time that the scores need."""
    picture = Picture(Console(file=io.StringIO()), show=True)
    assert picture.due()
    picture.draw(MOMENT)
    assert not picture.due()
