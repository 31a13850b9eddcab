"""Whether a server's memory stays flat under a load that lasts, and how long its event loop keeps requests waiting."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np

EVERY_S = 1.0
# What a server's memory may grow by in an hour: at 300 requests a second some 50 bytes for each, less than any object.
GROWTH_MIB_PER_HOUR_MAX = 48.0
# The beginning, in which buffers and caches of the allocator fill.
SETTLE_SHARE = 0.25
# What follows is looked at in so many stretches: half a minute each in ten minutes.
STRETCHES = 15
STALL_MS_P99_MAX = 5.0


@dataclass(frozen=True, slots=True)
class Memory:
    """Samples of a server's private memory while it was under load."""

    seconds: np.ndarray
    mib: np.ndarray

    @property
    def settled(self) -> np.ndarray:
        """Which samples count: those after the beginning."""
        return self.seconds >= SETTLE_SHARE * self.seconds[-1]

    @property
    def lows(self) -> np.ndarray:
        """The least MiB of each stretch: what is in use whatever waits at the moment."""
        return np.array([mib.min() for mib in np.array_split(self.mib[self.settled], STRETCHES) if len(mib)])

    @property
    def growth_mib_per_hour(self) -> float:
        """How fast the lows rise: what is kept for good raises them, requests that come and go do not."""
        seconds = self.seconds[self.settled]
        middles = np.array([span.mean() for span in np.array_split(seconds, STRETCHES) if len(span)])
        return _slope(middles, self.lows) * 3_600

    @property
    def growth_of_all_mib_per_hour(self) -> float:
        """How fast all samples rise, queues that stand for a while included."""
        return _slope(self.seconds[self.settled], self.mib[self.settled]) * 3_600

    @property
    def flat(self) -> bool:
        """Whether it grows by no more than it may."""
        return self.growth_mib_per_hour <= GROWTH_MIB_PER_HOUR_MAX


def _slope(seconds: np.ndarray, mib: np.ndarray) -> float:
    """The median of the slopes between all pairs of points (Theil-Sen), which a single jump does not move."""
    if len(seconds) > 1_000:
        step = -(-len(seconds) // 1_000)
        seconds, mib = seconds[::step], mib[::step]
    later, sooner = np.triu_indices(len(seconds), 1)[::-1]
    return float(np.median((mib[later] - mib[sooner]) / (seconds[later] - seconds[sooner])))


class MemoryWatch:
    """Samples memory in a thread; a context manager, whose `memory` is there after it."""

    memory: Memory

    def __init__(self, private_bytes: Callable[[], int], *, every_s: float = EVERY_S) -> None:
        self._private_bytes = private_bytes
        self._every_s = every_s
        self._done = threading.Event()
        self._samples: list[tuple[float, float]] = []
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        seconds, mib = zip(*self._samples, strict=True)
        self.memory = Memory(np.array(seconds), np.array(mib))

    def _watch(self) -> None:
        start_s = time.monotonic()
        while True:
            self._samples.append((time.monotonic() - start_s, self._private_bytes() / 2**20))
            if self._done.wait(self._every_s):
                return


def stall_ms_p99(before: str, after: str) -> float:
    """The histogram's edge that 99 of 100 of the event loop's stalls between two scrapes stay within; NaN of none."""
    counts = _buckets(after)
    for edge, count in _buckets(before).items():
        counts[edge] = counts.get(edge, 0.0) - count
    edges = sorted(counts)
    total = counts[edges[-1]] if edges else 0.0
    if not total:
        return float("nan")
    return next(edge for edge in edges if counts[edge] >= 0.99 * total) * 1e3


def _buckets(text: str) -> dict[float, float]:
    found = re.findall(r'^nowgraph_event_loop_stall_seconds_bucket\{.*?le="([^"]+)"[^}]*\} (\S+)', text, re.MULTILINE)
    counts: dict[float, float] = {}
    for edge, count in found:
        counts[float(edge)] = counts.get(float(edge), 0.0) + float(count)
    return counts
