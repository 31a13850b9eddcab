"""How much one caller may ask: a token bucket for each name, and a bound on names.

    caller's name ─► its bucket: refilled by `rows_per_s`, at most `burst` ─► a token a row, or how long until one

When more names are busy than are kept, newcomers share one bucket: whoever invents names gains nothing beyond it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from prometheus_client import Counter

from model_server.caller import current_caller
from model_server.errors import OverloadedError
from model_server.metrics import Metrics
from model_server.settings import ServerSettings

# The requests that are paid for, by identity: those of one call, while it holds them.
_charged: ContextVar[AbstractSet[int]] = ContextVar("charged", default=frozenset())


@contextmanager
def charged_once() -> Iterator[None]:
    """Within it a request costs one token, however many models are asked for its answer; whoever asks holds it."""
    token = _charged.set(set())
    try:
        yield
    finally:
        _charged.reset(token)


@dataclass(slots=True)
class _Bucket:
    rows_per_s: float
    burst: float
    tokens: float
    at_s: float

    def refill(self, now_s: float) -> None:
        self.tokens = min(self.burst, self.tokens + (now_s - self.at_s) * self.rows_per_s)
        self.at_s = now_s

    @property
    def full(self) -> bool:
        return self.tokens >= self.burst


class Quotas:
    """The buckets of a server; belongs to its event loop."""

    def __init__(
        self,
        rows_per_s: float,
        *,
        burst_s: float,
        names_limit: int,
        by_name: Mapping[str, float] | None = None,
        shed: Counter,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`rows_per_s` of a name without a rate of its own in `by_name`, 0 for no quota; a burst is `burst_s` of it.

        Names in `by_name` always have their buckets; of the others at most `names_limit`. `shed` counts what is
        refused.
        """
        self._rows_per_s = rows_per_s
        self._burst_s = burst_s
        self._names_limit = names_limit
        self._clock_s = clock_s
        self._own = {name: self._bucket(rate) for name, rate in (by_name or {}).items() if rate > 0}
        self._unlimited = frozenset(name for name, rate in (by_name or {}).items() if rate <= 0)
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._shared = self._bucket(rows_per_s)
        self._shed = shed
        self._active = rows_per_s > 0 or bool(self._own)

    def admit(self, request: object) -> None:
        """Takes a token for the request of whoever asks now, if none was taken for it.

        Raises OverloadedError with when there is one again.
        """
        charged = _charged.get()
        if not self._active or id(request) in charged:
            return
        wait_s = self.take(current_caller().name)
        if wait_s > 0:
            self._shed.inc()
            raise OverloadedError("the caller's quota is used up", retry_after_s=wait_s)
        if isinstance(charged, set):
            charged.add(id(request))

    def take(self, name: str) -> float:
        """Takes a token for one row of this caller: 0, or the seconds until there is one."""
        bucket = self._own.get(name)
        if bucket is None:
            if self._rows_per_s <= 0 or name in self._unlimited:
                return 0.0
            bucket = self._bucket_of(name)
        bucket.refill(self._clock_s())
        if bucket.tokens >= 1.0:
            bucket.tokens -= 1.0
            return 0.0
        return (1.0 - bucket.tokens) / bucket.rows_per_s

    def _bucket(self, rows_per_s: float) -> _Bucket:
        burst = max(1.0, rows_per_s * self._burst_s)
        return _Bucket(rows_per_s, burst, burst, self._clock_s())

    def _bucket_of(self, name: str) -> _Bucket:
        bucket = self._buckets.get(name)
        if bucket is not None:
            self._buckets.move_to_end(name)
            return bucket
        if len(self._buckets) >= self._names_limit:
            idle = next(iter(self._buckets.values()))
            idle.refill(self._clock_s())
            if not idle.full:  # forgetting it would give its caller a burst
                return self._shared
            self._buckets.popitem(last=False)
        bucket = self._buckets[name] = self._bucket(self._rows_per_s)
        return bucket


def quotas_of(settings: ServerSettings, metrics: Metrics) -> Quotas:
    """The quotas that the settings ask for."""
    return Quotas(
        settings.quota_rows_per_s,
        burst_s=settings.quota_burst_s,
        names_limit=settings.quota_names_limit,
        by_name=settings.quota_rows_per_s_by_caller,
        shed=metrics.shed.labels("quota"),
    )
