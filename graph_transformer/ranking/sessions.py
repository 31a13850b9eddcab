"""The items of sessions: events that come with a question, read by the same sampler and rules as the graph's own rows.

serialized RowEvents ─► Sampler.sample_sessions ─► rows that are in no graph ─► their items and times, oldest first
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graph_transformer.ranking.asked import Asked, Ragged, offsets
from graph_transformer.task import Task
from online_sampler.plan import SamplingPlan
from online_sampler.sampler import Sampler
from temporal_graph.view import GraphView

Int64 = NDArray[np.int64]


class SessionItems:
    """Reads sessions for a ranking. One thread at a time."""

    def __init__(self, view: GraphView, task: Task) -> None:
        ranked = task.target.ranked
        assert ranked is not None
        table = view.schema.table(ranked.interactions)
        self._table, self._history = task.target.table, table.link(ranked.user_link).backward
        forward = table.link(ranked.item_link).forward
        self._to_item = view.schema.edge_types.index(forward)
        hops = [{"hop1": {"default": 0, self._history: SESSION_MAX}}, {"hop2": {"default": 0, forward: 1}}]
        self._sampler = Sampler(view, SamplingPlan.from_dict({"num_neighbors": hops}))

    def read(self, asked: Asked, sessions: tuple[tuple[bytes, ...], ...]) -> Asked:
        """Return the questions with their sessions' items; events that the graph already shows are left out.

        Raises:
            SeedError: an event is no row of its session.
        """
        sample = self._sampler.sample_sessions(
            self._table,
            asked.user,
            sessions,
            asked.cutoff_time_us,
            link=self._history,
            asked_time_us=asked.asked_time_us,
        )
        given = np.flatnonzero((sample.hop == 1) & (sample.row < 0))
        question = np.searchsorted(sample.seed_offset, given, side="right") - 1
        item = np.full(len(sample.row), -1, dtype=np.int64)
        led = sample.edge_link == self._to_item
        item[sample.edge_source[led]] = sample.row[sample.edge_target[led]]
        # Sampled newest first; sessions are told oldest first.
        order = np.lexsort((-given, question))
        given, question = given[order], question[order]
        count = np.bincount(question, minlength=len(asked))
        return asked.with_sessions(Ragged(offsets(count), item[given]), sample.event_time_us[given], sessions)


SESSION_MAX = 256
"""Most events of a session that are read, the newest: more than any history that is walked from."""
