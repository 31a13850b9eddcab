"""`Sampler`'s question, asked of a graph in Redis: the same neighborhoods by `most_recent`.

    seeds, cut-offs ─► Walk: what can be reached, in one round a hop ─► a small native graph ─► the native sampler

The native graph holds what questions have fetched so far, so its rows are true, if not all of them: what one question
may reach is fetched, or known to be unchanged, before it is sampled.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from online_sampler.errors import PlanError, SeedError
from online_sampler.neighborhood import Neighborhood
from online_sampler.plan import ALONE, SamplingPlan
from online_sampler.redis_walk import Root, Routes, Rows, Walk
from online_sampler.resolved_plan import resolve
from online_sampler.sampler import Sampler
from temporal_graph.graph import TemporalGraph
from temporal_graph.redis.account import State
from temporal_graph.redis.errors import ErasingError, StoreError, StoreLostError
from temporal_graph.redis.keys import Names, entity, key_bytes
from temporal_graph.redis.row_event import EventReader
from temporal_graph.redis.view import RedisView
from temporal_graph.time_rule import TIME_MAX_US
from temporal_graph.view import GraphPosition, GraphView, Key

Times = npt.NDArray[np.int64]

ARENA_BYTES: Final = 1 << 30
"""Address space of the native graph that keeps what was fetched."""
KEPT_BYTES_MAX: Final = 32 << 20
"""Bytes of fetched events after which it is begun anew, between two questions."""

ERASING_PATIENCE_S: Final = 5.0
"""How long a question is asked anew while what it has read is erased."""
CHECKED_TRIES: Final = 3
"""After so many tries nothing is compared: an eraser that died left slices that say different things for a while."""


class RedisSampler:
    """Samples a graph in Redis by one plan. One per thread.

    Rows and codes of an answer are those of `view` as it is after the answer: it gives their keys and strings. A later
    question may replace the view, and with it what the numbers mean; who needs an answer's numbers later keeps its
    view. The answer's position is the stream's as read before anything else, so all before it is in the answer. An
    answer that is made while writers write may hold more than that, never a part of a row, nor anything later than
    its cut-off.
    """

    def __init__(self, store: RedisView, plan: SamplingPlan) -> None:
        """Lays the plan over the store's schema.

        Raises:
            PlanError: the plan names a link that the schema lacks, or another strategy than most_recent.
        """
        self._plan = resolve(plan, store.schema.edge_types)
        if self._plan.strategy.any():
            raise PlanError("strategy", "most_recent, the only one over a graph in Redis", plan.to_dict()["strategy"])
        self.plan = plan
        self._store = store
        self._schema = store.schema
        self._reader = EventReader(store.schema)
        self._routes = Routes(store.schema, self._plan)
        self._walks = 0
        self._graph = ""
        self._erasures: int | None = None
        self._begin_anew()

    @property
    def view(self) -> GraphView:
        """What gives the keys of the last answer's rows and the strings of its codes."""
        return self._view

    def sample_keys(self, table: str, keys: Sequence[Key], cutoff_time_us: Times) -> Neighborhood:
        """Samples around entities as of their cut-offs, as `Sampler.sample_keys` does.

        Raises:
            SeedError: the schema has no such table, or the arrays differ in length.
            StoreError: Redis cannot give all of it; which and why. There is no shorter answer.
        """
        cutoffs = _checked(keys, cutoff_time_us)
        self._fetch([Root(*each, each[1]) for each in zip(self._entities(table, keys), cutoffs.tolist(), strict=True)])
        return self._sampler.sample_keys(table, keys, cutoffs).standing_at(self._position)

    def sample_rows(self, table: str, keys: Sequence[Key], cutoff_time_us: Times) -> Neighborhood:
        """Samples around rows, named by their keys, each shown as it arrived, as `Sampler.sample_rows` does.

        Raises:
            SeedError: a row is not in the graph; else as `sample_keys`.
            StoreError: as `sample_keys`.
        """
        cutoffs = _checked(keys, cutoff_time_us)
        seeds = zip(self._entities(table, keys), cutoffs.tolist(), strict=True)
        self._fetch([Root(*each, TIME_MAX_US) for each in seeds])
        return self._sampler.sample_rows(table, self._view.row_index(table, keys), cutoffs).standing_at(self._position)

    def sample_events(self, events: Sequence[bytes], cutoff_time_us: Times) -> Neighborhood:
        """Samples around serialized RowEvents that are not in the graph, as `Sampler.sample_events` does.

        Raises:
            SeedError: bytes are no RowEvent or do not fit the schema; says which and why, never a value.
            StoreError: as `sample_keys`.
        """
        cutoffs = _checked(events, cutoff_time_us)
        self._alone.sample_events(events, cutoffs)  # refuses what is no event, before it is read
        roots = []
        for event, cutoff in zip(events, cutoffs.tolist(), strict=True):
            change = self._reader.read(event)
            links, parent = self._plan.num_neighbors[0], self._routes.parent
            named = tuple(
                entity(parent[link], key) for link, key in change.version.links if key and links[2 * link] > 0
            )
            roots.append(Root(change.entity, cutoff, cutoff, named))
        self._fetch(roots)
        return self._sampler.sample_events(events, cutoffs).standing_at(self._position)

    def _entities(self, table: str, keys: Iterable[Key]) -> list[bytes]:
        names = [one.name for one in self._schema.tables]
        if table not in names:
            raise SeedError(f"the schema has no table {table!r}, only {', '.join(names)}")
        index = names.index(table)
        return [entity(index, key_bytes(key if isinstance(key, tuple) else (key,))) for key in keys]

    def _fetch(self, roots: Sequence[Root]) -> None:
        """Brings all that the roots may reach into the native graph.

        While something is erased, rows go between a list that names them and their own turn: the question is asked
        anew, and what it has fetched is kept for no other.
        """
        until_s = time.monotonic() + ERASING_PATIENCE_S
        tries = 0
        while True:
            state = self._store.state()
            tries += 1
            erasures = None if state.erasures < 0 or tries > CHECKED_TRIES else state.erasures
            try:
                return self._fetch_as_of(state, roots, erasures)
            except (ErasingError, StoreLostError) as error:
                lost = isinstance(error, StoreLostError) and self._store.state().erasures == max(state.erasures, 0)
                if lost or time.monotonic() > until_s:
                    raise

    def _fetch_as_of(self, state: State, roots: Sequence[Root], erasures: int | None) -> None:
        known = self._graph, self._erasures
        if self._kept_bytes > KEPT_BYTES_MAX or erasures is None or (self._graph and known != (state.graph, erasures)):
            self._begin_anew()
        self._graph, self._erasures = state.graph, erasures
        self._walks += 1
        names: Names = self._store.names(state)
        try:
            Walk(self._store, names, self._routes, self._rows, self._walks, erasures=erasures).run(roots)
            self._keep(state)
        except BaseException:
            self._begin_anew()  # rows of which the native graph was not told
            raise
        # What is kept counts its own events; the answer stands where the graph in Redis does.
        self._position = GraphPosition(int(state.graph, 16), 0, state.positions)

    def _keep(self, state: State) -> None:
        rows = self._rows
        events = [self._reader.event(table, stored) for table, stored in rows.new]
        events += [self._reader.unseen(named[0], named[1:]) for named in rows.unseen]
        for named in rows.bare:
            self._named += 1
            events.append(self._reader.naming(named[0], named[1:], self._named))
        rows.new, rows.bare, rows.unseen = [], [], []
        self._kept_bytes += sum(map(len, events))
        applied = self._kept.apply(events, backfill=True, positions=state.positions)
        for one in applied.rejected:  # the writer's judge took it: what Redis gave is not what it was given
            raise StoreError(f"the graph in Redis gave an event that is none: {one.reason}")

    def _begin_anew(self) -> None:
        self._kept = TemporalGraph.create(self._schema, arena_bytes=ARENA_BYTES)
        self._kept_bytes = self._named = 0
        self._rows = Rows()
        self._view = self._kept.view()
        self._sampler = Sampler(self._view, self.plan)
        self._alone = Sampler(self._view, SamplingPlan.from_dict(ALONE))


def _checked(seeds: Sequence[object], cutoff_time_us: Times) -> Times:
    """The cut-offs; the one before the last instant stands for the last, at which a row known by name would end."""
    if len(seeds) != len(cutoff_time_us):
        raise SeedError(f"expected a cut-off for each of {len(seeds)} seeds, found {len(cutoff_time_us)}")
    return np.minimum(cutoff_time_us, TIME_MAX_US - 1)
