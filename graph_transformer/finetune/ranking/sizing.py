"""The plan of a ranking that has none: what to sample, the towers' size and how long they are fitted.

training questions ─► ModelPlan: steps by their number, everything else as experiments on 12,000 products found it
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from graph_transformer.config import ModelConfig
from graph_transformer.plan import ModelPlan
from graph_transformer.ranking.config import RankingConfig
from graph_transformer.ranking.plans import default_plan
from graph_transformer.target import Target
from graph_transformer.training import Training

if TYPE_CHECKING:
    from temporal_graph.schema import Schema

# (training questions, times that each is seen), straight lines between over their logarithm.
EPOCHS = ((1_000, 20.0), (20_000, 10.0), (100_000, 8.0), (1_000_000, 3.0))
# 109,000 questions, NDCG@10: .072 after four epochs, .077 after six, .080 after nine.
BATCHES = ((0, 128), (10_000, 256), (40_000, 512))
"""From so many training questions on: questions a step. Larger batches have more negatives in common."""
STEPS_LEAST, STEPS_MOST = 100, 20_000
MEMBERS = 2
"""Towers that answer together: NDCG@10 of .072 where one had .068."""
DROPOUT = 0.15
"""None learned faster and was no better in the end; .3 was slower and worse."""
LEARNING_RATE = 4e-3
LOOKS = 4
LOOKED_AT = 5_000
"""Questions of a look, each against all items: a look takes as long as some fifty steps."""


def ranking_plan(schema: Schema, target: Target, config: RankingConfig, questions: int) -> ModelPlan:
    """Return the plan of a ranking with so many training questions."""
    batch = max(size for least, size in BATCHES if questions >= least)
    wanted = math.ceil(_between(questions) * questions / batch)
    steps = min(max(wanted, STEPS_LEAST), STEPS_MOST)
    model = ModelConfig(
        width=config.dimension,
        layers=2,
        heads=_heads(config.dimension),
        sums=0,
        dropout=DROPOUT,
        token_dropout=DROPOUT,
        members=MEMBERS,
    )
    training = Training(
        steps=steps,
        batch=batch,
        learning_rate=LEARNING_RATE,
        weight_decay=0.05,
        ema=0.99,
        evaluate_every=max(1, steps // LOOKS),
        validation_examples=LOOKED_AT,
    )
    return ModelPlan(default_plan(schema, target, config), model, training, config)


def _heads(width: int) -> int:
    """Return the most heads, up to 8, that a width can be divided among."""
    return next(heads for heads in (8, 4, 2, 1) if width % heads == 0)


def _between(questions: int) -> float:
    """Return the epochs between two measured numbers of questions, or those of the nearer end."""
    least, epochs = EPOCHS[0]
    if questions <= least:
        return epochs
    for more, fewer_epochs in EPOCHS[1:]:
        if questions <= more:
            share = math.log(questions / least) / math.log(more / least)
            return epochs + share * (fewer_epochs - epochs)
        least, epochs = more, fewer_epochs
    return epochs
