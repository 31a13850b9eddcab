"""A graph in Redis as a server reads it: never from the event loop, never without knowing whether it serves.

    Redis ◄─ a thread of its own: which graph serves, its positions ─► StoreView ─► freshness, health, staleness, gauges
          ◄─ the engine's thread: rows of a batch ─► StoreSampler ─► its view ─► predictor

What the event loop asks is answered from the last look. A look may be old, so it decides nothing alone: an answer is
held against its own position, which is read with its rows.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NoReturn, Self

import numpy as np
import structlog
from numpy.typing import NDArray
from prometheus_client import Gauge

from model_server.errors import GraphUnavailableError
from model_server.metrics import TASK_LABELS, Families
from model_server.settings import ServerSettings
from online_sampler.neighborhood import Neighborhood
from online_sampler.plan import SamplingPlan
from online_sampler.redis_sampler import RedisSampler
from temporal_graph.errors import TemporalGraphError
from temporal_graph.redis.account import NAMESPACE, State
from temporal_graph.redis.errors import StoreNotReadyError, StoreUnavailableError
from temporal_graph.redis.view import RedisView
from temporal_graph.schema import Schema
from temporal_graph.time_rule import ALWAYS_US
from temporal_graph.view import GraphPosition, GraphView, Key

log = structlog.get_logger(__name__)

# Beyond the time between two looks: one takes at most twice its timeout. What is older says nothing, so that a watch
# that hangs hides nothing.
LOOK_LATE_MAX_S = 15.0


class StoreFamilies:
    """The metrics of graphs in Redis."""

    def __init__(self, families: Families) -> None:
        self.serving = Gauge(
            "nowgraph_store_serving",
            "1 while the graph's store in Redis answers and holds a graph that serves.",
            TASK_LABELS[:1],
            registry=families.registry,
        )


class StoreView:
    """The part of a `GraphView` that a server reads beside its samplers, for any number of threads; close it."""

    superseded = False
    """A graph that is begun anew serves under the same view."""
    watermark_us = ALWAYS_US
    """Not known: rows are asked for by key."""
    writer_pulse_us = 0
    """Not known: a graph of which no updater has said that it is complete counts as never complete."""

    def __init__(self, store: RedisView, *, poll_s: float, look_s: float) -> None:
        """Takes a first look, then one every `look_s`, while somebody waits for a position every `poll_s`.

        Raises StoreError and SchemaMismatchError where no graph serves.
        """
        self.schema = store.schema
        self.store = store
        self._poll_s, self._look_s = poll_s, look_s
        self._state: State = store.state()
        self._failure: TemporalGraphError | None = None
        self._looked_s = time.monotonic()
        self._hurried, self._closed = threading.Event(), threading.Event()
        self._watch = threading.Thread(target=self._look, name="nowgraph-store", daemon=True)
        self._watch.start()

    @classmethod
    def open(cls, url: str, schema: Schema, settings: ServerSettings, *, namespace: str = NAMESPACE) -> Self:
        """Connects; raises as the constructor does."""
        timeout_s = settings.store_timeout_ms / 1e3
        store = RedisView.open(url, schema, namespace=namespace, timeout_s=timeout_s, patience_s=timeout_s)
        try:
            return cls(store, poll_s=settings.store_poll_ms / 1e3, look_s=settings.store_look_ms / 1e3)
        except BaseException:
            store.close()
            raise

    def twin(self) -> Self:
        """As `GraphView.twin`: this one, which belongs to no thread."""
        return self

    @property
    def generation(self) -> int:
        """As an answer's position has it: another number for each building of the graph, in no order."""
        return int(self._state.graph, 16)

    @property
    def complete_time_us(self) -> int | None:
        """As `GraphView.complete_time_us`, of the partition that is furthest behind."""
        return self._state.complete_time_us

    @property
    def serves(self) -> bool:
        """Whether there is a graph that serves, as far as could be seen: a store that is away has not lost it."""
        return self._failure is None or isinstance(self._failure, StoreUnavailableError)

    @property
    def away(self) -> bool:
        """Whether the store did not answer the last look, or nobody has looked for long."""
        return isinstance(self._failure, StoreUnavailableError) or self._late()

    def position(self) -> GraphPosition:
        """As last seen."""
        return GraphPosition(self.generation, 0, self._state.positions)

    def offsets(self) -> Mapping[tuple[str, int], int]:
        """The first offsets that are not in the graph, as last seen; who asks again soon sees newer ones.

        Raises GraphUnavailableError while none serves.
        """
        self._hurried.set()
        self.check()
        return self._state.positions

    def check(self) -> None:
        """Raises GraphUnavailableError while no graph serves, or none could be seen."""
        if self._failure is not None:
            raise unavailable(self._failure)
        if self._late():
            age_s = time.monotonic() - self._looked_s
            raise GraphUnavailableError(f"the graph's store in Redis was last heard of {age_s:.0f} s ago")

    def strings(self, table: str, column: str, codes: NDArray[np.int32]) -> NoReturn:
        """Raises LookupError: codes are those of a sampler's view."""
        raise LookupError(f"{table}.{column}: {len(codes)} codes of a graph in Redis are asked without their sampler")

    def sampler(self, plan: SamplingPlan) -> StoreSampler:
        """A sampler for one thread. Raises PlanError for a plan that a graph in Redis cannot answer."""
        return StoreSampler(self, plan)

    def close(self) -> None:
        """Ends the watch and closes the connections."""
        self._closed.set()
        self._hurried.set()
        self._watch.join()
        self.store.close()

    def _late(self) -> bool:
        return time.monotonic() - self._looked_s > self._look_s + LOOK_LATE_MAX_S

    def _look(self) -> None:
        while not self._closed.wait(self._poll_s):
            self._hurried.wait(self._look_s)
            if self._closed.is_set():
                return
            self._hurried.clear()
            failure: TemporalGraphError | None = None
            try:
                self._state = self.store.state()
            except TemporalGraphError as error:
                failure = error
            except Exception:  # a defect must not end the watch: nothing that is seen from then on would be true
                log.exception("store_watch_failed")
                failure = StoreUnavailableError("it cannot be watched; the server's log has the place")
            self._say(failure)
            self._failure, self._looked_s = failure, time.monotonic()

    def _say(self, failure: TemporalGraphError | None) -> None:
        """One line when it goes, and one when it is back."""
        if failure is None and self._failure is not None:
            log.info("store_serves", graph=self._state.graph)
        elif failure is not None and type(failure) is not type(self._failure):
            log.warning("store_does_not_serve", reason=str(failure))


ServedView = GraphView | StoreView
"""What is served: an arena's generation, or a graph in Redis."""


class StoreSampler:
    """`Sampler`'s questions, asked of a graph in Redis by one thread.

    Numbers of an answer are those of `view` as it is after the answer; a later question may replace it.
    """

    def __init__(self, graph: StoreView, plan: SamplingPlan) -> None:
        self._graph = graph
        self._sampler = RedisSampler(graph.store, plan)

    @property
    def view(self) -> GraphView:
        """What gives the keys of the last answer's rows and the strings of its codes."""
        return self._sampler.view

    def sample_keys(self, table: str, keys: Sequence[Key], cutoff_time_us: NDArray[np.int64]) -> Neighborhood:
        """As `Sampler.sample_keys`; raises GraphUnavailableError where the store cannot give all of it."""
        with self._asked():
            return self._sampler.sample_keys(table, keys, cutoff_time_us)

    def sample_events(self, events: Sequence[bytes], cutoff_time_us: NDArray[np.int64]) -> Neighborhood:
        """As `Sampler.sample_events`; raises GraphUnavailableError where the store cannot give all of it."""
        with self._asked():
            return self._sampler.sample_events(events, cutoff_time_us)

    @contextmanager
    def _asked(self) -> Iterator[None]:
        """Does not ask a store that is known to be away, and says what it fails with as callers are told."""
        self._graph.check()
        try:
            yield
        except TemporalGraphError as error:
            raise unavailable(error) from error


def unavailable(error: TemporalGraphError) -> GraphUnavailableError:
    """What a caller is told of a store's failure."""
    what = "serves no graph" if isinstance(error, StoreNotReadyError) else "cannot answer"
    everyone = isinstance(error, StoreNotReadyError | StoreUnavailableError)
    return GraphUnavailableError(f"the graph's store in Redis {what}: {error}", everyone=everyone)


def wait_for_store(url: str, schema: Schema, settings: ServerSettings) -> StoreView:
    """Opens the store once a graph serves there; raises what kept it from that when none does in time.

    A server may start before its store's updaters have caught up: until then it has nothing to say.
    """
    deadline_s = time.monotonic() + settings.attach_timeout_s
    while True:
        try:
            return StoreView.open(url, schema, settings)
        except (StoreNotReadyError, StoreUnavailableError) as error:
            if time.monotonic() >= deadline_s:
                raise
            log.info("waiting_for_graph", reason=str(error))
            time.sleep(settings.store_look_ms / 1e3)
