"""The time rule: both sides of both clocks, at one microsecond."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from online_sampler import Sampler, SamplingPlan
from protos.nowgraph.v1 import row_event_pb2 as pb
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import parse_schema
from temporal_graph.time_rule import (
    ALWAYS_US,
    TIME_MAX_US,
    cutoff_for_event,
    datetime_from_time_us,
    is_visible,
    time_us_from_datetime,
    time_us_from_numpy,
    visible_time_us,
)

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure

TIMES = st.one_of(
    st.integers(ALWAYS_US, TIME_MAX_US), st.integers(-3, 3), st.sampled_from([ALWAYS_US, ALWAYS_US + 1, TIME_MAX_US])
)


@pytest.mark.parametrize(("event", "known"), [(1_000, 1_000), (1_000, 700), (700, 1_000)])
def test_visible_from_the_later_clock_on(event: int, known: int) -> None:
    """A row is visible at a cut-off equal to the later of its clocks and hidden one microsecond before."""
    assert visible_time_us(event, known) == 1_000
    assert is_visible(event, known, 1_000)
    assert not is_visible(event, known, 999)


@UNHURRIED
@given(TIMES, TIMES, TIMES)
def test_one_comparison(event: int, known: int, cutoff: int) -> None:
    """Visible means that both clocks have passed, whatever the int64 values, also at their ends."""
    assert is_visible(event, known, cutoff) == (event <= cutoff and known <= cutoff)


@UNHURRIED
@given(st.lists(st.tuples(TIMES, TIMES, TIMES), min_size=1, max_size=20))
def test_arrays_say_what_integers_say(rows: list[tuple[int, int, int]]) -> None:
    """The array form gives, element by element, what the integer form gives, in int64 and bool."""
    event, known, cutoff = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    visible = visible_time_us(event, known)
    assert visible.dtype == np.int64
    assert visible.tolist() == [visible_time_us(e, k) for e, k, _ in rows]
    shown = is_visible(event, known, cutoff)
    assert shown.dtype == np.bool_
    assert shown.tolist() == [is_visible(*row) for row in rows]


NATIVE_TIMES = TIMES.filter(lambda time: time > ALWAYS_US + 1)  # the first two are reserved for rows without time


@UNHURRIED
@given(st.lists(st.tuples(NATIVE_TIMES, NATIVE_TIMES, TIMES), min_size=1, max_size=20))
def test_the_native_core_says_the_same(rows: list[tuple[int, int, int]]) -> None:
    """A row of the native graph is shown at a cut-off exactly if this module says that it is visible."""
    schema = parse_schema("version: 1\nname: x\ntables:\n  t: {primary_key: {id: integer}, time_column: at}\n")
    events = []
    for key, (event, known, _) in enumerate(rows):
        message = pb.RowEvent(table="t", operation=pb.OPERATION_INSERT, event_time_us=event, known_time_us=known)
        message.key.parts.add(integer=key)
        events.append(message.SerializeToString())
    with TemporalGraph.create(schema, arena_bytes=16 << 20) as graph:
        assert graph.apply(events, backfill=True).applied == len(rows)
        sampler = Sampler(graph.view(), SamplingPlan.from_dict({"num_neighbors": [{"hop1": 1}]}))
        cutoffs = np.array([cutoff for _, _, cutoff in rows], dtype=np.int64)
        shown = sampler.sample_keys("t", range(len(rows)), cutoffs).version
    assert (shown >= 0).tolist() == [is_visible(*row) for row in rows]


def test_arrays_and_integers_mix() -> None:
    """One cut-off serves an array of rows, and one row an array of cut-offs."""
    event = np.array([5, 6, 7], dtype=np.int64)
    assert is_visible(event, 0, 6).tolist() == [True, True, False]
    assert is_visible(6, 6, event).tolist() == [False, True, True]
    assert visible_time_us(6, event).tolist() == [6, 6, 7]


def test_always_is_before_every_cutoff() -> None:
    """A row without time is visible at the earliest cut-off that int64 can say."""
    assert is_visible(ALWAYS_US, ALWAYS_US, ALWAYS_US)


def test_an_event_is_not_its_own_past() -> None:
    """The cut-off of an event hides the event itself and shows what was known one microsecond before it."""
    cutoff = cutoff_for_event(1_000)
    assert cutoff == 999
    assert not is_visible(1_000, 1_000, cutoff)
    assert is_visible(999, 999, cutoff)
    assert cutoff_for_event(np.array([1, 2], dtype=np.int64)).tolist() == [0, 1]


def test_no_cutoff_before_always() -> None:
    """Asking for the cut-off of an event without time fails instead of wrapping around to the far future."""
    with pytest.raises(OverflowError):
        cutoff_for_event(ALWAYS_US)
    with pytest.raises(OverflowError):
        cutoff_for_event(np.array([5, ALWAYS_US], dtype=np.int64))


@pytest.mark.parametrize(
    "wrong", [1.0, np.float64(1), True, "1", np.array([1.0]), np.array([1], dtype=np.int32), np.array([1], np.uint64)]
)
def test_never_a_float(wrong: object) -> None:
    """Anything but an integer or an int64 array is refused, in every position."""
    with pytest.raises(TypeError):
        visible_time_us(wrong, 1)  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        is_visible(1, wrong, 1)  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        is_visible(1, 1, wrong)  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        cutoff_for_event(wrong)  # type: ignore[call-overload]


@pytest.mark.parametrize("beyond", [TIME_MAX_US + 1, ALWAYS_US - 1])
def test_int64_only(beyond: int) -> None:
    """An integer that int64 cannot hold is refused instead of truncated."""
    with pytest.raises(OverflowError):
        visible_time_us(beyond, 0)


def test_numpy_integers_are_integers() -> None:
    """A scalar of an int64 array behaves as a Python integer."""
    assert visible_time_us(np.int64(3), 4) == 4  # type: ignore[call-overload]


@UNHURRIED
@given(st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone.min])))
def test_datetimes_are_exact(moment: datetime) -> None:
    """A datetime becomes microseconds without rounding, and comes back as the same instant."""
    try:
        moment.astimezone(UTC)
    except OverflowError:  # the first and last hours of the calendar have no UTC
        return
    assert datetime_from_time_us(time_us_from_datetime(moment)) == moment


def test_known_instants() -> None:
    """The epoch is 0, the microsecond before it -1, and a datetime without zone is UTC."""
    assert time_us_from_datetime(datetime(1970, 1, 1, tzinfo=UTC)) == 0
    assert time_us_from_datetime(datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)) == -1
    assert time_us_from_datetime(datetime(2018, 4, 1, 0, 0, 31)) == 1_522_540_831_000_000


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns", "D"])
def test_datetime64_of_any_unit(unit: str) -> None:
    """Arrays of every datetime64 unit give the same microseconds."""
    values = np.array(["2018-04-01", "1969-12-31"], dtype=f"datetime64[{unit}]")
    assert time_us_from_numpy(values).tolist() == [1_522_540_800_000_000, -86_400_000_000]


def test_nanoseconds_are_floored() -> None:
    """A remainder below one microsecond never makes a time earlier than its microsecond, also before the epoch."""
    values = np.array([1_999, -1], dtype="datetime64[ns]")
    assert time_us_from_numpy(values).tolist() == [1, -1]


def test_missing_times_are_refused() -> None:
    """NaT does not become a number, and an array of numbers is not taken for times."""
    with pytest.raises(ValueError, match="NaT"):
        time_us_from_numpy(np.array(["2018-04-01", "NaT"], dtype="datetime64[us]"))
    with pytest.raises(TypeError):
        time_us_from_numpy(np.array([1.5e15]))
