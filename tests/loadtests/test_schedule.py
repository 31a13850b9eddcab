from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter, ValidationError

from loadtests.load.schedule import Arrivals

SECOND_US = 1_000_000


def times(seconds: float = 10.0, capacity_per_s: float = 400.0, seed: int = 0, **arrivals: object) -> np.ndarray:
    """Due times of arrivals as a scenario says them."""
    parsed = TypeAdapter(Arrivals).validate_python(arrivals)
    found = parsed.times_us(seconds, capacity_per_s, np.random.default_rng(seed))
    assert found.dtype == np.int64
    assert (np.diff(found) >= 0).all()
    assert not len(found) or (found[0] >= 0 and found[-1] < seconds * SECOND_US)
    return found


def per_second(found: np.ndarray, seconds: int = 10) -> np.ndarray:
    """How many are due in each second."""
    return np.bincount(found // SECOND_US, minlength=seconds)


def test_a_constant_rate_is_even() -> None:
    """The k-th request is due k / rate after the start, neither sooner nor later."""
    found = times(kind="constant", rate=250)
    assert len(found) == 2_500
    assert np.abs(found - np.arange(2_500) * 4_000).max() <= 1


def test_rates_may_be_shares_of_the_capacity() -> None:
    """Half of a capacity of 400 a second is 200 a second."""
    assert len(times(kind="constant", unit="capacity", rate=0.5)) == 2_000


def test_poisson_arrivals_come_in_bursts() -> None:
    """Gaps are exponential: their mean is 1 / rate, their deviation as large; the same seed gives the same times."""
    found = times(60.0, kind="poisson", rate=500)
    gaps_us = np.diff(found)
    assert len(found) == pytest.approx(30_000, rel=0.03)
    assert gaps_us.std() / gaps_us.mean() == pytest.approx(1.0, abs=0.03)
    assert np.array_equal(found, times(60.0, kind="poisson", rate=500))
    assert not np.array_equal(found, times(60.0, seed=1, kind="poisson", rate=500))


def test_a_ramp_rises_steadily() -> None:
    """From 100 to 300 a second over ten seconds: 110, 130, ... 290 in its seconds."""
    found = per_second(times(kind="ramp", rate_from=100, rate_to=300, even=True))
    assert np.abs(found - np.arange(110, 300, 20)).max() <= 1
    assert len(times(kind="ramp", rate_from=100, rate_to=300)) == pytest.approx(2_000, rel=0.1)


def test_a_spike_has_edges() -> None:
    """The peak holds from its first to its last moment, and the base before and after."""
    found = per_second(times(kind="spike", base=100, peak=500, start_s=4, lasts_s=2, even=True))
    assert np.abs(found - [100, 100, 100, 100, 500, 500, 100, 100, 100, 100]).max() <= 1
    with pytest.raises(ValueError, match="ends after 11 s"):
        times(kind="spike", base=100, peak=500, start_s=9, lasts_s=2)


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """An hour's events with a rhythm, out of order, one of them unknown, as timestamps and as integers."""
    start = datetime(2024, 5, 1, 12, tzinfo=UTC)
    moments = [start + timedelta(seconds=n) for n in (0, 1, 1, 5, 9, 600)]
    moments.reverse()
    micros = [round(moment.timestamp() * SECOND_US) for moment in moments]
    table = {"at": pa.array([None, *moments], pa.timestamp("ms", "UTC")), "at_us": [None, *micros], "name": ["a"] * 7}
    pq.write_table(pa.table(table), tmp_path / "events.parquet")
    return tmp_path / "events.parquet"


@pytest.mark.parametrize("column", ["at", "at_us"])
def test_a_recording_is_replayed_as_it_was(recorded: Path, column: str) -> None:
    """The gaps are those of the recording, cut at the run's end; twice the speed halves them."""
    replay = {"kind": "replay", "path": recorded, "column": column}
    assert times(**replay).tolist() == [0, SECOND_US, SECOND_US, 5 * SECOND_US, 9 * SECOND_US]
    assert times(2.0, speed=2, **replay).tolist() == [0, SECOND_US // 2, SECOND_US // 2]


def test_a_replay_begins_where_it_is_told(recorded: Path) -> None:
    """An hour out of a longer recording: silence before its first event is kept."""
    start = datetime(2024, 5, 1, 12, 0, 4, tzinfo=UTC)
    found = times(kind="replay", path=recorded, column="at", start=start)
    assert found.tolist() == [SECOND_US, 5 * SECOND_US]


def test_what_is_no_recording_is_refused(recorded: Path, tmp_path: Path) -> None:
    """A missing file, a missing column, one without times, and a start after the end each say so."""
    for change, words in (
        ({"path": tmp_path / "none.parquet"}, r"none\.parquet"),
        ({"column": "other"}, "other"),
        ({"column": "name"}, "not a timestamp"),
        ({"start": datetime(2030, 1, 1, tzinfo=UTC)}, "no times"),
    ):
        with pytest.raises(ValueError, match=words):
            times(**{"kind": "replay", "path": recorded, "column": "at", **change})


def test_a_wrong_schedule_names_its_key() -> None:
    """An unknown kind, a rate of nothing and a key that is not of this kind are refused."""
    for wrong in ({"kind": "weekly"}, {"kind": "constant", "rate": 0}, {"kind": "poisson", "rate": 1, "peak": 2}):
        with pytest.raises(ValidationError):
            times(**wrong)
    with pytest.raises(ValueError, match="at most"):
        times(86_400, kind="constant", rate=1e6)
