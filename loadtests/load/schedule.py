"""When requests are due, before anything is sent: microseconds from the start of a run, rising.

A schedule knows nothing of answers. That is what makes the loop open: a server that stalls is asked as often as before.
"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

_SECOND_US = 1_000_000
ARRIVALS_MAX = 20_000_000
"""Of one run: 24 bytes of record for each stay in a sender's memory."""


class _Arrivals(BaseModel):
    """`unit` says what the rates are: requests per second, or shares of the capacity that was measured before."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    unit: Literal["per_s", "capacity"] = "per_s"

    def per_s(self, rate: float, capacity_per_s: float) -> float:
        """A rate of the scenario in requests per second."""
        return rate * capacity_per_s if self.unit == "capacity" else rate


class Constant(_Arrivals):
    """A request each 1 / rate seconds."""

    kind: Literal["constant"]
    rate: float = Field(gt=0)

    def times_us(self, seconds: float, capacity_per_s: float, _: np.random.Generator) -> np.ndarray:
        """The due times, int64, shape (requests,)."""
        return _at_rates(np.array([0.0, seconds]), np.full(2, self.per_s(self.rate, capacity_per_s)), None)


class Poisson(_Arrivals):
    """As from very many callers who know nothing of each other: gaps are exponential, bursts happen."""

    kind: Literal["poisson"]
    rate: float = Field(gt=0)

    def times_us(self, seconds: float, capacity_per_s: float, random: np.random.Generator) -> np.ndarray:
        """The due times, int64, shape (requests,)."""
        return _at_rates(np.array([0.0, seconds]), np.full(2, self.per_s(self.rate, capacity_per_s)), random)


class Ramp(_Arrivals):
    """From one rate to another, linearly over the run; Poisson unless `even`."""

    kind: Literal["ramp"]
    rate_from: float = Field(ge=0)
    rate_to: float = Field(gt=0)
    even: bool = False

    def times_us(self, seconds: float, capacity_per_s: float, random: np.random.Generator) -> np.ndarray:
        """The due times, int64, shape (requests,)."""
        rates = np.array([self.per_s(rate, capacity_per_s) for rate in (self.rate_from, self.rate_to)])
        return _at_rates(np.array([0.0, seconds]), rates, None if self.even else random)


class Spike(_Arrivals):
    """A base rate, and from `start_s` for `lasts_s` a peak; Poisson unless `even`."""

    kind: Literal["spike"]
    base: float = Field(gt=0)
    peak: float = Field(gt=0)
    start_s: float = Field(ge=0)
    lasts_s: float = Field(gt=0)
    even: bool = False

    def times_us(self, seconds: float, capacity_per_s: float, random: np.random.Generator) -> np.ndarray:
        """The due times, int64, shape (requests,). Raises ValueError for a spike that does not end within the run."""
        end_s = self.start_s + self.lasts_s
        if end_s > seconds:
            raise ValueError(f"the spike ends after {end_s:g} s, the run after {seconds:g} s")
        base, peak = (self.per_s(rate, capacity_per_s) for rate in (self.base, self.peak))
        edges_s = np.array([0.0, self.start_s, self.start_s, end_s, end_s, seconds])
        rates = np.array([base, base, peak, peak, base, base])
        return _at_rates(edges_s, rates, None if self.even else random)


class Replay(_Arrivals):
    """The event times of a Parquet column, as they were recorded, `speed` times as fast.

    It begins at `start` (absent: with the first event) and is cut at the run's end; one that is shorter than the run
    ends it early. It says its own rate, so `unit` has no meaning for it.
    """

    kind: Literal["replay"]
    path: Path
    column: str
    start: datetime | None = None
    speed: float = Field(default=1.0, gt=0)

    def times_us(self, seconds: float, _capacity_per_s: float, _: np.random.Generator) -> np.ndarray:
        """The due times, int64, shape (requests,). Raises ValueError for a file without times in that column."""
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        try:
            column = pq.read_table(self.path, columns=[self.column]).column(self.column)
        except (OSError, KeyError, pa.ArrowInvalid) as error:
            raise ValueError(f"replay of {self.path}, column {self.column!r}: {error}") from error
        if pa.types.is_timestamp(column.type):
            column = pc.cast(column, pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64())
        elif not pa.types.is_integer(column.type):
            raise ValueError(f"replay of {self.path}: {self.column} is {column.type}, not a timestamp or microseconds")
        recorded_us = np.sort(column.drop_null().to_numpy().astype(np.int64))
        if self.start is not None:
            start = self.start if self.start.tzinfo else self.start.replace(tzinfo=UTC)
            start_us = round(start.timestamp() * _SECOND_US)
            recorded_us = recorded_us[recorded_us >= start_us]
        if not len(recorded_us):
            raise ValueError(f"replay of {self.path}: {self.column} holds no times from the start on")
        first_us = recorded_us[0] if self.start is None else start_us
        times_us = ((recorded_us - first_us) / self.speed).astype(np.int64)
        return _bounded(times_us[times_us < seconds * _SECOND_US])


Arrivals = Annotated[Constant | Poisson | Ramp | Spike | Replay, Field(discriminator="kind")]


def _at_rates(edges_s: np.ndarray, rates_per_s: np.ndarray, random: np.random.Generator | None) -> np.ndarray:
    """Arrivals at a rate that is linear between the edges: evenly, or Poisson by time change.

    With L(t) the requests expected until t, the k-th even arrival is where L reaches k. A Poisson process of rate one,
    read through the inverse of L, is a Poisson process of that rate (Cinlar, Introduction to Stochastic Processes, 4).
    """
    grid_s = np.unique(np.concatenate([np.linspace(a, b, 1_001) for a, b in pairwise(edges_s)]))
    # At a jump, the rate from there on is the one that counts; np.interp would mix the two.
    middle_s = (grid_s[1:] + grid_s[:-1]) / 2
    expected = np.concatenate([[0.0], np.cumsum(np.interp(middle_s, edges_s, rates_per_s) * np.diff(grid_s))])
    total = float(expected[-1])
    if total > ARRIVALS_MAX:
        raise ValueError(f"{total:,.0f} requests in one run; at most {ARRIVALS_MAX:,} fit")
    if random is None:
        reached = np.arange(int(round(total, 6)), dtype=np.float64)
    else:
        count = int(total + 10 * np.sqrt(total) + 10)
        reached = np.cumsum(random.exponential(1.0, size=count))
        reached = reached[reached < total]
    return _bounded((np.interp(reached, expected, grid_s) * _SECOND_US).astype(np.int64))


def _bounded(times_us: np.ndarray) -> np.ndarray:
    if len(times_us) > ARRIVALS_MAX:
        raise ValueError(f"{len(times_us):,} requests in one run; at most {ARRIVALS_MAX:,} fit")
    return times_us
