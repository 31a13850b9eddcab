"""When entities are asked, and which of those times train, choose and measure: always the past for the future.

    times of the rows ─► anchors, a window apart, back from the newest whose window is complete ─► splits

No training label's window reaches into validation, no validation label's into test; where labels come late, a gap of
that delay keeps what is not known yet out as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graph_transformer.errors import NotEnoughExamples
from graph_transformer.finetune.query.bound import BoundQuery
from graph_transformer.finetune.query.calendar import DAY_US, floored, horizon_bound_us, shifted_time
from graph_transformer.finetune.query.label_table import LabelTable
from graph_transformer.finetune.query.rows import RowSource
from graph_transformer.finetune.query.syntax import Aggregation, Unit, Window, operands_of
from graph_transformer.splits import Interval, Splits
from temporal_graph.time_rule import ALWAYS_US

Int64 = NDArray[np.int64]

ANCHORS_MAX = 1_000
"""Anchors that are made unless the caller gives his own; the newest are kept."""
HELD_OUT_SHARE = 0.15
"""Of the anchors, or of event-level labels, in the test split, and in validation."""
DELAY_QUANTILE = 0.99
"""The share of labels that must be known within the gap between splits."""
_TOO_LATE = "labels become known too late to be split by time; load a longer history, or give splits in a task file"
_MORE_ANCHORS = "ask over a shorter window, or load a longer history"
DAYS_FOR_MIDNIGHT = 30
"""Splits of a history at least this long begin at midnight."""


@dataclass(frozen=True, slots=True)
class TimeRange:
    """The first and the last event time of the rows that labels come from."""

    first_us: int
    last_us: int


def time_range(source: RowSource, bound: BoundQuery) -> TimeRange:
    """Return when the rows that the target counts happened; of several tables the times that all of them cover.

    Raises:
        NotEnoughExamples: they have no rows with a time.
    """
    operands = [*operands_of(bound.query.target)]
    tables = {bound.aggregations[each].table for each in operands if isinstance(each, Aggregation)} or {bound.entity}
    ranges = []
    for table in sorted(tables):
        versions = source.versions(table)
        timed = versions.event_time_us if bound.entity != table or bound.event_level else versions.valid_from_us
        timed = timed[(timed != ALWAYS_US) & ~versions.deleted]
        if not len(timed):
            raise NotEnoughExamples(f"{table}: no rows with a time to make labels of")
        ranges.append(TimeRange(int(timed.min()), int(timed.max())))
    return TimeRange(min(each.first_us for each in ranges), min(each.last_us for each in ranges))


def anchors_for(
    bound: BoundQuery,
    first_us: int,
    last_us: int,
    step_us: int | None = None,
    *,
    origin_us: int | None = None,
    anchors_max: int = ANCHORS_MAX,
) -> Int64:
    """Return int64: anchor times, ascending, the newest being the last whose windows end by `last_us`.

    They lie a window apart (calendar months where the window is in months) or `step_us`, and after `first_us`: before
    it nothing is known. The newest begins at a whole unit of the window (a day for weeks and months), or whole steps
    from `origin_us`. At most `anchors_max`, the newest. None for an event-level query: each row has its own time.
    """
    if bound.event_level:
        return np.empty(0, dtype=np.int64)
    window = _longest(bound)
    newest_us = shifted_time(last_us, -window.end, window.unit)
    while _end_us(bound, newest_us) > last_us:  # a month back and forth is not always the same day
        newest_us -= DAY_US
    if origin_us is None:
        newest_us = floored(newest_us, window.unit)
    else:
        step_us = horizon_bound_us(window) if step_us is None else step_us
        newest_us -= (newest_us - origin_us) % step_us
    found: list[int] = []
    time_us = newest_us
    while time_us > first_us and len(found) < anchors_max:
        found.append(time_us)
        if step_us is not None:
            time_us -= step_us
        else:
            time_us = shifted_time(newest_us, -window.end * len(found), window.unit)
    return np.array(found[::-1], dtype=np.int64)


def default_splits(bound: BoundQuery, labels: LabelTable) -> Splits:
    """Return which times train, validate and test: the newest measure, those before them choose, the oldest train.

    Where windows are long beside the history, fewer anchors than usual measure and choose, so that some are left to
    train.

    Raises:
        NotEnoughExamples: there are fewer than three anchors, or no times to leave a gap between.
    """
    if bound.event_level:
        return event_splits(labels.anchor_time_us, labels.known_time_us)
    anchors = np.unique(labels.anchor_time_us)
    if len(anchors) < 3:
        raise NotEnoughExamples(f"{len(anchors)} anchors: training, validation and test need one each; {_MORE_ANCHORS}")
    # Beyond its windows' end a label may wait for what is reported late: most of that, too, must be in.
    end_us = np.array([_end_us(bound, each) for each in anchors.tolist()], dtype=np.int64)
    late_us = labels.known_time_us - end_us[np.searchsorted(anchors, labels.anchor_time_us)]
    complete_us = end_us + int(np.quantile(np.maximum(late_us, 0), DELAY_QUANTILE, method="higher"))
    for held_out in range(max(1, round(len(anchors) * HELD_OUT_SHARE)), 0, -1):
        test = anchors[-held_out:]
        before_test = anchors[:-held_out][complete_us[:-held_out] <= test[0]]
        validation = before_test[-held_out:]
        train = anchors[complete_us <= validation[0]] if len(validation) else validation
        if len(train):
            return Splits(train=_spanned(train), validation=_spanned(validation), test=_spanned(test))
    days = int((anchors[-1] - anchors[0]) // DAY_US)
    raise NotEnoughExamples(
        f"{len(anchors)} anchors in {days} days: too few for three splits whose windows do not overlap; {_MORE_ANCHORS}"
    )


def _spanned(anchors: Int64) -> Interval:
    return Interval(int(anchors[0]), int(anchors[-1]) + 1)


def event_splits(event_time_us: Int64, known_time_us: Int64) -> Splits:
    """Return splits of labels by their rows' event times (int64 [n] each), a label's usual delay apart.

    Raises:
        NotEnoughExamples: there are too few, or they become known too late.
    """
    time_us = np.sort(event_time_us)
    if len(time_us) < 3:
        raise NotEnoughExamples(f"{len(time_us)} labels: too few for training, validation and test; load more history")
    delay_us = np.maximum(known_time_us - event_time_us, 0)
    gap_us = int(np.quantile(delay_us, DELAY_QUANTILE, method="higher"))
    whole_us = DAY_US if time_us[-1] - time_us[0] >= DAYS_FOR_MIDNIGHT * DAY_US else 1
    # The rows in a gap belong to no split, so shares are taken of what is left.
    test_us = int(time_us[int(len(time_us) * (1 - HELD_OUT_SHARE))]) // whole_us * whole_us
    usable = time_us[time_us < test_us - gap_us]
    if not len(usable):
        raise NotEnoughExamples(_TOO_LATE)
    validation_us = int(usable[int(len(usable) * (1 - HELD_OUT_SHARE))]) // whole_us * whole_us
    train = usable[usable < validation_us - gap_us]
    if not len(train):
        raise NotEnoughExamples(_TOO_LATE)
    return Splits(
        train=Interval(int(train[0]) // whole_us * whole_us, validation_us - gap_us),
        validation=Interval(validation_us, test_us - gap_us),
        test=Interval(test_us, int(time_us[-1]) + 1),
    )


def _longest(bound: BoundQuery) -> Window:
    """The window that ends last; of a query without any, a day."""
    probe_us = 0
    return max(
        bound.windows,
        key=lambda window: shifted_time(probe_us, window.end, window.unit),
        default=Window(0, 1, Unit.DAYS),
    )


def _end_us(bound: BoundQuery, time_us: int) -> int:
    """When the last of the windows that a label at this anchor waits for ends."""
    return max((shifted_time(time_us, each.end, each.unit) for each in bound.windows), default=time_us)
