"""Anchors back from the newest complete window, and splits whose windows never reach into one another."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graph_transformer.errors import NotEnoughExamples
from graph_transformer.finetune.query import BoundQuery
from graph_transformer.finetune.query.label_table import LabelTable
from graph_transformer.finetune.query.splits import anchors_for, default_splits, event_splits, time_range
from graph_transformer.target import Kind, Target
from temporal_graph.graph import TemporalGraph
from temporal_graph.reference import ReferenceEvent
from temporal_graph.time_rule import time_us_from_datetime

Make = Callable[..., ReferenceEvent]
Bind = Callable[[str], BoundQuery]
Grown = Callable[..., TemporalGraph]
DAY_US = 86_400_000_000
WEEK = "PREDICT COUNT(orders.*, 0, 7, days) FOR EACH users.user_id"


def at(text: str) -> int:
    """Microseconds of a date and time in UTC."""
    return time_us_from_datetime(datetime.fromisoformat(text).replace(tzinfo=UTC))


def days(times: np.ndarray) -> list[str]:
    """Times as ISO texts."""
    return [str(each) for each in times.astype("datetime64[us]").astype("datetime64[m]")]


def test_the_newest_window_is_complete(bound: Bind) -> None:
    """At midnight; one microsecond of data less, and it is a day earlier."""
    first, last = at("2024-01-01"), at("2024-01-31")
    assert days(anchors_for(bound(WEEK), first, last)) == ["2024-01-03T00:00", "2024-01-10T00:00", "2024-01-17T00:00",
                                                          "2024-01-24T00:00"]  # fmt: skip
    assert days(anchors_for(bound(WEEK), first, last - 1))[-1] == "2024-01-23T00:00"
    assert days(anchors_for(bound(WEEK), at("2024-01-03"), last))[0] == "2024-01-10T00:00"  # before it nothing is known


def test_anchors_in_months_and_in_steps(bound: Bind) -> None:
    """Calendar months lie as far apart; a step may be shorter than the window; an origin sets the grid."""
    month = bound("PREDICT COUNT(orders.*, 0, 1, month) FOR EACH users.user_id")
    found = anchors_for(month, at("2024-01-01"), at("2024-05-31T12:00:00"))
    assert days(found) == ["2024-01-30T00:00", "2024-02-29T00:00", "2024-03-30T00:00", "2024-04-30T00:00"]
    found = anchors_for(bound(WEEK), at("2024-01-26"), at("2024-02-03"), 2 * DAY_US, origin_us=at("2024-01-01"))
    assert days(found) == ["2024-01-27T00:00"]
    found = anchors_for(bound(WEEK), at("2024-01-01"), at("2024-01-31"), DAY_US, anchors_max=2)
    assert days(found) == ["2024-01-23T00:00", "2024-01-24T00:00"]


def test_a_row_has_its_own_time(bound: Bind) -> None:
    """An event-level query has no anchors."""
    query = bound("PREDICT orders.fraud FOR EACH orders.order_id")
    assert len(anchors_for(query, 0, 10**15)) == 0


def labels(anchors: np.ndarray, late_us: int = 0, late_share: float = 0.0, window_us: int = 7 * DAY_US) -> LabelTable:
    """Two hundred labels at each anchor, a share of them known late."""
    anchor = np.repeat(anchors, 200)
    late = np.tile(np.arange(200) < 200 * late_share, len(anchors)) * late_us
    target = Target(Kind.BINARY, "users", event_level=False)
    return LabelTable(target, np.arange(len(anchor)), anchor, anchor + window_us + late, np.zeros(len(anchor)))


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 60), st.sampled_from([1, 2, 7, 9]), st.sampled_from([0.0, 0.005, 0.3]))
def test_no_window_reaches_into_a_later_split(bound: Bind, count: int, step: int, late_share: float) -> None:
    """Every label of a split is complete, its usual lateness included, when the next begins; or none can."""
    anchors = np.arange(count, dtype=np.int64) * step * DAY_US
    made = labels(anchors, late_us=3 * DAY_US, late_share=late_share)
    wait_us = 7 * DAY_US + (3 * DAY_US if late_share > 0.01 else 0)
    try:
        splits = default_splits(bound(WEEK), made)
    except NotEnoughExamples:
        assert count <= 2 * -(-wait_us // (step * DAY_US))
        return
    assert splits.validation is not None
    assert splits.test is not None
    assert splits.test.end_us == anchors[-1] + 1
    for earlier, later in ((splits.train, splits.validation), (splits.validation, splits.test)):
        inside = anchors[(anchors >= earlier.start_us) & (anchors < earlier.end_us)]
        assert len(inside)
        assert inside[-1] + wait_us <= later.start_us


def test_too_few_anchors_are_refused(bound: Bind) -> None:
    """Two, or many within one window; the error says what to do."""
    for anchors in (np.array([0, 7 * DAY_US]), np.arange(10) * 3_600_000_000):
        with pytest.raises(NotEnoughExamples, match=r"anchors.*shorter window.*longer history"):
            default_splits(bound(WEEK), labels(anchors))


def test_a_short_history_holds_out_less(bound: Bind) -> None:
    """Of ten anchors two days apart, two and two would leave none to train on: one and one are held out."""
    anchors = np.arange(9, dtype=np.int64) * 2 * DAY_US
    splits = default_splits(bound(WEEK), labels(np.arange(10, dtype=np.int64) * 2 * DAY_US))
    assert splits.validation is not None
    assert splits.test is not None
    assert (splits.train.start_us, splits.validation.start_us, splits.test.start_us) == (0, anchors[5], 18 * DAY_US)


def test_event_splits_leave_the_usual_delay(bound: Bind) -> None:
    """Between splits lies the delay within which 99 % of the labels become known."""
    time_us = np.sort(np.random.default_rng(3).integers(0, 100 * DAY_US, 5_000))
    delay_us = np.where(np.arange(5_000) % 500 == 0, 60, 4) * DAY_US
    splits = event_splits(time_us, time_us + delay_us)
    assert splits.validation is not None
    assert splits.test is not None
    assert splits.validation.start_us - splits.train.end_us == 4 * DAY_US
    assert splits.test.start_us - splits.validation.end_us == 4 * DAY_US
    assert (splits.test.start_us % DAY_US, splits.test.end_us) == (0, time_us[-1] + 1)
    assert 0.1 < (time_us >= splits.test.start_us).mean() < 0.2
    for known_us in (time_us + 200 * DAY_US, time_us + 90 * DAY_US):
        with pytest.raises(NotEnoughExamples, match="too late"):
            event_splits(time_us, known_us)
    with pytest.raises(NotEnoughExamples, match="too few"):
        event_splits(time_us[:2], time_us[:2])


def test_the_range_is_that_of_the_counted_rows(grown: Grown, bound: Bind, order: Make) -> None:
    """Deleted rows do not count; where none are left there is nothing to label."""
    query = bound(WEEK)
    events = [order(1, 10, user=1), order(2, 90, user=1), order(3, 99, user=1), order(3, 100, operation="delete")]
    with grown(events) as graph:
        found = time_range(graph.view(), query)
    assert found.first_us == 10
    assert found.last_us in (90, 99)
    with grown([]) as graph, pytest.raises(NotEnoughExamples, match="orders"):
        time_range(graph.view(), query)
