from __future__ import annotations

import numpy as np

from graph_transformer.encoding.clock import CALENDAR_WIDTH, DAY_US, YEAR_US, calendar, clock, log_age
from graph_transformer.encoding.quantile import Bins
from temporal_graph.time_rule import ALWAYS_US

BINS = Bins([tuple(np.linspace(0.0, 1.2, 17))])
NONE = np.empty(0, dtype=np.int64)
SEASON = [1, 7, 4, 9]
DAY_AND_WEEK = [0, 2, 3, 5, 6, 8, 10]
SATURDAY_US = 2 * DAY_US  # 1970-01-03


def test_age_is_counted_from_the_event() -> None:
    """A row that happened three days before the cut-off is three days old."""
    cutoff = np.array([10 * DAY_US])
    _, days, _ = clock(cutoff - 3 * DAY_US, cutoff, BINS, NONE)
    assert days.tolist() == [3.0]


def test_a_row_without_time_has_its_flag_and_nothing_else() -> None:
    """ALWAYS_US gives the flag, zeros, and no overflow on the way."""
    with np.errstate(all="raise"):
        features, days, _ = clock(np.array([ALWAYS_US, DAY_US]), np.array([DAY_US, DAY_US]), BINS, NONE)
    assert features[0].tolist() == [1.0] + [0.0] * (features.shape[1] - 1)
    assert features[1, 0] == 0.0
    assert days.tolist() == [0.0, 0.0]


def test_an_event_to_come_is_of_no_age_and_says_how_far_ahead_it_is() -> None:
    """A seed lies one microsecond behind its own cut-off and is not ahead; a race of next week is, by a week."""
    events = np.array([DAY_US + 1, 8 * DAY_US, -6 * DAY_US])
    features, days, _ = clock(events, np.array([DAY_US] * 3), BINS, NONE)
    assert days.tolist() == [0.0, 0.0, 7.0]
    assert features[:, 1].tolist() == [0.0, 1.0, 0.0]
    assert features[1, 2] == -features[2, 2] < 0.0


def test_calendar_repeats_after_a_week_and_not_after_a_day() -> None:
    """The same hour a week later reads the same but for the season, a day later it does not."""
    out = np.empty((3, CALENDAR_WIDTH), dtype=np.float32)
    calendar(np.array([0, 7 * DAY_US, DAY_US]) + 5_000_000, out)
    assert np.allclose(out[0, DAY_AND_WEEK], out[1, DAY_AND_WEEK], atol=1e-6)
    assert not np.allclose(out[0, DAY_AND_WEEK], out[2, DAY_AND_WEEK], atol=1e-2)


def test_seasons_repeat_after_a_year_and_not_after_half_of_one() -> None:
    """Forty years later the season is the same to a thousandth; half a year later one of its harmonics is opposite."""
    out = np.empty((3, CALENDAR_WIDTH), dtype=np.float32)
    calendar(DAY_US + np.array([0, 40 * YEAR_US, YEAR_US // 2]), out)
    assert np.allclose(out[0, SEASON], out[1, SEASON], atol=1e-3)
    assert np.allclose(out[0, SEASON], [-1, 1, -1, 1] * out[2, SEASON], atol=1e-3)


def test_weekend_is_saturday_and_sunday() -> None:
    """The flag turns on with Saturday's first microsecond and off with Monday's."""
    at = SATURDAY_US + np.array([-1, 0, 2 * DAY_US - 1, 2 * DAY_US])
    out = np.empty((4, CALENDAR_WIDTH), dtype=np.float32)
    calendar(at, out)
    assert out[:, -1].tolist() == [0.0, 1.0, 1.0, 0.0]


def test_times_before_the_epoch_are_ordinary() -> None:
    """1969 has days and weeks like any other year."""
    out = np.empty((1, CALENDAR_WIDTH), dtype=np.float32)
    calendar(np.array([-3 * 7 * DAY_US]), out)
    again = np.empty_like(out)
    calendar(np.array([0]), again)
    assert np.allclose(out[:, DAY_AND_WEEK], again[:, DAY_AND_WEEK], atol=1e-6)


def test_log_age_rises_with_age() -> None:
    """Seconds, days and years keep their order and lie between 0 and about 1.3."""
    ages = log_age(np.array([0, 1_000_000, DAY_US, 365 * DAY_US, 3650 * DAY_US]))
    assert ages[0] == 0.0
    assert (np.diff(ages) > 0).all()
    assert ages[-1] < 1.3


def test_the_times_asked_about_have_the_calendar_of_rows_at_those_times() -> None:
    """A seed asked about at a time, and a row that happened then, read the same day, week and season."""
    time = np.array([123 * DAY_US + 5])
    features, _, dates = clock(time, time, BINS, time)
    assert np.array_equal(features[:, -CALENDAR_WIDTH:], dates)
