"""Towers bound to a graph: vectors of users and items as of any cut-off, computed from the graph's rows each time.

users ─► Sampler (the task's plan) ─┐
items ─► Sampler (their own rows)  ─┴─► collate ─► identities ─► RankingModel ─► float32[n, dimension]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from graph_transformer.device import CPU, find_device
from graph_transformer.encoding.batch import Batch
from graph_transformer.encoding.collate import Encoding, collate
from graph_transformer.errors import CheckpointMismatch, TaskError
from graph_transformer.ranking.identity import BoundIdentities
from graph_transformer.ranking.model import RankingModel
from graph_transformer.ranking.plans import item_plan
from online_sampler.sampler import Sampler

if TYPE_CHECKING:
    from graph_transformer.checkpoint import Checkpoint
    from graph_transformer.task import Task
    from online_sampler.neighborhood import Neighborhood
    from temporal_graph.view import GraphView

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
USERS = 256
"""Users per forward pass: larger ones no longer gain speed on a CPU."""
ITEMS = 4096
"""Items per forward pass; they have few rows each."""


WIDTH_STEP = 4
"""Histories are short: up to the next 32 places a third of all work would be on empty ones."""


class TowerBatches:
    """Batches of users and items of one graph, for training and serving alike. One thread at a time.

    It owns samplers; `identities` may be shared by several.
    """

    def __init__(
        self, view: GraphView, task: Task, encoding: Encoding, identities: BoundIdentities, *, seed: int = 0
    ) -> None:
        """Raises TaskError for a task that is no ranking, PlanError for a plan with links the schema lacks."""
        ranked = task.target.ranked
        if ranked is None:
            raise TaskError("kind", "ranking", task.target.kind.value)
        self._users, self._items = task.target.table, ranked.items
        self._history = view.schema.table(ranked.interactions).link(ranked.user_link).backward
        self._encoding, self._identities = encoding, identities
        self._of_users = Sampler(view, task.sampling_plan, seed=seed)
        self._of_items = Sampler(view, item_plan(view.schema, ranked.items), seed=seed)

    def sampled_users(
        self,
        row: Ints,
        cutoff_time_us: Ints,
        sessions: Sequence[Sequence[bytes]] | None = None,
        *,
        asked_time_us: Ints | None = None,
        request: int | None = None,
    ) -> Neighborhood:
        """Return the neighborhoods of users, int64[B] both; the rest as `Sampler.sample_sessions` takes it."""
        if sessions is None or not any(sessions):
            return self._of_users.sample_rows(self._users, row, cutoff_time_us, as_of=True, request=request)
        return self._of_users.sample_sessions(
            self._users,
            row,
            sessions,
            cutoff_time_us,
            link=self._history,
            asked_time_us=asked_time_us,
            request=request,
        )

    def users(self, neighborhood: Neighborhood, asked_time_us: Ints | None = None) -> Batch:
        """Return the batch of users' neighborhoods; `asked_time_us` int64[B] where the graph was read up to earlier."""
        return self._identified(neighborhood, asked_time_us)

    def sampled_items(self, row: Ints, cutoff_time_us: Ints) -> Neighborhood:
        """Return the neighborhoods of items, int64[n] both: their own rows and what these point to."""
        return self._of_items.sample_rows(self._items, row, cutoff_time_us, as_of=True)

    def items(self, neighborhood: Neighborhood) -> Batch:
        """Return the batch of items' neighborhoods."""
        return self._identified(neighborhood, None)

    def _identified(self, neighborhood: Neighborhood, asked_time_us: Ints | None) -> Batch:
        batch = collate(neighborhood, self._encoding, width_step=WIDTH_STEP, asked_time_us=asked_time_us)
        return self._identities.of_batch(batch, neighborhood)


class BoundTowers:
    """A model's towers on a graph. One thread at a time; equal inputs give vectors within 1e-5 in any batch."""

    def __init__(
        self,
        model: RankingModel,
        encoding: Encoding,
        identities: BoundIdentities,
        view: GraphView,
        task: Task,
        *,
        device: str = "cpu",
    ) -> None:
        """`model` is in evaluation mode; `encoding` and `identities` are bound to the graph of the view."""
        self.model, self._device = model, device
        self._batches = TowerBatches(view, task, encoding, identities)
        self.dimension = model.dimension

    @classmethod
    def load(cls, checkpoint: Checkpoint, view: GraphView, *, device: str = CPU) -> BoundTowers:
        """Return a checkpoint's towers on a graph, computed on a device; the model's fusion stays on the processor.

        Raises CheckpointMismatch unless it is a ranking and fits, DeviceUnavailable for a device that is not there.
        """
        find_device(device)
        model, encoding = checkpoint.build(view.schema, view.strings)
        if checkpoint.ranking is None or not isinstance(model, RankingModel):
            raise CheckpointMismatch(
                f"the checkpoint is of a {checkpoint.task.target.kind.value} task, not of a ranking"
            )
        model.towers.to(device)
        identities = BoundIdentities(checkpoint.ranking.identities, view)
        return cls(model, encoding, identities, view, checkpoint.task, device=device)

    def users(
        self,
        user_row: Ints,
        cutoff_time_us: Ints,
        sessions: Sequence[Sequence[bytes]] | None = None,
        *,
        asked_time_us: Ints | None = None,
    ) -> Floats:
        """Return float32[B, dimension] of users as of their cut-offs, int64[B] both; row -1 is nobody.

        sessions: for each the serialized RowEvents of the interaction table that come with the question, oldest first.
        asked_time_us int64[B]: the time ages are counted from, where it is later than the cut-off.
        """
        return vectors_of_users(
            self.model,
            self._batches,
            user_row,
            cutoff_time_us,
            device=self._device,
            asked_time_us=asked_time_us,
            sessions=sessions,
        )

    def items(self, row: Ints, cutoff_time_us: Ints) -> Floats:
        """Return float32[n, dimension] of item rows as of cut-offs, int64[n] both."""
        return vectors_of_items(self.model, self._batches, row, cutoff_time_us, device=self._device)


@torch.inference_mode()
def vectors_of_users(
    model: RankingModel,
    batches: TowerBatches,
    row: Ints,
    cutoff_time_us: Ints,
    *,
    device: str = "cpu",
    asked_time_us: Ints | None = None,
    sessions: Sequence[Sequence[bytes]] | None = None,
) -> Floats:
    """Return what `BoundTowers.users` does."""
    vectors = np.empty((len(row), model.dimension), dtype=np.float32)
    for start in range(0, len(row), USERS):
        part = slice(start, start + USERS)
        asked_us = None if asked_time_us is None else asked_time_us[part]
        neighborhood = batches.sampled_users(
            row[part], cutoff_time_us[part], None if sessions is None else sessions[part], asked_time_us=asked_us
        )
        batch = batches.users(neighborhood, asked_us)
        vectors[part] = model.users(batch.to(device)).float().cpu().numpy()
    return vectors


@torch.inference_mode()
def vectors_of_items(
    model: RankingModel, batches: TowerBatches, row: Ints, cutoff_time_us: Ints, *, device: str = "cpu"
) -> Floats:
    """Return what `BoundTowers.items` does."""
    vectors = np.empty((len(row), model.dimension), dtype=np.float32)
    for start in range(0, len(row), ITEMS):
        part = slice(start, start + ITEMS)
        batch = batches.items(batches.sampled_items(row[part], cutoff_time_us[part]))
        vectors[part] = model.items(batch.to(device)).float().cpu().numpy()
    return vectors
