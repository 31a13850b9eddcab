"""Batches for the loop, sampled and collated in threads of their own while the model computes.

draw ─► Sampler.sample_rows at each example's cut-off ─► collate ─► Ahead ─► loop
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from graph_transformer.encoding.batch import Batch
from graph_transformer.encoding.collate import Encoding, collate
from graph_transformer.encoding.statistics import Statistics, fit_statistics
from graph_transformer.finetune.ahead import Ahead
from graph_transformer.finetune.examples import Examples
from graph_transformer.finetune.ranks import Ranks
from graph_transformer.heads import Unit
from graph_transformer.target import Kind, Target
from graph_transformer.task import Task
from graph_transformer.training import Training
from online_sampler.sampler import Sampler

if TYPE_CHECKING:
    from online_sampler.neighborhood import Neighborhood
    from temporal_graph.view import GraphView

DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Fed:
    """One step's input: the batch and its labels as the unit encodes them, float32[B] or float32[B, n].

    `weight` is what its mean loss counts among those of several processes.
    """

    batch: Batch
    label: torch.Tensor
    weight: float = 1.0


def rare_share(target: Target, label: NDArray[np.float32], training: Training) -> float:
    """Return the share of positives in every batch of a binary target: the data's own, or what training asks for."""
    share = float(label.mean())
    return min(max(share, training.rare_share), 1.0 - training.rare_share) if target.kind is Kind.BINARY else share


def draws(
    target: Target, label: NDArray[np.float32], training: Training, random: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Yield for every step which examples it sees, in random order, begun anew when all were seen.

    Of a binary target whose rarer kind is rarer than `rare_share` each kind has its own order and its part of a batch;
    where it has fewer examples than its part, they come more than once, so that the share is what it is said to be.
    """
    size = min(training.batch, len(label))
    if target.kind is not Kind.BINARY or rare_share(target, label, training) == float(label.mean()):
        streams = [rounds(np.arange(len(label)), size, random)]
    else:
        positives = max(1, round(size * rare_share(target, label, training)))
        kinds = (np.flatnonzero(label > 0.5), positives), (np.flatnonzero(label <= 0.5), size - positives)
        streams = [rounds(positions, part, random) for positions, part in kinds]
    while True:
        yield np.concatenate([next(stream) for stream in streams])


def rounds(positions: NDArray[np.int64], size: int, random: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Yield `size` positions at a time in random order, all of them before one comes again."""
    waiting = np.empty(0, dtype=np.int64)
    while True:
        while len(waiting) < size:
            waiting = np.concatenate([waiting, random.permutation(positions)])
        yield waiting[:size]
        waiting = waiting[size:]


def sample(
    sampler: Sampler,
    target: Target,
    examples: Examples,
    *,
    read_until_us: NDArray[np.int64] | int | None = None,
    request: int | None = None,
) -> Neighborhood:
    """Return the neighborhoods of examples, each at its own cut-off, or at `read_until_us` where that is earlier."""
    cutoff = examples.cutoff_time_us
    if read_until_us is not None:
        cutoff = np.minimum(cutoff, read_until_us)
    as_of = not target.event_level
    return sampler.sample_rows(target.table, examples.row, cutoff, as_of=as_of, request=request)


def stale_cutoffs(examples: Examples, training: Training, random: np.random.Generator) -> NDArray[np.int64] | None:
    """Return what part of the graph each example may read: up to `staleness_days` less for some; None for all of it."""
    if not training.staleness_share or not training.staleness_days:
        return None
    age_us = random.random(len(examples)) * training.staleness_days * DAY_US
    stale = random.random(len(examples)) < training.staleness_share
    return examples.cutoff_time_us - np.where(stale, age_us, 0.0).astype(np.int64)


def statistics_of(view: GraphView, task: Task, parts: Iterable[Examples], *, seed: int) -> Statistics:
    """Return the statistics that a task's model needs, of the neighborhoods of training examples given in parts."""
    sampler, model = Sampler(view, task.sampling_plan, seed=seed), task.model
    return fit_statistics(
        [sample(sampler, task.target, part) for part in parts],
        view.schema,
        view.strings,
        target=task.target,
        text_encoder=model.text_encoder,
        tallies=model.tallies,
        comparisons=model.comparisons,
    )


def feed(
    view: GraphView,
    task: Task,
    examples: Examples,
    encoding: Encoding,
    *,
    unit: Unit,
    seed: int,
    samplers: int = 1,
    ranks: Ranks | None = None,
    first: int = 0,
) -> Ahead[NDArray[np.int64], Fed]:
    """Return the input of every step after `first`, made by `samplers` threads; a context, so that they end with it.

    Order and content depend on `seed` only, and on `ranks`, of which this one has its part of every batch.
    """
    ranks = Ranks() if ranks is None else ranks
    drawn = draws(task.target, examples.label, task.training, np.random.default_rng(seed))

    def made(sampler: Sampler, step: int, chosen: NDArray[np.int64]) -> Fed:
        part = examples.select(ranks.part(chosen))
        # Dice and draws of a step's own: whichever thread it falls to, and wherever a training goes on, they are these.
        random = np.random.default_rng([seed, ranks.rank, step])
        read_until_us = stale_cutoffs(part, task.training, random)
        request = step * ranks.size + ranks.rank
        neighborhood = sample(sampler, task.target, part, read_until_us=read_until_us, request=request)
        batch = collate(neighborhood, encoding, asked_time_us=part.cutoff_time_us)
        return Fed(batch, torch.from_numpy(unit.encode(part.label)), ranks.weight(len(chosen)))

    makers = [partial(made, Sampler(view, task.sampling_plan, seed=seed)) for _ in range(samplers)]
    return Ahead(makers, islice(drawn, first, None), first=first)
