"""Which times train, choose, refit and measure: intervals of event times, or of the times entities are asked at.

Times are ISO dates or date-times (UTC); an interval holds its start and not its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from itertools import pairwise
from typing import Any

from graph_transformer.errors import TaskError
from temporal_graph.time_rule import time_us_from_datetime

NAMES = ("train", "validation", "refit", "test")


@dataclass(frozen=True, slots=True)
class Interval:
    """Times from `start_us` to before `end_us`."""

    start_us: int
    end_us: int


NEVER = Interval(0, 0)
"""An interval that holds nothing: of splits whose intervals come from elsewhere."""


@dataclass(frozen=True, slots=True)
class Splits:
    """Which examples train, choose, refit and measure, by their time.

    A label counts for training only if it is visible by the time that training stands for: the start of `validation`
    for `train` where there is one, `known_by` otherwise and for `refit` (the same recipe again on later rows, for as
    many steps as validation chose). `known_by` defaults to the start of `test`. Validation labels too must be visible
    by `known_by`. `frozen`: the test split is asked of a graph that ended then, however late the question.
    """

    train: Interval
    validation: Interval | None = None
    refit: Interval | None = None
    test: Interval | None = None
    known_by_us: int | None = None
    frozen_us: int | None = None

    @property
    def trained_by_us(self) -> int | None:
        """The time the finished model stands for; None: everything in the graph is known."""
        return self.known_by_us if self.known_by_us is not None else (self.test.start_us if self.test else None)

    def refitted(self) -> Splits:
        """Return the splits with a refit on all that trains and chooses; the same where nothing chooses or measures."""
        if self.validation is None or self.test is None:
            return self
        return replace(self, refit=Interval(self.train.start_us, self.validation.end_us))

    def to_dict(self) -> dict[str, Any]:
        """Return the form `splits_from_dict` reads."""
        values: dict[str, Any] = {
            name: {"start": iso_time(interval.start_us), "end": iso_time(interval.end_us)}
            for name in NAMES
            if (interval := getattr(self, name)) is not None
        }
        for name, time_us in (("known_by", self.known_by_us), ("frozen", self.frozen_us)):
            if time_us is not None:
                values[name] = iso_time(time_us)
        return values


def splits_from_dict(values: object, *, partial: bool = False) -> Splits:
    """Build from plain values; with `partial` the intervals may be left out, as files of labels give them.

    Raises:
        TaskError: a key is unknown, a time none, or the intervals do not follow each other.
    """
    known = (*NAMES, "known_by", "frozen")
    if not isinstance(values, Mapping):
        raise TaskError("splits", "a mapping", values)
    for name in values:
        if name not in known:
            raise TaskError(f"splits.{name}", f"one of {', '.join(known)}", name)
    if values.get("train") is None and not partial:
        raise TaskError("splits.train", "an interval {start, end}", None)
    intervals = {name: _interval(f"splits.{name}", values[name]) for name in NAMES if values.get(name) is not None}
    times = {
        f"{name}_us": parse_time(f"splits.{name}", values[name])
        for name in ("known_by", "frozen")
        if values.get(name) is not None
    }
    splits = Splits(**{"train": NEVER, **intervals}, **times)  # type: ignore[arg-type]
    _check_order(splits, intervals, values)
    return splits


def _check_order(splits: Splits, intervals: Mapping[str, Interval], values: Mapping[str, Any]) -> None:
    order = [name for name in ("train", "validation", "test") if name in intervals]
    for earlier, later in pairwise(order):
        if intervals[later].start_us < intervals[earlier].end_us:
            raise TaskError(f"splits.{later}.start", f"a time at or after the end of {earlier}", values[later])
    if splits.train != NEVER:
        check_refit(splits)
    if splits.test is not None and (splits.known_by_us or 0) > splits.test.start_us:
        raise TaskError("splits.known_by", "a time at or before the start of test", values["known_by"])


def check_refit(splits: Splits) -> None:
    """Raise TaskError where the refit has no validation to choose its steps, or reaches into the test."""
    refit = splits.refit
    if refit is None:
        return
    if splits.validation is None:
        raise TaskError("splits.refit", "a validation split, which chooses the steps", iso_time(refit.start_us))
    if splits.test is not None and refit.end_us > splits.test.start_us:
        raise TaskError("splits.refit.end", "a time at or before the start of test", iso_time(refit.end_us))


def _interval(path: str, value: object) -> Interval:
    if not isinstance(value, Mapping) or set(value) != {"start", "end"}:
        raise TaskError(path, "an interval {start, end}", value)
    interval = Interval(parse_time(f"{path}.start", value["start"]), parse_time(f"{path}.end", value["end"]))
    if interval.end_us <= interval.start_us:
        raise TaskError(f"{path}.end", "a time after the start", value["end"])
    return interval


def parse_time(path: str, value: object) -> int:
    """Return the microseconds of an ISO date or date-time, in UTC unless it says otherwise; raises TaskError."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise TaskError(path, "an ISO date or date-time", value) from None
    if isinstance(value, datetime):
        return time_us_from_datetime(value)
    if isinstance(value, date):
        return time_us_from_datetime(datetime(value.year, value.month, value.day, tzinfo=UTC))
    raise TaskError(path, "an ISO date or date-time", value)


def iso_time(time_us: int) -> str:
    """Return the time as ISO 8601 with its offset; `parse_time` reads it back exactly."""
    seconds, micros = divmod(time_us, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=micros).isoformat()
