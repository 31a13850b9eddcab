"""How many rows questions find over each link: measured through the sampler, at the questions' own cut-offs.

a few hundred training examples ─► Sampler, one link wide open ─► children per row, ages, how shared the rows are
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from graph_transformer.finetune.examples import Examples
from graph_transformer.finetune.feed import DAY_US, sample
from graph_transformer.target import Target
from online_sampler.plan import NODE_LIMIT_MAX, PerLink, SamplingPlan, Strategy
from online_sampler.sampler import Sampler
from temporal_graph.time_rule import ALWAYS_US

if TYPE_CHECKING:
    from online_sampler.neighborhood import Neighborhood
    from temporal_graph.view import GraphView

Ints = NDArray[np.int64]

WIDE = 512
"""Children counted of one row, at most: a row with more is a hub, whatever the exact number."""
ROWS_MAX = 200_000
"""Rows of one call when measuring; seeds are asked in as many calls as that takes."""


@dataclass(frozen=True, slots=True)
class Degrees:
    """What questions find over one link at one hop, by rows it starts from.

    sources: such rows per question (mean), and sources_p90. median, p90, p95, maximum: children per row, `WIDE` for
    that many or more. share: of two questions about different rows, how often the other one reaches this row too.
    age_days: median age of the children that have a time, at the cut-off. targets: different rows led to per question
    (mean), and fresh: those of them that no earlier hop reached.
    """

    sources: float
    sources_p90: float
    median: float
    p90: float
    p95: float
    maximum: int
    share: float
    age_days: float | None
    targets: float = 0.0
    fresh: float = 0.0

    @property
    def empty(self) -> bool:
        """Whether no question found anything."""
        return self.maximum == 0


NOTHING = Degrees(0.0, 0.0, 0.0, 0.0, 0.0, 0, 0.0, None)
"""Of a link whose table no question reached."""


def draw(examples: Examples, count: int, *, seed: int = 0) -> Examples:
    """Return at most `count` of the examples, drawn alike from all, in their order."""
    chosen = np.random.default_rng(seed).permutation(len(examples))[:count]
    return examples.select(np.sort(chosen))


def fan_outs(hops: Iterable[dict[str, int]], *, node_limit: int = NODE_LIMIT_MAX) -> SamplingPlan:
    """Return the plan that takes these numbers per link and hop, the most recent rows, and nothing else."""
    numbers = tuple(PerLink(0, tuple(sorted(hop.items()))) for hop in hops)
    strategy = (PerLink(Strategy.MOST_RECENT),) * len(numbers)
    half_life = SamplingPlan.from_dict({"num_neighbors": [{"hop1": 0}]}).half_life * len(numbers)
    return SamplingPlan(numbers, strategy, half_life, node_limit)


def measure(
    view: GraphView, target: Target, examples: Examples, hops: list[dict[str, int]], links: Iterable[str]
) -> dict[str, Degrees]:
    """Return what the examples find over each link one hop after `hops`, children up to `WIDE` a row.

    Every example is asked at its own cut-off, so that nothing later counts.
    """
    opened = list(links)
    found: dict[str, list[_Found]] = {link: [] for link in opened}
    per_call = len(examples)
    done = 0
    while done < len(examples) and opened:
        part = examples.select(np.arange(done, min(done + per_call, len(examples))))
        if per_call > 1 and done == 0:
            # The size of a neighborhood is not known before: begin with a few.
            part = part.select(np.arange(min(16, len(part))))
        sampler = Sampler(view, fan_outs([*hops, dict.fromkeys(opened, WIDE)]))
        neighborhood = sample(sampler, target, part)
        for link in opened:
            found[link].append(_find(neighborhood, link, len(hops), part.row))
        done += len(part)
        per_call = max(1, int(ROWS_MAX * len(part) / max(1, len(neighborhood.row))))
    return {link: _summary(parts) for link, parts in found.items()}


@dataclass(frozen=True, slots=True)
class _Found:
    """Of one call: the rows a link starts from, per question; their children's count and ages."""

    seed: Ints  # row of the question, by source
    source: Ints  # row it starts from
    children: Ints
    per_question: Ints
    age_us: Ints
    targets: int
    fresh: int


def _find(neighborhood: Neighborhood, link: str, hop: int, seeds: Ints) -> _Found:
    schema = neighborhood.schema
    number = schema.edge_types.index(link)
    table = next(
        schema.table_index(found.child if found.forward == link else found.parent)
        for found in schema.links
        if link in (found.forward, found.backward)
    )
    nodes = np.flatnonzero((neighborhood.hop == hop) & (neighborhood.table == table))
    question = np.searchsorted(neighborhood.seed_offset, nodes, side="right") - 1
    edges = neighborhood.edge_link == number
    counts = np.bincount(neighborhood.edge_source[edges], minlength=len(neighborhood.row))
    reached = neighborhood.edge_target[edges]
    event = neighborhood.event_time_us[reached]
    asked = neighborhood.cutoff_time_us[np.searchsorted(neighborhood.seed_offset, reached, side="right") - 1]
    age = (asked - event)[event != ALWAYS_US]
    per_question = np.bincount(question, minlength=len(neighborhood))
    targets = np.unique(reached)
    fresh = int((neighborhood.hop[targets] == hop + 1).sum())
    return _Found(seeds[question], neighborhood.row[nodes], counts[nodes], per_question, age, len(targets), fresh)


def _summary(parts: list[_Found]) -> Degrees:
    children = np.concatenate([part.children for part in parts])
    if not len(children):
        return NOTHING
    per_question = np.concatenate([part.per_question for part in parts])
    age = np.concatenate([part.age_us for part in parts])
    median, p90, p95 = np.quantile(children, (0.5, 0.9, 0.95), method="higher").tolist()
    return Degrees(
        sources=float(per_question.mean()),
        sources_p90=float(np.quantile(per_question, 0.9, method="higher")),
        median=median,
        p90=p90,
        p95=p95,
        maximum=int(children.max()),
        share=_share(np.concatenate([part.seed for part in parts]), np.concatenate([part.source for part in parts])),
        age_days=float(np.median(age)) / DAY_US if len(age) else None,
        targets=sum(part.targets for part in parts) / len(per_question),
        fresh=sum(part.fresh for part in parts) / len(per_question),
    )


def _share(seed: Ints, source: Ints) -> float:
    """Return, over the rows that questions reach, the mean share of other questions that reach them too."""
    known = source >= 0
    pairs = np.unique(np.stack([seed[known], source[known]]), axis=1)
    questions = len(np.unique(seed))
    if questions < 2 or not pairs.shape[1]:
        return 0.0
    _, place, count = np.unique(pairs[1], return_inverse=True, return_counts=True)
    return float(((count[place] - 1) / (questions - 1)).mean())
