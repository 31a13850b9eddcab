from __future__ import annotations

from datetime import UTC, datetime

import pytest

from graph_transformer.errors import TaskError
from graph_transformer.splits import Interval, Splits, iso_time, parse_time, splits_from_dict
from temporal_graph.time_rule import time_us_from_datetime

TRAIN = {"start": "2018-07-11", "end": "2018-07-18"}
LATER = {"start": "2018-07-25", "end": "2018-08-01"}
TEST = {"start": "2018-08-08", "end": "2018-08-15"}


def at(*parts: int) -> int:
    """Microseconds of a time in UTC."""
    return time_us_from_datetime(datetime(*parts, tzinfo=UTC))  # type: ignore[arg-type, misc]


def test_splits_travel_as_plain_values() -> None:
    """All four intervals and both times come back to the microsecond."""
    day = 86_400_000_000
    splits = Splits(
        train=Interval(0, day + 1),
        validation=Interval(2 * day, 3 * day),
        refit=Interval(day, 3 * day),
        test=Interval(4 * day, 5 * day),
        known_by_us=4 * day - 7,
        frozen_us=4 * day + 3,
    )
    assert splits_from_dict(splits.to_dict()) == splits
    assert splits_from_dict({"train": TRAIN}) == Splits(Interval(at(2018, 7, 11), at(2018, 7, 18)))


def test_the_model_stands_for_the_start_of_the_test_unless_told() -> None:
    """Labels count as known by the start of the test, by `known_by` where it is given, or all of them."""
    assert splits_from_dict({"train": TRAIN, "test": TEST}).trained_by_us == at(2018, 8, 8)
    assert splits_from_dict({"train": TRAIN, "test": TEST, "known_by": "2018-08-01"}).trained_by_us == at(2018, 8, 1)
    assert splits_from_dict({"train": TRAIN}).trained_by_us is None


def test_a_refit_takes_all_that_trains_and_chooses() -> None:
    """From the first training time to the end of the validation; nothing is fitted again where nothing chose."""
    splits = splits_from_dict({"train": TRAIN, "validation": LATER, "test": TEST})
    assert splits.refitted().refit == Interval(at(2018, 7, 11), at(2018, 8, 1))
    assert splits_from_dict({"train": TRAIN, "test": TEST}).refitted().refit is None


@pytest.mark.parametrize(
    ("values", "path"),
    [
        (None, "splits"),
        ([TRAIN], "splits"),
        ({}, "splits.train"),
        ({"train": "2018"}, "splits.train"),
        ({"train": {"start": "2018-07-11"}}, "splits.train"),
        ({"train": {"start": "2018-07-11", "end": "2018-07-11"}}, "splits.train.end"),
        ({"train": {"start": 3, "end": "2018-07-11"}}, "splits.train.start"),
        ({"train": TRAIN, "holdout": TEST}, "splits.holdout"),
        ({"train": LATER, "validation": TRAIN}, "splits.validation.start"),
        ({"train": TRAIN, "validation": TEST, "test": LATER}, "splits.test.start"),
        ({"train": TRAIN, "refit": LATER}, "splits.refit"),
        ({"train": TRAIN, "validation": LATER, "refit": TEST, "test": TEST}, "splits.refit.end"),
        ({"train": TRAIN, "test": TEST, "known_by": "2018-08-09"}, "splits.known_by"),
        ({"train": TRAIN, "frozen": "soon"}, "splits.frozen"),
    ],
)
def test_splits_that_do_not_follow_each_other_are_refused_with_the_key(values: object, path: str) -> None:
    """A later split that begins too early, a refit that sees the test, a time that is none: each is named."""
    with pytest.raises(TaskError) as refused:
        splits_from_dict(values)
    assert refused.value.path == path


def test_touching_intervals_share_no_time() -> None:
    """Validation may begin where training ends, and may not one microsecond before."""
    end = at(2018, 7, 18)
    assert splits_from_dict({"train": TRAIN, "validation": {"start": iso_time(end), "end": iso_time(end + 5)}})
    with pytest.raises(TaskError):
        splits_from_dict({"train": TRAIN, "validation": {"start": iso_time(end - 1), "end": iso_time(end + 5)}})


def test_times_are_read_as_they_are_written() -> None:
    """A date, a date-time, an offset and a time before 1970 mean the instants they say."""
    assert parse_time("t", "2018-07-11T12:00:00+02:00") == at(2018, 7, 11, 10)
    assert parse_time("t", datetime(2018, 7, 11, 12, tzinfo=UTC)) == at(2018, 7, 11, 12)
    assert parse_time("t", iso_time(-1)) == -1
    with pytest.raises(TaskError):
        parse_time("t", 5)
